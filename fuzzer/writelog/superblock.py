"""Superblocks: which file system an image holds, and how large a device it was made for."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fuzzer.writelog.image import Image

_BTRFS_OFFSET, _BTRFS_BYTES = 65536, 4096
"""BTRFS_SUPER_INFO_OFFSET and _SIZE of fs/btrfs/fs.h."""

_BTRFS_MAGIC_AT, _BTRFS_TOTAL_AT = 64, 112
_BTRFS_TOTAL = struct.Struct("<Q")
"""`magic` and `total_bytes` of struct btrfs_super_block (linux/btrfs_tree.h)."""

_XFS_HEAD = struct.Struct(">4sIQ")
"""sb_magicnum, sb_blocksize, sb_dblocks of struct xfs_dsb (fs/xfs/libxfs/xfs_format.h)."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a superblock says. `size_bytes` is untrusted: nothing but its magic was checked."""

    fs: str
    size_bytes: int


def find_superblock(image: Image) -> Superblock | None:
    """The superblock of the btrfs or xfs in `image`; None if there is none."""
    if image.size_bytes >= _BTRFS_OFFSET + _BTRFS_BYTES:
        block = image.read(_BTRFS_OFFSET, _BTRFS_BYTES)
        if block[_BTRFS_MAGIC_AT : _BTRFS_MAGIC_AT + 8] == b"_BHRfS_M":
            return Superblock("btrfs", _BTRFS_TOTAL.unpack_from(block, _BTRFS_TOTAL_AT)[0])
    magic, block_bytes, blocks = _XFS_HEAD.unpack(image.read(0, _XFS_HEAD.size))
    return Superblock("xfs", block_bytes * blocks) if magic == b"XFSB" else None
