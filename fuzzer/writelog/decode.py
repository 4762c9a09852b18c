"""Decode: what an entry of a log is, for people. Only looks at the bytes; see `metadata.py`."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from fuzzer.state.stamps import Words, decode
from fuzzer.writelog.metadata import is_commit, is_metadata
from fuzzer.writelog.model import Entry, Flag

_BLOCK_BYTES = 4096
_MAX_NAMED = 4

_BTRFS_SUPER = struct.Struct("<72xQ16xQ")
"""generation and log_root of struct btrfs_super_block (linux/btrfs_tree.h)."""
_BTRFS_SUPER_BYTES = 4096
_BTRFS_NODE = struct.Struct("<80xQQIB")
"""generation, owner, nritems and level of struct btrfs_header."""
_BTRFS_KEY = struct.Struct("<QBQ")
_BTRFS_ITEM_BYTES = 25
"""struct btrfs_item: a key, then where its data is."""
_BTRFS_INODE_ITEM = 1
_BTRFS_LOG_OWNER = (1 << 64) - 6
"""BTRFS_TREE_LOG_OBJECTID, owner of log trees and of the tree of them."""
_BTRFS_TREES = {
    1: "root tree",
    2: "extent tree",
    3: "chunk tree",
    4: "device tree",
    5: "file system tree",
    7: "checksum tree",
    8: "quota tree",
    9: "UUID tree",
    10: "free space tree",
    11: "block group tree",
    _BTRFS_LOG_OWNER: "log tree",
    (1 << 64) - 8: "relocation tree",
    (1 << 64) - 9: "data relocation tree",
}

_XFS_RECORD = struct.Struct(">4xI8xQ16xI")
"""h_cycle, h_lsn and h_num_logops of struct xlog_rec_header (fs/xfs/libxfs/xfs_log_format.h)."""
_XFS_INODE = struct.Struct(">152xQ")
"""di_ino of struct xfs_dinode."""
_XFS_BLOCKS = {
    b"XFSB": "superblock",
    b"XAGF": "free space header",
    b"XAGI": "inode header",
    b"XAFL": "free list",
    b"AB3B": "free space by block",
    b"AB3C": "free space by size",
    b"IAB3": "inode btree",
    b"FIB3": "free inode btree",
    b"R3FC": "reference count btree",
    b"RMB3": "reverse map btree",
    b"BMA3": "extent btree",
    b"XDB3": "directory",
    b"XDD3": "directory",
    b"XDF3": "directory",
    b"XARM": "attribute value",
    b"XSLM": "symlink",
}


class Content(StrEnum):
    """What sort of thing an entry writes, if anything."""

    SUPER = "superblock"
    LOG = "log"
    METADATA = "metadata"
    DATA = "data"
    OTHER = "other"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Decoded:
    """What an entry is: `text` for people."""

    content: Content
    text: str


@dataclass(frozen=True, slots=True)
class Names:
    """What stamps and inode numbers are called: files by tag, ops by id, inodes by number."""

    known: Words = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    files: Mapping[int, str] = field(default_factory=dict)
    ops: Mapping[int, str] = field(default_factory=dict)
    inodes: Mapping[int, str] = field(default_factory=dict)


def decode_entry(fs: str, entry: Entry, payload: memoryview, names: Names) -> Decoded:
    """Say what `entry` is; `payload` is what it writes (empty, if it does not)."""
    if entry.is_mark:
        return Decoded(Content.NOTHING, f"mark {entry.mark}")
    if entry.flags & Flag.DISCARD:
        return Decoded(Content.NOTHING, "discard")
    if not entry.is_write:
        return Decoded(Content.NOTHING, "flush")
    if is_metadata(fs, payload):
        return _decode_btrfs(payload, names) if fs == "btrfs" else _decode_xfs(payload, names)
    return _decode_data(payload, names)


def flag_words(entry: Entry) -> str:
    """`flush fua`: how the entry was asked for, for people."""
    return " ".join(flag.name.lower() for flag in (Flag.FLUSH, Flag.FUA) if entry.flags & flag and flag.name)


def _decode_btrfs(payload: memoryview, names: Names) -> Decoded:
    if is_commit("btrfs", payload):
        generation, log_root = _BTRFS_SUPER.unpack_from(payload)
        log = f"log tree at {log_root}" if log_root else "no log tree"
        return Decoded(Content.SUPER, f"superblock, generation {generation}, {log}")
    blocks = (payload[at : at + _BLOCK_BYTES] for at in range(0, len(payload), _BLOCK_BYTES))
    nodes = [payload[n * _BLOCK_BYTES :] for n, block in enumerate(blocks) if is_metadata("btrfs", block)]
    owners = [_BTRFS_NODE.unpack_from(node)[1] for node in nodes]
    content = Content.LOG if _BTRFS_LOG_OWNER in owners else Content.METADATA
    return Decoded(content, _counted(_describe_node(node, names) for node in nodes))


def _describe_node(node: memoryview, names: Names) -> str:
    generation, owner, items, level = _BTRFS_NODE.unpack_from(node)
    tree = _BTRFS_TREES.get(owner, f"tree {owner}")
    inodes = "" if level or owner != _BTRFS_LOG_OWNER else _logged_inodes(node, items, names)
    return f"{tree} {'node' if level else 'leaf'} (generation {generation}{inodes})"


def _logged_inodes(leaf: memoryview, items: int, names: Names) -> str:
    """Which inodes a leaf of a log tree has: what is replayed if power goes now."""
    inodes = []
    for number in range(items):
        at = _BTRFS_NODE.size + number * _BTRFS_ITEM_BYTES
        if at + _BTRFS_ITEM_BYTES > len(leaf):
            break
        objectid, kind, _ = _BTRFS_KEY.unpack_from(leaf, at)
        if kind == _BTRFS_INODE_ITEM:
            inodes.append(names.inodes.get(objectid, f"inode {objectid}"))
    return f"; logs {_few(inodes)}" if inodes else ""


def _decode_xfs(payload: memoryview, names: Names) -> Decoded:
    head = bytes(payload[:4])
    if is_commit("xfs", payload):
        cycle, lsn, ops = _XFS_RECORD.unpack_from(payload)
        return Decoded(Content.LOG, f"journal record {cycle}:{lsn & 0xFFFFFFFF} of {ops} items")
    if head[:2] == b"IN":
        inodes = [number for number in _xfs_inodes(payload) if number in names.inodes]
        return Decoded(
            Content.METADATA, f"inodes{' of ' + _few([names.inodes[n] for n in inodes]) if inodes else ''}"
        )
    content = Content.SUPER if head == b"XFSB" else Content.METADATA
    return Decoded(content, _XFS_BLOCKS.get(head, "directory or attributes"))


def _xfs_inodes(payload: memoryview) -> Iterator[int]:
    """Numbers of the inodes of a cluster; their size is a multiple of a sector."""
    for at in range(0, len(payload) - _XFS_INODE.size + 1, 512):
        if bytes(payload[at : at + 2]) == b"IN":
            yield _XFS_INODE.unpack_from(payload, at)[0]


def _decode_data(payload: memoryview, names: Names) -> Decoded:
    """Data of files, as the stamps say; `shift` is counted from the begin of the payload."""
    found = [run for run in decode(payload, 0, names.known) if run.op > 0]
    if not found:
        return Decoded(Content.OTHER, "zeroes" if not any(payload) else "bytes without stamps")
    texts = []
    for run in found:
        file = names.files.get(run.tag, "an unknown file")
        op = names.ops.get(run.op, f"op {run.op}")
        texts.append(f"data of {file} at {run.start - run.shift}..{run.end - run.shift} by {op}")
    return Decoded(Content.DATA, _few(texts, "; "))


def _counted(texts: Iterator[str]) -> str:
    counts = Counter(texts)
    return _few([text if n == 1 else f"{n} x {text}" for text, n in counts.items()], "; ")


def _few(texts: list[str], separator: str = ", ") -> str:
    """The first of many."""
    more = [] if len(texts) <= _MAX_NAMED else [f"{len(texts) - _MAX_NAMED} more"]
    return separator.join([*texts[:_MAX_NAMED], *more])
