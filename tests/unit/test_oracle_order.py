"""Order of metadata: what shows brings along what was committed before it."""

from __future__ import annotations

import pytest
from oracle_cases import Has, Row, Script, check_row, each_fs, judge_case, make_tree, show

from fuzzer.state.recovery import Recovery
from fuzzer.writelog.crash import Cut
from oracles import build_versions, judge
from oracles.profile import own_profile

ROWS = (
    Row(
        "no sync at all: one thread's changes are a prefix",
        "1-2 create a\n3-4 create b\n5-6 rename a c\n7-8 mkdir d",
        (show(), show("a"), show("a b"), show("c=a b"), show("c=a b d")),
        (
            ("order lost-inode", show("b")),
            ("order resurrected-name", show("a b d")),
            ("order missing-name", show("a c=a d")),
        ),
    ),
    Row(
        "two threads: ops that overlap have no order",
        "1-4 create a\n3-6 create b\n7-8 create c",
        (show("a"), show("b"), show("a b"), show("a b c")),
        (("order missing-name", show("b c")), ("order missing-name", show("a c"))),
    ),
    Row(
        "an op in flight at the crash shows: all before it does",
        "1-2 create a\n3-99 create b",
        (show(), show("a"), show("a b")),
        (("order missing-name", show("b")),),
        cut_ns=50,
    ),
    Row(
        "a mode is a witness, and is brought along",
        "1-2 create a\n3-4 chmod a 600\n5-6 create b\n7-8 chmod a 640",
        (
            show("a"),
            show("a", a=Has(mode=0o600)),
            show("a b", a=Has(mode=0o600)),
            show("a b", a=Has(mode=0o640)),
        ),
        (
            ("order old-mode", show("a b")),
            ("order missing-name", show("a", a=Has(mode=0o640))),
        ),
    ),
    Row(
        "an xattr that had returned is brought along",
        "1-2 create a\n3-4 setxattr a n size=32\n5-6 create b",
        (show(), show("a")),
        (("order missing-xattr", show("a b")),),
    ),
    Row(
        "a size is a witness, and is not brought along",
        "1-2 create a\n3-4 create b\nw: 5-6 write a 0 4096\n7-8 create c",
        (show("a b", a=Has("w:0-4096")), show("a b c"), show("a b c", a=Has("w:0-4096"))),
        (("order missing-name", show("a", a=Has("w:0-4096"))),),
    ),
    Row(
        "an fsync logs one inode on btrfs: later ones may show without the others",
        "1-2 create a\n3-4 create b\n5-6 fsync b",
        (show("a b"),),
        (("names missing-name", show("a")),),
        unordered=(show("b"),),
    ),
    Row(
        "a file fsynced before it got its name was logged as well",
        "1-2 create a\n3-4 create b\n5-6 tmplink c 0 4096 fsync=yes",
        (show("a b c"),),
        (),
        unordered=(show("a c"),),
    ),
    Row(
        "the log of btrfs ends with the next sync: order again",
        "1-2 create a\n3-4 fsync a\n5-6 sync\n7-8 create b\n9-10 create c",
        (show("a"), show("a b"), show("a b c")),
        (("order missing-name", show("a c")),),
    ),
    Row(
        "a sync under way does not end the log",
        "1-2 create a\n3-7 fsync a\n5-8 sync\n9-10 create b\n11-12 create c",
        (show("a"), show("a b c")),
        unordered=(show("a c"),),
    ),
    Row(
        "with no log a rename is whole on btrfs too",
        "1-2 mkdir d\n3-4 create a\n5-6 sync\n7-8 rename a d/a",
        (show("d a"), show("d d/a=a")),
        (("order rename-both|names rename-both", show("d a d/a=a")),),
    ),
    Row(
        "what is brought along tells which of two ops made a name, and brings along what was before that",
        "1-2 create a\n3-4 sync\n5-6 link a b\n7-8 unlink b\n9-10 create c\n11-12 create d\n13-14 link a b",
        (show("a b=a"), show("a c"), show("a c d"), show("a b=a c d")),
        (("order missing-name", show("a b=a c")),),
    ),
    Row(
        "a file that is empty again is a witness of its truncate",
        "1-2 create a\nw: 3-4 write a 0 4096\n5-6 sync\n7-8 create b\n9-10 truncate a 0",
        (show("a", a=Has("w:0-4096")), show("a b", a=Has("w:0-4096")), show("a b")),
        (("order missing-name", show("a")),),
    ),
    Row(
        "a size that a durable write overruled is the truncate's",
        "1-2 create a\nv: 3-4 write a 0 2048\nw: 5-6 write a 2048 2048\n7-8 sync\n9-10 create b\n"
        "11-12 truncate a 2048",
        (show("a", a=Has("v:0-2048 w:2048-4096")), show("a b", a=Has("v:0-2048"))),
        (("order missing-name", show("a", a=Has("v:0-2048"))),),
    ),
    Row(
        "a rename to the name the file has already does nothing, and is ordered with nothing",
        "1-2 create a\n3-4 link a b\n5-6 sync\n7-8 create c\n9-10 rename a b\n11-12 fsync .",
        (show("a b=a c"),),
        (("names missing-name", show("a b=a")),),
    ),
    Row(
        "names that raced are as they were at one moment: a file is at one of a rename's names",
        "1-2 create a\n3-4 sync\n5-8 rename a b\n6-9 create a as=c",
        (show("a"), show("b=a"), show("a=c b=a")),
        (("order never-so|names rename-both", show("a b=a")), ("order never-so|names lost-inode", show())),
    ),
    Row(
        "renames that raced, one after the other: the file is somewhere",
        "1-2 create a\n3-4 sync\n5-8 rename a b\n6-9 rename b c",
        (show("a"), show("b=a"), show("c=a")),
        (
            ("order never-so|names lost-inode", show()),
            ("order never-so|names rename-both", show("b=a c=a")),
            ("names half-rename|order half-rename", show("a c=a")),
        ),
    ),
    Row(
        "that an unlink worked says that the link it raced with came first",
        "1-2 create a\n3-4 sync\n5-14 link a c\n6-7 rename a b\n8-9 unlink c\n15-16 unlink b",
        (show("a"), show("a c=a"), show("b=a c=a"), show("b=a"), show()),
        (("order never-so", show("c=a")),),
    ),
    Row(
        "what a sync covers is in, however it came out",
        "1-2 create a\n3-4 create b\n5-6 sync\n7-10 rename a c\n8-11 rename b c other=a\n12-13 sync",
        (show("c=b"), show("c=a")),
        (("order never-so|names resurrected-name", show("b c=a")), ("order never-so", show())),
    ),
)  # fmt: skip


@pytest.mark.parametrize(("row", "on"), each_fs(*ROWS))
def test_row(row: Row, on: str) -> None:
    check_row(row, on)


def test_with_wsync_a_name_is_durable_when_its_op_returns() -> None:
    script = Script("1-2 create a\n3-4 rename a b")
    wsync = own_profile("xfs", "nouuid,wsync")
    for names, ok in (("b=a", True), ("a", False), ("", False)):
        tree = make_tree(script, "xfs", names)
        assert not judge_case(script, "xfs", tree).violations
        assert (not judge_case(script, "xfs", tree, profile=wsync).violations) is ok, names


@pytest.mark.parametrize("idle", ["rename a a", "rename a l"])
def test_what_changed_nothing_is_durable_with_nothing(idle: str) -> None:
    """It returns without a write, so a state from before it may be all there is when it has returned."""
    script = Script(f"1-2 create a\n3-4 link a l\n10-11 {idle}\n12-13 read a 0 8")
    wsync = own_profile("xfs", "nouuid,wsync")
    versions = build_versions(script.history, None)
    for names, ok in (("a l=a", True), ("a", False), ("", False)):
        recovery = Recovery(tree=make_tree(script, "xfs", names))
        for cut in (Cut(13, 8), Cut(14, 14)):
            assert (not judge(wsync, recovery, versions, cut).violations) is ok, (names, cut)
