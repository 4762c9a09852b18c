"""Appends, renames that leave a whiteout, and ACLs, by hand: what must pass and what must not.

The words are explained in oracle_cases.py; an append's are stamped for offset 0 wherever they are.
"""

from __future__ import annotations

import struct

import pytest
from oracle_cases import Has, Row, Shown, check_row, each_fs, show

_MADE = "1-2 create a\n3-4 sync\n"


def _a(runs: str, size: int | None = None) -> Shown:
    return show("a", a=Has(runs, size=size))


APPENDS = (
    Row(
        "one after the other, synced",
        _MADE + "v: 5-6 append a 4096 at=0\nw: 7-8 append a 4096 at=4096\n9-10 fsync a",
        (_a("v:0-4096 w@0:4096-8192"),),
        (
            ("size size-too-small", _a("v:0-4096")),
            ("data lost-to-zero", _a("v:0-4096 0:4096-8192")),
            ("data misplaced-data", _a("v:0-4096 w:4096-8192")),
            ("data misplaced-data", _a("w:0-4096 v@0:4096-8192")),
        ),
    ),
    Row(
        "two at once: each is where it said",
        _MADE + "v: 5-8 append a 4096 at=4096\nw: 6-9 append a 4096 at=0\n10-11 fdatasync a",
        (_a("w:0-4096 v@0:4096-8192"),),
        (("data misplaced-data", _a("v:0-4096 w@0:4096-8192")),),
    ),
    Row(
        "durable by itself",
        _MADE + "v: 5-6 append a 4096 sync=dsync at=0",
        (_a("v:0-4096"),),
        (("size size-too-small", _a("")),),
    ),
    Row(
        "cut short: it may be anywhere, with any size, but not another's words",
        _MADE + "v: 5-6 write a 0 4096\nw: 7-? append a 8192\n",
        (_a("v:0-4096"), _a("v:0-4096 w@0:4096-12288"), _a("v:0-4096 w@0:4096-8192")),
        (("data misplaced-data", _a("v@0:4096-8192")),),
        cut_ns=50,
    ),
    Row(
        "an append nobody synced: the size comes with its data or not at all",
        _MADE + "v: 5-6 append a 4096 at=0\nw: 7-8 append a 4096 at=4096",
        (_a("v:0-4096"), _a("v:0-4096 w@0:4096-8192")),
        (("extension zeros-inside-size", _a("v:0-4096 0:4096-8192")),),
        fs=("xfs",),
    ),
    Row(
        "a block is as it was at one moment",
        _MADE + "v: 5-6 append a 2048 at=0\nw: 7-8 append a 2048 at=2048",
        (_a("v:0-2048 w@0:2048-4096"), _a("v:0-2048")),
        (("blocks torn-block", _a("0:0-2048 w@0:2048-4096")),),
        fs=("btrfs",),
    ),
    Row(
        "a clone takes its words along",
        _MADE + "1-2 create b\nv: 5-6 append a 4096 at=4096\n7-8 clone a b 4096 0 4096\n9-10 fsync b",
        (show("a b", b=Has("v/a@0:0-4096")),),
        (("data misplaced-data", show("a b", b=Has("v/a@8:0-4088"))),),
    ),
)

_OTHER = Has(kind="other")


def _left(names: str) -> Shown:
    """`a=a/whiteout` is the new inode at the old name."""
    return show(names, a_whiteout=_OTHER)


_AWAY = _MADE + "5-6 rename a b flags=whiteout\n"

WHITEOUTS = (
    Row(
        "nothing synced: before or after",
        _AWAY,
        (show("a"), _left("b=a a=a/whiteout")),
        (("names rename-both", show("a b=a")), ("names lost-inode", _left("a=a/whiteout"))),
    ),
    Row(
        "synced: both names are as it left them",
        _AWAY + "7-8 sync",
        (_left("b=a a=a/whiteout"),),
        (
            ("names missing-name", show("b=a")),
            ("names missing-name", show("a")),
            ("names missing-name", _left("a=a/whiteout")),
        ),
    ),
    Row(
        "fsync of the directory",
        _AWAY + "7-8 fsync .",
        (_left("b=a a=a/whiteout"),),
        (("names missing-name", show("b=a")), ("names old-binding", show("a"))),
    ),
    Row(
        "fsync of the file: the whiteout is another inode, and in the log of xfs",
        _AWAY + "7-8 fsync b",
        (_left("b=a a=a/whiteout"),),
        (("names missing-name", show("a")), ("names resurrected-name|names old-binding", show("a b=a"))),
        unordered=(show("b=a"),),
    ),
    Row(
        "over a file",
        "1-2 create a\n3-4 create b\n5-6 sync\n7-8 rename a b flags=whiteout\n9-10 sync",
        (_left("b=a a=a/whiteout"),),
        (("names old-binding", _left("b a=a/whiteout")),),
    ),
    Row(
        "raced with another rename: which file went is not told",
        _MADE + "3-4 create c\n5-8 rename a b flags=whiteout\n6-9 rename c a subject=c other=a\n10-11 sync",
        (show("b=a a=c"), _left("b=c a=a/whiteout")),
    ),
    Row(
        "the whiteout removed",
        _AWAY + "7-8 unlink a\n9-10 sync",
        (show("b=a"),),
        (("names resurrected-name", _left("b=a a=a/whiteout")),),
    ),
)


def _acl(uid: int) -> bytes:
    nobody = (1 << 32) - 1
    entries = ((1, nobody), (2, uid), (4, nobody), (0x10, nobody), (0x20, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 7, who) for tag, who in entries)


def _with(uid: int | None, kind: str = "access", mode: int = 0o777) -> Shown:
    xattrs = () if uid is None else ((f"system.posix_acl_{kind}", _acl(uid)),)
    return show("a", a=Has(xattrs=xattrs, mode=mode))


_SET = _MADE + "5-6 acl a 1001 kind=access\n"

ACLS = (
    Row(
        "not synced: with it or without, with its mode or without",
        _SET,
        (_with(1001), _with(None, mode=0o644), _with(1001, mode=0o644)),
        (
            ("xattr xattr-from-nowhere", _with(1002)),
            ("xattr xattr-from-nowhere", _with(1001, "default")),
            ("mode old-mode", _with(1001, mode=0o600)),
        ),
    ),
    Row(
        "synced: it is there, and so is its mode",
        _SET + "7-8 fsync a",
        (_with(1001),),
        (
            ("xattr missing-xattr", _with(None)),
            ("xattr old-xattr", _with(1002)),
            ("mode old-mode", _with(1001, mode=0o644)),
        ),
    ),
    Row(
        "the younger one",
        _SET + "7-8 acl a 1002 kind=access\n9-10 fsync a\n11-12 acl a 1003 kind=access",
        (_with(1002), _with(1003)),
        (("xattr old-xattr", _with(1001)),),
    ),
    Row(
        "removed: the mode stays",
        _SET + "7-8 acl a 1 kind=access to=off\n9-10 fsync a",
        (_with(None),),
        (("xattr resurrected-xattr", _with(1001)),),
    ),
    Row(
        "chmod changes the rights in it, not whose they are",
        _SET + "7-8 chmod a 600\n9-10 fsync a",
        (_with(1001, mode=0o600),),
        (("xattr missing-xattr", _with(None, mode=0o600)), ("mode old-mode", _with(1001))),
    ),
    Row(
        "a default ACL may be inherited, its own directory must have it",
        "1-2 mkdir d\n3-4 acl d 7 kind=default\n5-6 create d/a\n7-8 sync",
        (
            show("d d/a", d=Has(xattrs=(("system.posix_acl_default", _acl(7)),))),
            show(
                "d d/a",
                d=Has(xattrs=(("system.posix_acl_default", _acl(7)),)),
                d_a=Has(xattrs=(("system.posix_acl_access", _acl(7)),)),
            ),
        ),
        (
            ("xattr missing-xattr", show("d d/a")),
            (
                "xattr xattr-from-nowhere",
                show(
                    "d d/a",
                    d=Has(xattrs=(("system.posix_acl_default", _acl(7)),)),
                    d_a=Has(xattrs=(("system.posix_acl_access", _acl(8)),)),
                ),
            ),
        ),
    ),
    Row(
        "to remove none is no change, and shows nothing",
        _MADE + "5-6 chmod a 600\n7-8 acl . 1 kind=default to=off\n9-10 fsync .",
        (_with(None, mode=0o644),),
    ),
    Row(
        "brought along by what was done later",
        _SET + "7-8 create b",
        (show("a b", a=_with(1001).inodes["a"]),),
        (("order missing-xattr", show("a b")),),
        fs=("xfs",),
    ),
)


@pytest.mark.parametrize(("row", "fs"), each_fs(*APPENDS, *WHITEOUTS, *ACLS))
def test_row(row: Row, fs: str) -> None:
    check_row(row, fs)
