"""File data and sizes, by hand: what must pass and what must not.

The words are explained in oracle_cases.py.
"""

from __future__ import annotations

import time

import pytest
from oracle_cases import Has, Row, Script, check_row, each_fs, judge_case, make_tree, show

from fuzzer.state.recovery import Recovery
from fuzzer.writelog.crash import Cut
from oracles import PROFILES, build_versions, judge

W4 = "1-2 create a\n"
HOLE = Has("0:0-8192")

DATA = (
    Row(
        "write, fsync",
        W4 + "w: 3-4 write a 0 8192\n5-6 fsync a",
        (show("a", a=Has("w:0-8192")),),
        (
            ("data lost-to-zero", show("a", a=Has("w:0-4096 0:4096-8192"))),
            ("data foreign-data", show("a", a=Has("?:0-8 w:8-8192"))),
            ("data misplaced-data", show("a", a=Has("w@4096:0-4096 w:4096-8192"))),
            ("size size-too-small", show("a", a=Has("w:0-4096"))),
            ("size size-too-small", show("a")),
        ),
    ),
    Row(
        "write without sync: old or new, page by page",
        W4 + "v: 3-4 write a 0 8192\n5-6 fsync a\nw: 7-8 write a 0 8192",
        (show("a", a=Has("v:0-8192")), show("a", a=Has("v:0-4096 w:4096-8192"))),
        (("data lost-to-zero", show("a", a=Has("0:0-8 v:8-8192"))),),
    ),
    Row(
        "overwrite, fsync",
        W4 + "v: 3-4 write a 0 4096\nw: 5-6 write a 8 8\n7-8 fsync a",
        (show("a", a=Has("v:0-8 w:8-16 v:16-4096")),),
        (("data old-data", show("a", a=Has("v:0-4096"))),),
    ),
    Row(
        "write that overlaps fsync: in or out",
        W4 + "v: 3-4 write a 0 8192\nw: 5-8 write a 0 8192\n7-10 fsync a",
        (
            show("a", a=Has("v:0-8192")),
            show("a", a=Has("w:0-8192")),
            show("a", a=Has("v:0-4096 w:4096-8192")),
        ),
        (("data lost-to-zero", show("a", a=Has("0:0-4096 w:4096-8192"))),),
    ),
    Row(
        "two writes that overlap: either wins, nothing older",
        W4 + "u: 3-4 write a 0 4096\nv: 5-9 write a 0 4096\nw: 6-8 write a 0 4096\n10-11 fsync a",
        (show("a", a=Has("v:0-4096")), show("a", a=Has("w:0-4096")), show("a", a=Has("w:0-8 v:8-4096"))),
        (("data old-data", show("a", a=Has("u:0-4096"))),),
    ),
    Row(
        "truncate that overlaps fsync: it may have taken the new pages away and not be in itself",
        W4 + "v: 3-4 write a 0 8192\n5-6 fsync a\nw: 7-8 write a 0 12288\n"
        "9-14 truncate a 4096\n10-13 fsync a",
        (
            show("a", a=Has("w:0-4096")),
            show("a", a=Has("w:0-12288")),
            show("a", a=Has("w:0-4096 v:4096-8192")),
        ),
        (
            ("data old-data", show("a", a=Has("v:0-8192"))),
            ("size size-too-small", show("a", a=Has("w:0-512"))),
        ),
    ),
    Row(
        "write in flight at the crash",
        W4 + "v: 3-4 write a 0 4096\n5-6 fsync a\nw: 7-? write a 0 4096",
        (show("a", a=Has("v:0-4096")), show("a", a=Has("w:0-4096"))),
    ),
    Row(
        "failed write: may have happened in part, promises nothing",
        W4 + "v: 3-4 write a 0 4096\n5-6 fsync a\nw: 7-8 write a 0 4096 !ENOSPC\n9-10 fsync a",
        (show("a", a=Has("v:0-4096")), show("a", a=Has("w:0-4096"))),
        (("data lost-to-zero", show("a", a=Has("0:0-4096"))),),
    ),
    Row(
        "failed for a reason that comes before any effect",
        W4 + "v: 3-4 write a 0 4096\n5-6 fsync a\nw: 7-8 write a 0 4096 !EINVAL\n9-10 fsync a",
        (show("a", a=Has("v:0-4096")),),
        (("data misplaced-data", show("a", a=Has("w:0-4096"))),),
    ),
    Row(
        "fsync that failed: data it was to write may be lost, a later success does not bring it back",
        W4 + "3-4 fsync a\nw: 5-6 write a 0 4096\n7-8 fsync a !EIO\n9-10 fsync a",
        (show("a", a=Has("w:0-4096")), show("a"), show("a", a=Has("0:0-4096"))),
        (("data foreign-data", show("a", a=Has("?:0-4096"))), ("names missing-name", show())),
    ),
    Row(
        "data written after a failed fsync is covered by the next",
        W4 + "3-4 fsync a !EIO\nw: 5-6 write a 0 4096\n7-8 fsync a",
        (show("a", a=Has("w:0-4096")),),
        (("data lost-to-zero", show("a", a=Has("0:0-4096"))),),
    ),
    Row(
        "fsync that failed takes nothing back of what an earlier one had made durable",
        W4 + "w: 3-4 write a 0 4096\n5-6 fsync a\n7-8 fsync a !EIO",
        (show("a", a=Has("w:0-4096")),),
        (("data lost-to-zero", show("a", a=Has("0:0-4096"))), ("size size-too-small", show("a"))),
    ),
    Row(
        "sync does not tell of a failure: an fsync that fails after it may mean what was written before",
        W4 + "w: 3-4 write a 0 4096\n5-6 sync\n7-8 fsync a !EIO",
        (show("a", a=Has("w:0-4096")), show("a", a=Has("0:0-4096"))),
    ),
    Row(
        "O_DSYNC write during a truncate promises nothing, but the next call does",
        W4 + "3-4 sync\nv: 5-6 write a 0 4096\n7-12 truncate a 0\nw: 8-10 write a 0 4096 sync=dsync\n"
        "13-14 fsync a",
        (show("a"), show("a", a=Has("w:0-4096"))),
        (("data old-data", show("a", a=Has("v:0-4096"))),),
    ),
    Row(
        "fsync of another file promises nothing here",
        W4 + "w: 3-4 write a 0 4096\n5-6 create b\n7-8 fsync b",
        (show("a b"), show("a b", a=Has("w:0-4096"))),
        unordered=(show("b"),),
    ),
    Row(
        "O_DSYNC promises its range only",
        W4 + "v: 3-4 write a 0 8192\nw: 5-6 write a 4096 4096 sync=dsync",
        (show("a", a=Has("0:0-4096 w:4096-8192")), show("a", a=Has("v:0-4096 w:4096-8192"))),
        (
            ("data old-data", show("a", a=Has("v:0-8192"))),
            ("size size-too-small", show("a", a=Has("v:0-4096"))),
            ("names missing-name", show()),
        ),
    ),
    Row(
        "O_DSYNC write raced with unlink of the only name: nobody can reach the data",
        W4 + "3-4 sync\nw: 5-9 write a 0 4096 sync=dsync\n6-8 unlink a",
        (show(), show("a"), show("a", a=Has("w:0-4096"))),
        (("data foreign-data", show("a", a=Has("?:0-4096"))),),
    ),
    Row(
        "other names come and go: the file always has one",
        W4 + "3-4 link a b\n5-6 unlink b\n7-8 link a b\nw: 9-10 write a 0 4096\n"
        "11-14 unlink b\n12-15 fsync a",
        (show("a", a=Has("w:0-4096")), show("a b=a", a=Has("w:0-4096"))),
        (("data lost-to-zero", show("a", a=Has("0:0-4096"))), ("names missing-name", show())),
    ),
    Row(
        "O_DIRECT alone promises nothing",
        W4 + "3-4 sync\nw: 5-6 dwrite a 0 4096",
        (show("a"), show("a", a=Has("w:0-4096"))),
        unordered=(show("a", a=Has("0:0-4096")),),
    ),
    Row(
        "msync promises its range only",
        W4 + "v: 3-4 write a 0 8192\n5-6 fsync a\nw: 7-8 mwrite a 0 8192\n9-10 msync a 0 4096",
        (show("a", a=Has("w:0-4096 v:4096-8192")), show("a", a=Has("w:0-8192"))),
        (("data old-data", show("a", a=Has("v:0-8192"))),),
    ),
    Row(
        "mwrite with msync promises its own stores",
        W4 + "v: 3-4 write a 0 8192\n5-6 fsync a\nw: 7-8 mwrite a 0 4096 msync=sync",
        (show("a", a=Has("w:0-4096 v:4096-8192")),),
        (("data old-data", show("a", a=Has("v:0-8192"))),),
    ),
    Row(
        "mwrite with MS_ASYNC and sync_file_range promise nothing",
        W4 + "v: 3-4 write a 0 4096\n5-6 fsync a\nw: 7-8 mwrite a 0 4096 msync=async\n"
        "9-10 sync_file_range a 0 0",
        (show("a", a=Has("v:0-4096")), show("a", a=Has("w:0-4096"))),
    ),
    Row(
        "a direct write that overlaps stores through a mapping has no floor",
        W4 + "v: 3-4 write a 0 4096\n5-6 fsync a\nw: 7-10 dwrite a 0 4096\n"
        "m: 8-9 mwrite a 0 8\n11-12 fsync a",
        (show("a", a=Has("w:0-4096")), show("a", a=Has("m:0-8 v:8-4096"))),
        (
            ("data lost-to-zero", show("a", a=Has("0:0-4096"))),
            ("data old-data", show("a", a=Has("v:0-4096"))),
        ),
    ),
    Row(
        "punch, fsync: zero stays zero",
        W4 + "v: 3-4 write a 0 8192\n5-6 sync\n7-8 fallocate a 0 4096 mode=punch\n9-10 fsync a",
        (show("a", a=Has("0:0-4096 v:4096-8192")),),
        (("data old-data", show("a", a=Has("v:0-8192"))),),
    ),
    Row(
        "truncate down then up: zero in between",
        W4 + "v: 3-4 write a 0 8192\n5-6 sync\n7-8 truncate a 4096\n9-10 truncate a 8192\n11-12 fsync a",
        (show("a", a=Has("v:0-4096 0:4096-8192")),),
        (
            ("data old-data", show("a", a=Has("v:0-8192"))),
            ("size size-too-small", show("a", a=Has("v:0-4096"))),
        ),
    ),
    Row(
        "truncate down then up without sync: any of the three",
        W4 + "v: 3-4 write a 0 8192\n5-6 sync\n7-8 truncate a 4096\n9-10 truncate a 8192",
        (
            show("a", a=Has("v:0-8192")),
            show("a", a=Has("v:0-4096")),
            show("a", a=Has("v:0-4096 0:4096-8192")),
        ),
        (("size size-too-small", show("a", a=Has("v:0-512"))),),
    ),
    Row(
        "clone, fdatasync of the destination",
        W4 + "3-4 create b\nv: 5-6 write a 0 8192\n7-8 clone a b 0 4096 4096\n9-10 fdatasync b",
        (
            show("a b", b=Has("0:0-4096 v/a@0:4096-8192")),
            ),
        (
            ("data lost-to-zero", show("b", b=Has("0:0-8192"))),
            ("data misplaced-data", show("b", b=Has("0:0-4096 v/a@4096:4096-8192"))),
            ("data misplaced-data", show("b", b=Has("v/a@0:0-4096 0:4096-8192"))),
        ),
        unordered=(show("b", b=Has("0:0-4096 v/a@0:4096-8192")),),
    ),
    Row(
        "clone while its source is overwritten: either content, nothing older",
        W4 + "3-4 create b\nu: 5-6 write a 0 4096\nv: 7-8 write a 0 4096\nw: 9-12 write a 0 4096\n"
        "10-14 clone a b 0 0 4096\n15-16 fsync b",
        (show("a b", b=Has("w/a@0:0-4096")), show("a b", b=Has("v/a@0:0-8 w/a@8:8-4096"))),
        (
            ("data misplaced-data", show("b", b=Has("u/a@0:0-4096"))),
            ("data lost-to-zero", show("b", b=Has("0:0-4096"))),
        ),
        unordered=(show("b", b=Has("v/a@0:0-4096")), show("b", b=Has("w/a@0:0-4096"))),
    ),
    Row(
        "source overwritten after the clone: the copy keeps the old words",
        W4 + "3-4 create b\nv: 5-6 write a 0 4096\n7-8 clone a b 0 0 4096\n"
        "w: 9-10 write a 0 4096\n11-12 sync",
        (show("a b", a=Has("w:0-4096"), b=Has("v/a@0:0-4096")),),
        (
            ("data misplaced-data", show("a b", a=Has("w:0-4096"), b=Has("w/a@0:0-4096"))),
            ("data old-data", show("a b", a=Has("v:0-4096"), b=Has("v/a@0:0-4096"))),
        ),
    ),
    Row(
        "ranges exchanged, fsync of one file: that one has the other's words",
        W4 + "3-4 create b\nv: 5-6 write a 0 4096\nw: 7-8 write b 4096 4096\n9-10 sync\n"
        "11-12 exchange_range a b 0 4096 4096\n13-14 fsync a",
        (
            show("a b", a=Has("w/b@4096:0-4096"), b=Has("0:0-4096 v/a@0:4096-8192")),
            show("a b", a=Has("w/b@4096:0-4096"), b=Has("0:0-4096 w:4096-8192")),
        ),
        (
            ("data old-data", show("a b", a=Has("v:0-4096"), b=Has("0:0-4096 w:4096-8192"))),
            ("data old-data", show("a b", a=Has("v:0-4096"), b=Has("0:0-4096 v/a@0:4096-8192"))),
            ("data lost-to-zero", show("a b", a=Has("0:0-4096"), b=Has("0:0-4096 v/a@0:4096-8192"))),
            ("data misplaced-data", show("a b", a=Has("v:0-4096"), b=Has("0:0-4096 v/a@8:4096-8192"))),
        ),
    ),
    Row(
        "exchanged and back: as before, and nothing of the time between",
        W4 + "3-4 create b\nv: 5-6 write a 0 4096\nw: 7-8 write b 0 4096\n9-10 sync\n"
        "11-12 exchange_range a b 0 0 4096\n13-14 exchange_range a b 0 0 4096\n15-16 sync",
        (show("a b", a=Has("v:0-4096"), b=Has("w:0-4096")),),
        (("data old-data", show("a b", a=Has("w/b@0:0-4096"), b=Has("v/a@0:0-4096"))),),
    ),
    Row(
        "words of another file are a bug, wherever they came from",
        W4 + "3-4 create b\nv: 5-6 write a 0 4096\n7-8 write b 0 4096",
        (show("a b"),),
        (("data misplaced-data", show("a b", b=Has("v/a:0-4096"))),),
    ),
    Row(
        "collapse moves words: only their owner counts",
        W4 + "v: 3-4 write a 0 8192\n5-6 fallocate a 0 4096 mode=collapse\n7-8 fsync a\n"
        "9-10 create b\nw: 11-12 write b 0 8",
        (show("a", a=Has("v@4096:0-4096")),),
        (
            ("data foreign-data", show("a", a=Has("?:0-4096"))),
            ("data misplaced-data", show("a", a=Has("w/b@0:0-8"))),
        ),
    ),
)  # fmt: skip

BLOCKS = (
    Row(
        "copy on write: a block is as it was at one moment",
        W4 + "v: 3-4 write a 0 4096\n5-6 sync\nw: 7-8 write a 0 2048\nx: 9-10 write a 2048 2048",
        (
            show("a", a=Has("v:0-4096")),
            show("a", a=Has("w:0-2048 v:2048-4096")),
            show("a", a=Has("w:0-2048 x:2048-4096")),
        ),
        (("blocks torn-block", show("a", a=Has("v:0-2048 x:2048-4096"))),),
        fs=("btrfs",),
    ),
    Row(
        "copy on write: a write is in a block as a whole",
        W4 + "v: 3-4 write a 0 8192\n5-6 sync\nw: 7-? write a 0 8192",
        (show("a", a=Has("v:0-4096 w:4096-8192")), show("a", a=Has("w:0-4096 v:4096-8192"))),
        (("blocks torn-block", show("a", a=Has("w:0-512 v:512-8192"))),),
        fs=("btrfs",),
    ),
    Row(
        "stores through a mapping, or ops that overlap: any mix",
        W4 + "v: 3-4 write a 0 4096\n5-6 sync\nm: 7-8 mwrite a 0 4096\nw: 9-12 write a 0 4096\n"
        "x: 10-11 write a 0 4096",
        (show("a", a=Has("m:0-512 v:512-4096")), show("a", a=Has("w:0-512 x:512-4096"))),
        fs=("btrfs",),
    ),
    Row(
        "a block of which a part is durable is not older in the rest",
        W4 + "v: 3-4 write a 0 4096\n5-6 sync\n7-12 truncate a 0\nw: 8-9 write a 0 4096\n"
        "13-16 fsync a\n15-17 truncate a 2048\n18-19 truncate a 4096",
        (
            show("a", a=Has("0:0-4096")),
            show("a", a=Has("w:0-4096")),
            show("a", a=Has("w:0-2048 0:2048-4096")),
        ),
        (("blocks torn-block", show("a", a=Has("0:0-2048 v:2048-4096"))),),
        fs=("btrfs",),
    ),
    Row(
        "a truncate that is durable in a part of a block took the rest of it too",
        W4 + "v: 3-4 write a 0 2048\n5-6 sync\nw: 7-9 write a 2048 2048\n8-11 truncate a 0\n"
        "10-14 truncate a 1000\n12-13 fdatasync a",
        (show("a", a=Has("0:0-1000")), show("a", a=Has("0:0-2048 w:2048-4096"))),
        (("blocks torn-block", show("a", a=Has("0:0-1000 v:1000-2048 w:2048-4096"))),),
        fs=("btrfs",),
    ),
    Row(
        "written in place: sectors mix",
        W4 + "v: 3-4 write a 0 4096\n5-6 sync\nw: 7-8 write a 0 2048\nx: 9-10 write a 2048 2048",
        (show("a", a=Has("v:0-2048 x:2048-4096")), show("a", a=Has("w:0-512 v:512-4096"))),
        fs=("xfs",),
    ),
    Row(
        "truncated, then written behind: what was cut off does not come back beside the new words",
        W4 + "v: 3-4 write a 0 4096\n5-6 sync\n7-8 truncate a 1024\nw: 9-10 write a 2048 2048",
        (show("a", a=Has("v:0-1024 0:1024-2048 w:2048-4096")),),
        (("blocks torn-block", show("a", a=Has("v:0-2048 w:2048-4096"))),),
        fs=("btrfs",),
    ),
)

SIZES = (
    Row(
        "an append shows in parts, at sectors",
        W4 + "3-4 sync\nw: 5-6 write a 0 10000",
        tuple(show("a", a=Has(f"w:0-{n}") if n else Has()) for n in (0, 512, 4096, 8192, 10000)),
        (
            ("size size-from-nowhere", show("a", a=Has("w:0-1000"))),
            ("size size-from-nowhere", show("a", a=Has("w:0-10000 0:10000-10240"))),
        ),
    ),
    Row(
        "the block at the old end is written whole once the file goes on behind it",
        W4 + "3-4 sync\nv: 5-6 write a 0 4104\nw: 7-8 write a 100000 8",
        (show("a", a=Has("v:0-4104 0:4104-8192")), show("a", a=Has("v:0-4104"))),
        (("size size-from-nowhere", show("a", a=Has("v:0-4104 0:4104-4200"))),),
    ),
    Row(
        "truncate up shows in parts as well",
        W4 + "v: 3-4 write a 0 104\n5-6 truncate a 10000",
        (show("a", a=Has("v:0-104 0:104-4096")), show("a", a=Has("v:0-104 0:104-10000"))),
        (("size size-from-nowhere", show("a", a=Has("v:0-104 0:104-4000"))),),
    ),
    Row(
        "truncate down, fsync",
        W4 + "v: 3-4 write a 0 8192\n5-6 sync\n7-8 truncate a 1000\n9-10 fsync a",
        (show("a", a=Has("v:0-1000")),),
        (
            ("size size-too-large", show("a", a=Has("v:0-8192"))),
            ("size size-too-small", show("a", a=Has("v:0-512"))),
        ),
    ),
    Row(
        "truncate down, fsync, append",
        W4 + "v: 3-4 write a 0 8192\n5-6 truncate a 1000\n7-8 fsync a\nw: 9-10 write a 1000 3096",
        (show("a", a=Has("v:0-1000")), show("a", a=Has("v:0-1000 w:1000-4096"))),
        (
            ("size size-too-large", show("a", a=Has("v:0-1000 0:1000-8192"))),
            ("data old-data", show("a", a=Has("v:0-4096"))),
        ),
    ),
    Row(
        "append, fsync, truncate down",
        W4 + "v: 3-4 write a 0 8192\n5-6 fsync a\n7-8 truncate a 1000",
        (show("a", a=Has("v:0-8192")), show("a", a=Has("v:0-1000"))),
        (("size size-too-small", show("a", a=Has("v:0-512"))),),
    ),
    Row(
        "append and truncate that overlap, fsync: either order",
        W4 + "v: 3-4 write a 0 4096\n5-6 fsync a\nw: 7-10 write a 4096 4096\n8-9 truncate a 0\n11-12 fsync a",
        (show("a"), show("a", a=Has("0:0-4096 w:4096-8192"))),
        (("size size-from-nowhere", show("a", a=Has("0:0-12288"))),),
    ),
    Row(
        "append and truncate that overlap, both durable: no size in between",
        W4 + "v: 3-4 write a 0 4096\n5-6 fsync a\nw: 7-10 write a 4096 4096\n8-9 truncate a 2048\n"
        "11-12 fsync a",
        (show("a", a=Has("v:0-2048")), show("a", a=Has("v:0-2048 0:2048-4096 w:4096-8192"))),
        (("size size-too-small", show("a", a=Has("v:0-2048 0:2048-4096 w:4096-6144"))),),
    ),
    Row(
        "a truncate under way brings back no size of long ago",
        W4 + "u: 3-4 write a 0 2048\n5-6 fsync a\nv: 7-8 write a 0 8192\n9-10 fsync a\n"
        "11-12 truncate a 1000",
        (show("a", a=Has("v:0-8192")), show("a", a=Has("v:0-1000"))),
        (("size size-too-small", show("a", a=Has("v:0-2048"))),),
        fs=("xfs",),
    ),
    Row(
        "truncate to nothing, durable, and a short write: it does not show the old size",
        W4 + "v: 3-4 write a 0 8192\n5-6 truncate a 0\n7-8 fsync a\nw: 9-10 write a 0 2048",
        (show("a"), show("a", a=Has("w:0-512")), show("a", a=Has("w:0-2048"))),
        (("size size-too-small", show("a", a=Has("w:0-2048 0:2048-4096"))),),
    ),
    Row(
        "a file whose create was cut short is empty",
        "1-2 mkdir d\n3-4 sync\n5-? create a subject=-",
        (show("d"), show("d a")),
        (
            ("data foreign-data", show("d a", a=Has("?:0-4096"))),
            ("size size-from-nowhere", show("d a", a=Has("0:0-4096"))),
        ),
    ),
    Row(
        "truncate step by step: btrfs may stop in between",
        W4 + "v: 3-4 write a 0 12288\n5-6 fsync a\n7-? truncate a 0",
        (show("a", a=Has("v:0-8192")), show("a")),
        (("size size-from-nowhere", show("a", a=Has("v:0-1000"))),),
        fs=("btrfs",),
    ),
    Row(
        "truncate sets the size at once on xfs",
        W4 + "v: 3-4 write a 0 12288\n5-6 fsync a\n7-? truncate a 0",
        (show("a", a=Has("v:0-12288")), show("a")),
        (("size size-too-small", show("a", a=Has("v:0-8192"))),),
        fs=("xfs",),
    ),
    Row(
        "fallocate: extends, keeps, unshare extends",
        W4 + "3-4 fallocate a 0 4096 mode=alloc\n5-6 fallocate a 0 8192 mode=keep\n7-8 fsync a\n"
        "9-10 fallocate a 0 12296 mode=unshare",
        (show("a", a=Has("0:0-4096")), show("a", a=Has("0:0-12296"))),
        (("size size-too-small", show("a")),),
    ),
    Row(
        "clone of everything there was: as large as that",
        W4 + "v: 3-4 write a 0 1000\n5-6 create b\n7-8 clone a b 0 0 0\n9-10 fsync b",
        (show("a b", b=Has("v/a@0:0-1000")),),
        (("data misplaced-data", show("b", b=Has("v/a@8:0-992"))),),
        unordered=(show("b", b=Has("v/a@0:0-1000")),),
    ),
)  # fmt: skip


@pytest.mark.parametrize(("row", "on"), each_fs(*DATA, *BLOCKS, *SIZES))
def test_row(row: Row, on: str) -> None:
    check_row(row, on)


def test_clones_in_circles_end(fs: str) -> None:
    """Forty clones at once from a to b and back; words that were never written are looked for in all."""
    lines = ["1-2 create a", "3-4 create b", "w: 5-6 write a 0 4096", "7-8 sync"]
    lines += [f"9-99 clone {'a b' if n % 2 else 'b a'} 0 0 4096" for n in range(40)]
    script = Script("\n".join(lines))
    started = time.process_time()
    bad = make_tree(script, fs, "a b", b=Has("w/a@8:0-4096"))
    assert "misplaced-data" in {v.kind for v in judge_case(script, fs, bad).violations}
    good = make_tree(script, fs, "a b", a=Has("w:0-4096"), b=Has("w/a@0:0-4096"))
    assert not judge_case(script, fs, good).violations
    assert time.process_time() - started < 5


def test_a_durable_op_that_wrote_nothing_may_be_younger_than_the_last_write() -> None:
    """A hole is punched into a hole and synced: nothing goes to the device, and it is zero all the same."""
    script = Script(
        W4 + "3-4 truncate a 8192\n5-6 sync\n20-21 fallocate a 0 4096 mode=punch\n22-23 fsync a\n"
        "24-25 clone a a 0 4096 4096\n26-27 fsync a"
    )
    versions, recovery = build_versions(script.history), Recovery(tree=make_tree(script, "xfs", "a", a=HOLE))
    for returned_before_ns, invoked_before_ns in ((30, 10), (24, 10), (30, 30)):
        cut = Cut(returned_before_ns, invoked_before_ns)
        assert not judge(PROFILES["xfs"], recovery, versions, cut).violations
    words = Script(W4 + "v: 3-4 write a 0 8192\n5-6 sync\n20-21 fallocate a 0 4096 mode=punch\n22-23 fsync a")
    kept = Recovery(tree=make_tree(words, "xfs", "a", a=Has("v:0-8192")))
    found = judge(PROFILES["xfs"], kept, build_versions(words.history), Cut(30, 10)).violations
    assert [violation.kind for violation in found] == ["old-data"]


def test_a_sync_call_that_wrote_nothing_is_named(fs: str) -> None:
    """It promised what was written when nothing went to the device any more (crashes/0001)."""
    script = Script("0-1 create a\n2-3 sync\nw: 10-11 write a 0 4096\n12-20 fsync a\ns: 14-15 fsync a")
    recovery = Recovery(tree=make_tree(script, fs, "a"))
    (found,) = judge(PROFILES[fs], recovery, build_versions(script.history), Cut(17, 5)).violations
    assert (found.kind, found.op, found.sync) == ("size-too-small", script.ops["w"].id, script.ops["s"].id)
