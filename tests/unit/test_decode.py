"""What entries of a log are called, and what a cut does to them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from dossiers import LOG_OWNER, btrfs_leaf, btrfs_super
from test_crash import parse_log

from fuzzer.state.stamps import encode
from fuzzer.writelog.crash import CrashState, Kept, Torn
from fuzzer.writelog.decode import Content, Names, decode_entry
from fuzzer.writelog.fate import Fate, entry_fates
from fuzzer.writelog.model import Entry, Flag

_NAMES = Names(np.array([5], dtype=np.uint64), {7: "a"}, {5: "`write a`"}, {257: "a", 131: "b"})


def _xfs(magic: bytes, size: int = 4096) -> bytes:
    return magic.ljust(size, b"\0")


def _xfs_inodes() -> bytes:
    return b"".join((b"IN".ljust(152, b"\0") + struct.pack(">Q", n)).ljust(512, b"\0") for n in (131, 132))


def _xfs_record() -> bytes:
    return (b"\xfe\xed\xba\xbe" + struct.pack(">I8xQ16xI", 1, 1 << 32 | 34, 12)).ljust(512, b"\0")


@pytest.mark.parametrize(
    ("fs", "payload", "content", "text"),
    [
        ("btrfs", btrfs_super(9, 0), Content.SUPER, "superblock, generation 9, no log tree"),
        ("btrfs", btrfs_super(9, 4096), Content.SUPER, "superblock, generation 9, log tree at 4096"),
        (
            "btrfs",
            btrfs_leaf(LOG_OWNER, 257, 300),
            Content.LOG,
            "log tree leaf (generation 8; logs a, inode 300)",
        ),
        ("btrfs", btrfs_leaf(5) * 2, Content.METADATA, "2 x file system tree leaf (generation 8)"),
        ("btrfs", encode(5, 7, 4096, 4096), Content.DATA, "data of a at 4096..8192 by `write a`"),
        ("btrfs", encode(6, 7, 4096, 4096), Content.OTHER, "bytes without stamps"),
        ("btrfs", bytes(4096), Content.OTHER, "zeroes"),
        ("xfs", _xfs(b"XFSB"), Content.SUPER, "superblock"),
        ("xfs", _xfs(b"XAGF"), Content.METADATA, "free space header"),
        ("xfs", _xfs_inodes(), Content.METADATA, "inodes of b"),
        ("xfs", _xfs_record(), Content.LOG, "journal record 1:34 of 12 items"),
        ("xfs", btrfs_super(9, 0), Content.OTHER, "bytes without stamps"),
    ],
)
def test_writes(fs: str, payload: bytes, content: Content, text: str) -> None:
    decoded = decode_entry(fs, Entry(0, Flag(0), 0, len(payload)), memoryview(payload), _NAMES)
    assert (decoded.content, decoded.text) == (content, text)


@pytest.mark.parametrize("cut", [1, 20, 100, 4000])
def test_short_writes_do_no_harm(cut: int) -> None:
    for fs in ("btrfs", "xfs"):
        for payload in (btrfs_super(9, 0), btrfs_leaf(LOG_OWNER, 257), _xfs_inodes(), _xfs_record()):
            part = memoryview(payload[: -(-cut // 512) * 512])
            decode_entry(fs, Entry(0, Flag(0), 0, len(part)), part, _NAMES)


def test_what_is_no_write() -> None:
    nothing = memoryview(b"")
    for entry, text in (
        (Entry(0, Flag.FLUSH), "flush"),
        (Entry(0, Flag.MARK, mark="mkfs"), "mark mkfs"),
        (Entry(0, Flag.DISCARD, 0, 4096), "discard"),
    ):
        assert decode_entry("btrfs", entry, nothing, _NAMES).text == text


def test_fates() -> None:
    entries = parse_log("a0 f b1 C2 d3 e0").entries
    words = {
        Kept.NOTHING: [Fate.DURABLE, Fate.NONE, Fate.LOST, Fate.DURABLE, Fate.LOST, Fate.AFTER],
        Kept.EVERYTHING: [Fate.DURABLE, Fate.NONE, Fate.SURVIVED, Fate.DURABLE, Fate.SURVIVED, Fate.AFTER],
        (2,): [Fate.DURABLE, Fate.NONE, Fate.SURVIVED, Fate.DURABLE, Fate.LOST, Fate.AFTER],
    }
    for kept, fates in words.items():
        assert list(entry_fates(entries, 0, CrashState(5, kept)).values()) == fates
    torn = CrashState(5, (2,), (Torn(2, ((0, 512),)),))
    assert entry_fates(entries, 0, torn)[2] is Fate.TORN
    assert entry_fates(entries, 0, None)[5] is Fate.SURVIVED
