"""Stamps: every 8-byte word a workload writes names its op and proves its place.

A word holds 24 bits of op id, 16 bits of file tag and 24 bits of word offset, mixed by a bijection
that keeps 0 at 0, so that stale or foreign bytes decode to nonsense and a moved block to another
place. Encoding and decoding are vectorised; a word never passes through a Python loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuzzer.state.inode import inode_generation, inode_number
from fuzzer.workload.ops import WORD_BYTES

Words = NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_HALF, _ONE = np.uint64(32), np.uint64(1)
_ID_SHIFT, _TAG_SHIFT = np.uint64(40), np.uint64(24)
_TAG_MASK, _OFFSET_MASK = np.uint64(0xFFFF), np.uint64(0xFFFFFF)

ZERO = 0
FOREIGN = -1


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive words of one file with one origin. `start` and `end` are byte offsets.

    `op` is the op id, `ZERO` or `FOREIGN`; `tag` the tag of the file it was written to; `shift` the
    byte distance from where it was written to where it was found (found = written + shift).
    """

    start: int
    end: int
    op: int
    tag: int = 0
    shift: int = 0


def file_tag(inode: int) -> int:
    """16-bit tag of an inode identity; never 0."""
    number, generation = inode_number(inode), inode_generation(inode)
    mixed = number * 0x9E3779B97F4A7C15 ^ generation * 0xC2B2AE3D27D4EB4F
    return (mixed >> 48 & 0xFFFF) or 1


def encode(op: int, tag: int, offset: int, length: int) -> bytes:
    """The bytes op `op` writes at [offset, offset + length) of the file tagged `tag`.

    Offset and length are multiples of 8.
    """
    first, count = offset // WORD_BYTES, length // WORD_BYTES
    words = np.arange(first, first + count, dtype=np.uint64)
    words |= np.uint64(op << 40 | tag << 24)
    return _mix(words).tobytes()


def decode(data: bytes | memoryview | NDArray[np.uint8], offset: int, known: Words) -> tuple[Run, ...]:
    """Cut `data`, found at byte `offset`, into runs. `known` holds the valid op ids, sorted.

    A tail shorter than a word is padded with zeros, so a torn last word shows as foreign.
    """
    words = _as_words(data)
    if not words.any():
        return (Run(offset, offset + len(data), ZERO),) if len(data) else ()
    return _runs(words, offset, len(data), known)


def _as_words(data: bytes | memoryview | NDArray[np.uint8]) -> Words:
    raw = np.frombuffer(data, dtype=np.uint8)
    padding = -len(raw) % WORD_BYTES
    if padding:
        raw = np.concatenate([raw, np.zeros(padding, dtype=np.uint8)])
    return raw.view(np.uint64)


def _mix(words: Words) -> Words:
    mixed = words * _MULTIPLIER
    mixed ^= mixed >> _HALF
    return mixed


def _unmix(words: Words) -> Words:
    plain = words ^ (words >> _HALF)
    plain *= _INVERSE
    return plain


def _runs(words: Words, offset: int, length: int, known: Words) -> tuple[Run, ...]:
    plain = _unmix(words)
    heads = _heads(plain)
    first = plain[heads]
    ops = (first >> _ID_SHIFT).astype(np.int64)
    tags = ((first >> _TAG_SHIFT) & _TAG_MASK).astype(np.int64)
    shifts = heads + offset // WORD_BYTES - (first & _OFFSET_MASK).astype(np.int64)
    ops[~np.isin(ops, known.astype(np.int64))] = FOREIGN
    ops[first == 0] = ZERO
    tags[ops <= 0] = 0
    shifts[ops <= 0] = 0
    # Neighbours may still be one run: words that name no op are foreign whatever else they say.
    cuts = (np.diff(ops) != 0) | (np.diff(tags) != 0) | (np.diff(shifts) != 0)
    chosen = np.concatenate([[0], np.flatnonzero(cuts) + 1])
    ends = np.append(heads[chosen[1:]], len(words))
    limit = offset + length
    return tuple(
        Run(
            offset + int(heads[a]) * WORD_BYTES,
            min(offset + int(b) * WORD_BYTES, limit),
            int(ops[a]),
            int(tags[a]),
            int(shifts[a]) * WORD_BYTES,
        )
        for a, b in zip(chosen, ends, strict=True)
    )


def _heads(plain: Words) -> NDArray[np.int64]:
    """Indices of words that do not just continue the word before.

    A stamp goes on with the next number, zeroes with zero. Looking only at these few words makes the
    rest of decoding cost nothing.
    """
    step = np.diff(plain)
    stop = step != _ONE
    stop &= (step | plain[1:]) != 0
    heads = np.concatenate([[0], np.flatnonzero(stop) + 1])
    # The next number after the largest offset runs over into the tag: no continuation.
    left = (_OFFSET_MASK - (plain[heads] & _OFFSET_MASK)).astype(np.int64) + 1
    over = heads + left < np.append(heads[1:], len(plain))
    over &= plain[heads] != 0
    return np.union1d(heads, (heads + left)[over]) if over.any() else heads


def join(runs: list[Run]) -> tuple[Run, ...]:
    """Merge neighbours of one origin (reading in chunks cuts runs at chunk borders)."""
    joined: list[Run] = []
    for run in runs:
        last = joined[-1] if joined else None
        if last and last.end == run.start and (last.op, last.tag, last.shift) == (run.op, run.tag, run.shift):
            joined[-1] = Run(last.start, run.end, run.op, run.tag, run.shift)
        else:
            joined.append(run)
    return tuple(joined)
