"""Guesses about what a write holds: metadata of which file system, and where it may tear.

Only looks at the bytes. A wrong guess makes a crash state more or less interesting, never illegal.
"""

from __future__ import annotations

import struct

from fuzzer.writelog.model import SECTOR_BYTES

PHYSICAL_BYTES = 4096
"""What drives write atomically whatever their logical sector: `physical_block_size`, "the smallest unit
a physical storage device can write atomically" (Documentation/ABI/stable/sysfs-block)."""

_BTRFS_SUPER_AT, _BTRFS_SUPER = 64, b"_BHRfS_M"
_BTRFS_HEADER = struct.Struct("<48xQQ16xQqIB")
"""struct btrfs_header: bytenr, flags, generation, owner, nritems, level (linux/btrfs_tree.h)."""
_BTRFS_MAX_LEVEL = 8
_BTRFS_MAX_ITEMS = 65536 // 25
"""Items of 25 bytes (struct btrfs_item) in the largest node."""
_BTRFS_MAX_GENERATION = 1 << 40

_XFS_LOG = b"\xfe\xed\xba\xbe"
"""XLOG_HEADER_MAGIC_NUM (fs/xfs/libxfs/xfs_log_format.h), at the start of every log write."""
_XFS_MAGICS = frozenset(
    {_XFS_LOG, *(b"XFSB", b"XAGF", b"XAGI", b"XAFL", b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"R3FC", b"RMB3")}
    | {b"BMA3", b"XDB3", b"XDD3", b"XDF3", b"XARM", b"XSLM"}
)
"""Blocks of version 5 file systems: xfs_format.h and xfs_da_format.h."""
_XFS_INODE = b"IN"
_XFS_DA_MAGICS = frozenset({b"\x3e\xbe", b"\x3b\xee", b"\x3d\xf1", b"\x3d\xff"})
"""Nodes and leaves of directories and attributes carry theirs at byte 8 (struct xfs_da_blkinfo)."""


def is_metadata(fs: str, payload: memoryview) -> bool:
    """Whether a write begins with a block of metadata that recovery could read."""
    if fs == "btrfs":
        return _is_btrfs(payload)
    head = bytes(payload[:10])
    return head[:4] in _XFS_MAGICS or head[:2] == _XFS_INODE or head[8:10] in _XFS_DA_MAGICS


def is_commit(fs: str, payload: memoryview) -> bool:
    """Whether a write makes others count: a superblock of btrfs, a write to the log of xfs."""
    if fs == "btrfs":
        return bytes(payload[_BTRFS_SUPER_AT : _BTRFS_SUPER_AT + 8]) == _BTRFS_SUPER
    return bytes(payload[:4]) == _XFS_LOG


def _is_btrfs(payload: memoryview) -> bool:
    """A superblock, or a tree node: csum, fsid and logical address, then plausible numbers."""
    if is_commit("btrfs", payload):
        return True
    if len(payload) < PHYSICAL_BYTES:
        return False
    bytenr, _, generation, _, items, level = _BTRFS_HEADER.unpack_from(payload)
    return bool(
        bytenr > 0
        and bytenr % PHYSICAL_BYTES == 0
        and 0 < generation < _BTRFS_MAX_GENERATION
        and level < _BTRFS_MAX_LEVEL
        and items <= _BTRFS_MAX_ITEMS
    )


def tear_bytes(fs: str, payload: memoryview, sector_bytes: int = SECTOR_BYTES) -> int:
    """The unit in which a write may survive in part, on a device with sectors of `sector_bytes`.

    Data, and the log of xfs with its cycle number in every 512 bytes (xlog_cksum() and xlog_pack_data()
    in fs/xfs/xfs_log.c), may tear at each sector. Other metadata is verified block by block, and both file
    systems count on blocks of 4 KiB being written whole: xfs recovery does not replay onto a block
    whose first sector says that it is newer (xlog_recover_get_buf_lsn()).
    """
    if not is_metadata(fs, payload) or (fs == "xfs" and is_commit(fs, payload)):
        return sector_bytes
    return max(sector_bytes, PHYSICAL_BYTES)
