"""Image: the content of a device, sparse, with a digest that does not depend on how it came about.

The digest is the sum of each non-zero block's hash (seeded with its number), so one block write
updates it in constant time and two crash states are equal exactly if their digests are.
"""

from __future__ import annotations

from collections.abc import Iterator

import xxhash

BLOCK_BYTES = 4096
_ZERO_BLOCK = bytes(BLOCK_BYTES)
_MODULUS = 1 << 128


class Image:
    """A zeroed device of `size_bytes` (a multiple of 4096) and what was written to it."""

    __slots__ = ("_blocks", "digest", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        assert size_bytes % BLOCK_BYTES == 0, size_bytes
        self.size_bytes = size_bytes
        self.digest = 0
        self._blocks: dict[int, bytes] = {}

    def fork(self) -> Image:
        """A copy that shares no mutable state."""
        twin = Image(self.size_bytes)
        twin.digest = self.digest
        twin._blocks = self._blocks.copy()
        return twin

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at byte `offset`."""
        first, last = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES
        joined = b"".join(self._blocks.get(number, _ZERO_BLOCK) for number in range(first, last + 1))
        skip = offset - first * BLOCK_BYTES
        return joined[skip : skip + length]

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store `data` at byte `offset`. Bytes beyond the end of the device are an error."""
        end = offset + len(data)
        assert end <= self.size_bytes, (offset, len(data), self.size_bytes)
        view = memoryview(data)
        position = offset
        while position < end:
            number, skip = divmod(position, BLOCK_BYTES)
            piece = view[position - offset : position - offset + BLOCK_BYTES - skip]
            if len(piece) == BLOCK_BYTES:
                self._store(number, bytes(piece))
            else:
                old = self._blocks.get(number, _ZERO_BLOCK)
                self._store(number, old[:skip] + bytes(piece) + old[skip + len(piece) :])
            position += len(piece)

    def discard(self, offset: int, length: int) -> None:
        """Zero whole blocks inside the range, as the loop driver does (it punches holes)."""
        first, end = -(-offset // BLOCK_BYTES), (offset + length) // BLOCK_BYTES
        doomed = [n for n in self._blocks if first <= n < end] if end > first else []
        for number in doomed:
            self._store(number, _ZERO_BLOCK)

    def _store(self, number: int, block: bytes) -> None:
        old = self._blocks.pop(number, None)
        if old is not None:
            self.digest = (self.digest - xxhash.xxh3_128_intdigest(old, seed=number)) % _MODULUS
        if block != _ZERO_BLOCK:
            self._blocks[number] = block
            self.digest = (self.digest + xxhash.xxh3_128_intdigest(block, seed=number)) % _MODULUS

    def iter_extents(self) -> Iterator[tuple[int, list[bytes]]]:
        """(byte offset, consecutive blocks) of everything that is not zero, in order."""
        start, blocks = -1, list[bytes]()
        for number in sorted(self._blocks):
            if number != start + len(blocks) or start < 0:
                if blocks:
                    yield start * BLOCK_BYTES, blocks
                start, blocks = number, []
            blocks.append(self._blocks[number])
        if blocks:
            yield start * BLOCK_BYTES, blocks

    @property
    def allocated_bytes(self) -> int:
        """Bytes of non-zero blocks: what this image costs in memory."""
        return len(self._blocks) * BLOCK_BYTES
