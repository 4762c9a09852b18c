"""Images against a plain bytearray."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzer.writelog.image import BLOCK_BYTES, Image

SIZE = 6 * BLOCK_BYTES
SECTORS = SIZE // 512

WRITES = st.tuples(st.just("write"), st.integers(0, SECTORS - 1), st.integers(1, 20), st.integers(0, 3))
DISCARDS = st.tuples(st.just("discard"), st.integers(0, SECTORS - 1), st.integers(1, 40), st.just(0))
STEPS = st.lists(WRITES | DISCARDS, max_size=12)

Step = tuple[str, int, int, int]


def carry_out(image: Image, model: bytearray, step: Step) -> None:
    what, sector, count, fill = step
    start, end = sector * 512, min((sector + count) * 512, SIZE)
    if what == "write":
        data = bytes([fill]) * (end - start)
        image.write(start, data)
        model[start:end] = data
        return
    image.discard(start, end - start)
    for block in range(0, SIZE, BLOCK_BYTES):
        if start <= block and block + BLOCK_BYTES <= end:
            model[block : block + BLOCK_BYTES] = bytes(BLOCK_BYTES)


def content(image: Image) -> bytes:
    """What `iter_extents` says, which is how images get to disk."""
    data = bytearray(image.size_bytes)
    for offset, blocks in image.iter_extents():
        assert all(any(block) for block in blocks)
        data[offset : offset + len(blocks) * BLOCK_BYTES] = b"".join(blocks)
    return bytes(data)


@given(STEPS)
def test_bytes_are_those_of_a_plain_device(steps: list[Step]) -> None:
    image, model = Image(SIZE), bytearray(SIZE)
    for step in steps:
        carry_out(image, model, step)
    assert content(image) == model
    assert image.read(0, SIZE) == model
    used = sum(any(model[at : at + BLOCK_BYTES]) for at in range(0, SIZE, BLOCK_BYTES))
    assert image.allocated_bytes == used * BLOCK_BYTES


@given(STEPS, STEPS)
def test_digests_are_equal_exactly_if_bytes_are(first: list[Step], second: list[Step]) -> None:
    images = Image(SIZE), Image(SIZE)
    models = bytearray(SIZE), bytearray(SIZE)
    for image, model, steps in zip(images, models, (first, second), strict=True):
        for step in steps:
            carry_out(image, model, step)
    assert (images[0].digest == images[1].digest) == (models[0] == models[1])


@given(STEPS)
def test_digest_does_not_tell_how_it_came_about(steps: list[Step]) -> None:
    image, model = Image(SIZE), bytearray(SIZE)
    for step in steps:
        carry_out(image, model, step)
    copy = Image(SIZE)
    for at in reversed(range(0, SIZE, 512)):
        copy.write(at, bytes(model[at : at + 512]))
    assert copy.digest == image.digest
    for at in range(0, SIZE, BLOCK_BYTES):
        copy.write(at, bytes(BLOCK_BYTES))
    assert copy.digest == Image(SIZE).digest == 0


def test_equal_blocks_at_two_places_count_by_place() -> None:
    here, there, both = Image(SIZE), Image(SIZE), Image(SIZE)
    block = b"x" * BLOCK_BYTES
    here.write(0, block)
    there.write(BLOCK_BYTES, block)
    both.write(0, block * 2)
    assert len({here.digest, there.digest, both.digest, 0}) == 4


def test_forks_are_apart() -> None:
    image = Image(SIZE)
    image.write(0, b"old" * 200)
    before = (image.digest, content(image))
    twin = image.fork()
    twin.write(100, memoryview(b"new"))
    assert (image.digest, content(image)) == before
    assert twin.read(99, 5) != image.read(99, 5)
    image.write(100, b"new")
    assert (image.digest, content(image)) == (twin.digest, content(twin))


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (5, 0), (1, 1), (4095, 2), (100, 9000), (SIZE - 1, 1)]
)
def test_read(offset: int, length: int) -> None:
    image, model = Image(SIZE), bytes(n % 251 for n in range(SIZE))
    image.write(0, model)
    assert image.read(offset, length) == model[offset : offset + length]


def test_write_behind_the_end_is_an_error() -> None:
    with pytest.raises(AssertionError):
        Image(SIZE).write(SIZE - 1, b"xx")
