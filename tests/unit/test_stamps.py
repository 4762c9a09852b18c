"""Stamps: what is written is read back as who wrote it, and nothing else looks like a stamp."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzer.state.inode import format_inode, inode_generation, inode_number, make_inode
from fuzzer.state.stamps import FOREIGN, ZERO, Run, Words, decode, encode, file_tag, join
from fuzzer.workload.model import MAX_ACTORS, MAX_SEQUENCE, op_id
from fuzzer.workload.ops import MAX_FILE_BYTES, WORD_BYTES

OPS = st.integers(1, (1 << 24) - 1)
TAGS = st.integers(1, (1 << 16) - 1)
WORD = st.integers(0, MAX_FILE_BYTES // WORD_BYTES - 64)


def known(*ops: int) -> Words:
    return np.array(sorted(ops), dtype=np.uint64)


@given(OPS, TAGS, WORD, st.integers(1, 64))
def test_round_trip(op: int, tag: int, word: int, count: int) -> None:
    offset, length = word * 8, count * 8
    data = encode(op, tag, offset, length)
    assert decode(data, offset, known(op)) == (Run(offset, offset + length, op, tag),)


@given(OPS, TAGS, WORD, WORD)
def test_a_moved_block_says_how_far(op: int, tag: int, written: int, read: int) -> None:
    data = encode(op, tag, written * 8, 64)
    assert decode(data, read * 8, known(op)) == (Run(read * 8, read * 8 + 64, op, tag, (read - written) * 8),)


@given(OPS, TAGS, st.integers(0, 63), st.integers(0, 7))
def test_a_flipped_bit_never_passes(op: int, tag: int, bit: int, word: int) -> None:
    data = bytearray(encode(op, tag, 0, 64))
    data[word * 8 + bit // 8] ^= 1 << bit % 8
    (damaged,) = (r for r in decode(bytes(data), 0, known(op)) if r.start <= word * 8 < r.end)
    assert (damaged.op, damaged.tag, damaged.shift) != (op, tag, 0)


def test_last_op_and_last_word_fit() -> None:
    op, end = op_id(MAX_ACTORS, MAX_SEQUENCE - 1), MAX_FILE_BYTES
    data = encode(op, 0xFFFF, end - 8, 8)
    assert decode(data, end - 8, known(op)) == (Run(end - 8, end, op, 0xFFFF),)


def test_foreign_words_and_unknown_ops() -> None:
    assert decode(b"stale!!!" * 2, 0, known(1)) == (Run(0, 16, FOREIGN),)
    assert decode(encode(7, 1, 0, 8), 0, known(1)) == (Run(0, 8, FOREIGN),)
    assert decode(encode(7, 1, 0, 8), 0, known()) == (Run(0, 8, FOREIGN),)


def test_neighbours_are_cut_where_the_origin_changes() -> None:
    data = encode(1, 5, 0, 16) + bytes(8) + encode(2, 5, 24, 8) + encode(2, 6, 32, 8) + encode(2, 6, 48, 8)
    assert decode(data, 0, known(1, 2)) == (
        Run(0, 16, 1, 5),
        Run(16, 24, ZERO),
        Run(24, 32, 2, 5),
        Run(32, 40, 2, 6),
        Run(40, 48, 2, 6, -8),
    )


def test_torn_words_are_foreign() -> None:
    old, new = encode(1, 5, 0, 8), encode(2, 5, 0, 8)
    assert decode(new[:4] + old[4:], 0, known(1, 2))[0].op == FOREIGN
    assert decode(old[:5], 0, known(1)) == (Run(0, 5, FOREIGN),)


@pytest.mark.parametrize("length", [0, 1, 8, 4096])
def test_zeroes(length: int) -> None:
    assert decode(bytes(length), 16, known(1)) == ((Run(16, 16 + length, ZERO),) if length else ())


PIECES = st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.integers(1, 5)), min_size=1, max_size=8)


@given(PIECES, st.integers(1, 6))
def test_reading_in_chunks_makes_no_difference(pieces: list[tuple[int, int]], chunk: int) -> None:
    data = b""
    for op, count in pieces:
        data += encode(op, 9, len(data), count * 8) if op else bytes(count * 8)
    step = chunk * 8
    runs = [r for at in range(0, len(data), step) for r in decode(data[at : at + step], at, known(1, 2))]
    assert join(runs) == decode(data, 0, known(1, 2))


def test_buffers_of_all_sorts() -> None:
    data = encode(1, 2, 0, 32)
    expected = decode(data, 0, known(1))
    assert decode(memoryview(bytearray(data)), 0, known(1)) == expected
    assert decode(np.frombuffer(data, dtype=np.uint8), 0, known(1)) == expected


@given(st.integers(1, (1 << 64) - 1), st.integers(0, (1 << 32) - 1))
def test_inode_identity(number: int, generation: int) -> None:
    inode = make_inode(number, generation)
    assert (inode_number(inode), inode_generation(inode)) == (number, generation)
    assert 1 <= file_tag(inode) <= 0xFFFF
    assert format_inode(inode) == (f"{number}.{generation}" if generation else str(number))


def test_tags_of_neighbours_differ() -> None:
    assert len({file_tag(make_inode(number)) for number in range(257, 357)}) == 100
    assert len({file_tag(make_inode(131, generation)) for generation in range(100)}) == 100
