"""Guesses about writes, on blocks as the kernel makes them."""

from __future__ import annotations

import struct

import pytest

from fuzzer.state.stamps import encode
from fuzzer.writelog.metadata import PHYSICAL_BYTES, is_metadata, tear_bytes
from fuzzer.writelog.model import SECTOR_BYTES

NODE = struct.pack("<I28x16xQQ16xQqIB", 0xC0FFEE, 30_441_472, 1 << 56, 7, 5, 12, 0).ljust(
    16384, b"\0"
)  # csum, fsid, bytenr, flags, chunk tree uuid, generation, owner, nritems, level
SUPER = bytes(64) + b"_BHRfS_M" + bytes(4096 - 72)
LOG_WRITE = b"\xfe\xed\xba\xbe".ljust(2048, b"\1")
INODES = b"IN\x81\xa4".ljust(16384, b"\0")
LEAF = (bytes(8) + b"\x3d\xf1").ljust(4096, b"\0")


@pytest.mark.parametrize(
    ("fs", "block", "metadata", "unit"),
    [
        ("btrfs", NODE, True, PHYSICAL_BYTES),
        ("btrfs", SUPER, True, PHYSICAL_BYTES),
        ("xfs", LOG_WRITE, True, SECTOR_BYTES),
        ("xfs", INODES, True, PHYSICAL_BYTES),
        ("xfs", LEAF, True, PHYSICAL_BYTES),
        ("xfs", b"XAGF".ljust(512, b"\0"), True, PHYSICAL_BYTES),
        ("btrfs", INODES, False, SECTOR_BYTES),
        ("btrfs", bytes(4096), False, SECTOR_BYTES),
        ("btrfs", NODE[:512], False, SECTOR_BYTES),
        ("xfs", NODE, False, SECTOR_BYTES),
        ("xfs", bytes(4096), False, SECTOR_BYTES),
        ("xfs", b"", False, SECTOR_BYTES),
        ("btrfs", b"", False, SECTOR_BYTES),
        ("btrfs", encode(5, 77, 0, 4096), False, SECTOR_BYTES),
        ("xfs", encode(5, 77, 0, 4096), False, SECTOR_BYTES),
    ],
)
def test_guesses(fs: str, block: bytes, metadata: bool, unit: int) -> None:
    assert is_metadata(fs, memoryview(block)) is metadata
    assert tear_bytes(fs, memoryview(block)) == unit
    assert tear_bytes(fs, memoryview(block), PHYSICAL_BYTES) == PHYSICAL_BYTES
