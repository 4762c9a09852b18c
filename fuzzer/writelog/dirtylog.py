"""Dirty logs: whether a mount of an image has something to replay, read off the image as the kernel would."""

from __future__ import annotations

import struct

from fuzzer.writelog.image import Image
from fuzzer.writelog.superblock import BTRFS_SUPER_OFFSET, find_superblock

_BTRFS_LOG_ROOT = struct.Struct("<Q")
_BTRFS_LOG_ROOT_AT = 96
"""`log_root` of struct btrfs_super_block (linux/btrfs_tree.h): 0 if there is no log tree to replay."""

_XFS_BLOCK_BYTES = struct.Struct(">I")
_XFS_LOG_AT, _XFS_LOG = 48, struct.Struct(">Q")
_XFS_LOG_BLOCKS_AT, _XFS_LOG_BLOCKS = 96, struct.Struct(">I")
_XFS_AG_BLOCKS_AT, _XFS_AG_BLOCKS = 84, struct.Struct(">I")
_XFS_AG_LOG_AT = 124
"""sb_blocksize, sb_logstart, sb_logblocks, sb_agblocks and sb_agblklog of struct xfs_dsb."""

_XLOG_MAGIC = b"\xfe\xed\xba\xbe"
_XLOG_HEAD = struct.Struct(">4sIIIQQIII")
"""h_magicno, h_cycle, h_version, h_len, h_lsn, h_tail_lsn, h_crc, h_prev_block, h_num_logops of struct
xlog_rec_header (fs/xfs/libxfs/xfs_log_format.h)."""

_XLOG_UNMOUNT = 0x20
_XLOG_OP_FLAGS_AT = 512 + 9
"""oh_flags of the first op behind the record's head; XLOG_UNMOUNT_TRANS."""


def needs_replay(image: Image, fs: str) -> bool | None:
    """True if a mount of the image will replay a log: btrfs has a log tree, xfs a log that does not end
    in an unmount record (xlog_check_unmount_rec in fs/xfs/xfs_log_recover.c). None: no such file system.
    """
    found = find_superblock(image)
    if found is None or found.fs != fs:
        return None
    if fs == "btrfs":
        root = image.read(BTRFS_SUPER_OFFSET + _BTRFS_LOG_ROOT_AT, _BTRFS_LOG_ROOT.size)
        return bool(_BTRFS_LOG_ROOT.unpack(root)[0])
    return not _is_cleanly_unmounted(image)


def _is_cleanly_unmounted(image: Image) -> bool:
    block = image.read(0, 512)
    block_bytes = _XFS_BLOCK_BYTES.unpack_from(block, 4)[0]
    start = _XFS_LOG.unpack_from(block, _XFS_LOG_AT)[0]
    ag_log = block[_XFS_AG_LOG_AT]
    ag_blocks = _XFS_AG_BLOCKS.unpack_from(block, _XFS_AG_BLOCKS_AT)[0]
    first = ((start >> ag_log) * ag_blocks + (start & (1 << ag_log) - 1)) * block_bytes
    length = _XFS_LOG_BLOCKS.unpack_from(block, _XFS_LOG_BLOCKS_AT)[0] * block_bytes
    if not length or first + length > image.size_bytes:
        return False
    log = image.read(first, length)
    return _last_record_is_unmount(log)


def _last_record_is_unmount(log: bytes) -> bool:
    """Records begin at sectors; the one with the highest sequence number is the last."""
    newest, at = -1, -1
    found = log.find(_XLOG_MAGIC)
    while found >= 0:
        if found % 512 == 0 and found + _XLOG_HEAD.size <= len(log):
            lsn = _XLOG_HEAD.unpack_from(log, found)[4]
            newest, at = max((newest, at), (lsn, found))
        found = log.find(_XLOG_MAGIC, found + 1)
    if at < 0 or at + _XLOG_OP_FLAGS_AT >= len(log):
        return False
    operations = _XLOG_HEAD.unpack_from(log, at)[8]
    return bool(operations == 1 and log[at + _XLOG_OP_FLAGS_AT] & _XLOG_UNMOUNT)
