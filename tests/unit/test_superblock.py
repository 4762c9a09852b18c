"""Which file system an image holds."""

from __future__ import annotations

import struct

from fuzzer.writelog.image import Image
from fuzzer.writelog.superblock import Superblock, find_superblock

_SIZE = 1 << 20


def test_btrfs_says_its_bytes() -> None:
    image = Image(_SIZE)
    image.write(65536 + 64, b"_BHRfS_M")
    image.write(65536 + 112, struct.pack("<Q", 320 << 20))
    assert find_superblock(image) == Superblock("btrfs", 320 << 20)


def test_xfs_says_its_blocks() -> None:
    image = Image(_SIZE)
    image.write(0, b"XFSB" + struct.pack(">IQ", 4096, 1000))
    assert find_superblock(image) == Superblock("xfs", 4096 * 1000)


def test_nothing_is_found_in_zeroes_or_in_a_small_image() -> None:
    assert find_superblock(Image(_SIZE)) is None
    assert find_superblock(Image(4096)) is None
