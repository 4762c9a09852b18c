"""Superblocks: which file system an image holds, and how large a device it was made for."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from fuzzer.writelog.crash import LogData
from fuzzer.writelog.image import Image
from fuzzer.writelog.model import Entry

BTRFS_SUPER_OFFSET, _BTRFS_BYTES = 65536, 4096
"""BTRFS_SUPER_INFO_OFFSET and _SIZE of fs/btrfs/fs.h."""

_BTRFS_MAGIC_AT, _BTRFS_TOTAL_AT = 64, 112
_BTRFS_GENERATION_AT = 72
_BTRFS_TOTAL = _BTRFS_GENERATION = struct.Struct("<Q")
"""`magic`, `total_bytes` and `generation` of struct btrfs_super_block (linux/btrfs_tree.h)."""

_XFS_HEAD = struct.Struct(">4sIQ")
"""sb_magicnum, sb_blocksize, sb_dblocks of struct xfs_dsb (fs/xfs/libxfs/xfs_format.h)."""


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a superblock says. `size_bytes` is untrusted: nothing but its magic was checked."""

    fs: str
    size_bytes: int


def find_superblock(image: Image) -> Superblock | None:
    """The superblock of the btrfs or xfs in `image`; None if there is none."""
    if image.size_bytes >= BTRFS_SUPER_OFFSET + _BTRFS_BYTES:
        block = image.read(BTRFS_SUPER_OFFSET, _BTRFS_BYTES)
        if block[_BTRFS_MAGIC_AT : _BTRFS_MAGIC_AT + 8] == b"_BHRfS_M":
            return Superblock("btrfs", _BTRFS_TOTAL.unpack_from(block, _BTRFS_TOTAL_AT)[0])
    magic, block_bytes, blocks = _XFS_HEAD.unpack(image.read(0, _XFS_HEAD.size))
    return Superblock("xfs", block_bytes * blocks) if magic == b"XFSB" else None


def btrfs_commits(log: LogData) -> tuple[tuple[int, int], ...] | None:
    """When the superblock of each new transaction was written: (arrival, completion), ns.

    An fsync that only syncs a log tree writes the superblock as well, but with the generation of the
    last commit (btrfs_sync_log in fs/btrfs/tree-log.c). None: no btrfs, or a log without times.
    """
    written = list(_btrfs_generations(log))
    if not any(entry.done_ns for entry, _ in written):
        return None
    return tuple((new.arrived_ns, new.done_ns) for (_, old), (new, now) in pairwise(written) if now > old)


def _btrfs_generations(log: LogData) -> Iterator[tuple[Entry, int]]:
    for entry in log.entries:
        at = BTRFS_SUPER_OFFSET - entry.offset
        if entry.is_write and 0 <= at <= entry.length - _BTRFS_BYTES:
            block = bytes(log.payload(entry)[at : at + _BTRFS_BYTES])
            if block[_BTRFS_MAGIC_AT : _BTRFS_MAGIC_AT + 8] == b"_BHRfS_M":
                yield entry, _BTRFS_GENERATION.unpack_from(block, _BTRFS_GENERATION_AT)[0]
