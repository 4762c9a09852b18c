"""Extension: on xfs the last sector of a file that only writes made so large holds their stamps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from oracle_cases import Has, Row, Script, Shown, check_row, each_fs, judge_case, make_tree, show

from oracles.contract import profile_for

_ZEROS = "extension zeros-inside-size"
_MADE = "1-2 create a\n3-4 sync\n"


def _a(runs: str, size: int | None = None) -> Shown:
    return show("a", a=Has(runs, size=size))


ROWS = (
    Row(
        "an append nobody synced: the size comes with its data or not at all",
        _MADE + "w: 5-6 write a 0 4096",
        (_a("w:0-4096"), _a(""), _a("w:0-512"), _a("0:0-3584 w:3584-4096")),
        (
            (_ZEROS, _a("0:0-4096")),
            (_ZEROS, _a("w:0-3584 0:3584-4096")),
            (_ZEROS, _a("w:0-4088 0:4088-4096")),
        ),
    ),
    Row(
        "two appends into one sector: the size of the second brings its words",
        _MADE + "v: 5-6 write a 0 104\nw: 7-8 write a 104 104",
        (_a("v:0-104"), _a("v:0-104 w:104-208")),
        ((_ZEROS, _a("v:0-104 0:104-208")),),
    ),
    Row(
        "of the words before the write in its sector nothing is said",
        _MADE + "w: 5-6 write a 104 104",
        (_a("0:0-104 w:104-208"),),
        ((_ZEROS, _a("0:0-208")),),
    ),
    Row(
        "an append under way",
        _MADE + "w: 5-? write a 0 8192",
        (_a("w:0-8192"), _a("w:0-4096"), _a("0:0-4096 w:4096-8192")),
        ((_ZEROS, _a("w:0-4096 0:4096-8192")), (_ZEROS, _a("0:0-4096"))),
        cut_ns=50,
    ),
    Row(
        "a direct write",
        _MADE + "w: 5-6 dwrite a 0 4096",
        (_a("w:0-4096"),),
        ((_ZEROS, _a("0:0-4096")),),
    ),
    Row(
        "a gap before a write is zeroes, and may be written first",
        _MADE + "w: 5-6 write a 8192 4096",
        (_a("0:0-4096"), _a("0:0-8192 w:8192-12288")),
        ((_ZEROS, _a("0:0-12288")),),
    ),
    Row(
        "a write into what the file held already leaves no gap: the end is of those that made it so large",
        _MADE + "w: 5-6 write a 0 8192\nv: 7-8 write a 4096 1024",
        (_a("w:0-2560"), _a("w:0-4096"), _a("w:0-4096 v:4096-5120"), _a("0:0-512 w:512-2560")),
        ((_ZEROS, _a("w:0-2048 0:2048-2560")), (_ZEROS, _a("0:0-4096"))),
    ),
    Row(
        "it does if the file may have been cut off in between",
        _MADE + "w: 5-6 write a 0 8192\n7-10 truncate a 0\nv: 9-12 write a 4096 1024",
        (_a("0:0-2560"), _a("0:0-4096 v:4096-5120"), _a("")),
    ),
    Row(
        "a truncate excuses the zeroes behind its size, and no others",
        _MADE + "w: 5-6 write a 0 4096\n7-8 truncate a 3800",
        (_a("w:0-3800"), _a("w:0-3800 0:3800-4096")),
        ((_ZEROS, _a("w:0-3584 0:3584-3800 0:3800-4096")),),
    ),
    *(
        Row(
            f"{op} may have set the size",
            _MADE + f"5-6 {op}\nw: 7-8 write a 0 4096",
            (_a("0:0-4096"), _a("w:0-4096")),
        )
        for op in ("truncate a 4096", "fallocate a 0 4096", "fallocate a 0 8192 mode=zero")
    ),
    *(
        Row(
            f"{op} may have zeroed it since",
            _MADE + f"w: 5-6 write a 0 8192\n7-8 {op}",
            (_a("w:0-4096 0:4096-8192"), _a("w:0-8192")),
        )
        for op in (
            "fallocate a 4096 4096 mode=punch",
            "fallocate a 4096 4096 mode=zero_keep",
            "truncate a 4096",
        )
    ),
    Row(
        "a hole punched before the write does not excuse it",
        _MADE + "5-6 write a 0 4096\n7-8 fallocate a 0 4096 mode=punch\nw: 9-10 write a 0 8192",
        (_a("w:0-8192"),),
        ((_ZEROS, _a("w:0-4096 0:4096-8192")),),
    ),
    Row(
        "a truncate that overlaps the write excuses it",
        _MADE + "5-8 truncate a 0\nw: 6-9 write a 0 4096",
        (_a("0:0-4096"), _a("w:0-4096")),
    ),
    Row(
        "it may be that write that gave the size, though another one ended later",
        _MADE + "5-10 truncate a 0\nv: 6-20 write a 0 4096\nw: 12-22 write a 0 4096",
        (_a("0:0-4096"), _a("v:0-4096"), _a("w:0-4096")),
    ),
    Row(
        "blocks reserved beyond the end stay unwritten until the write is done",
        _MADE + "5-6 fallocate a 0 16384 mode=keep\nw: 7-8 write a 0 4096",
        (_a("w:0-4096"),),
        ((_ZEROS, _a("0:0-4096")),),
    ),
    Row(
        "a clone may bring zeroes",
        "1-2 create a\n3-4 create b\n5-6 truncate b 4096\n7-8 sync\nw: 9-10 write a 0 4096\n"
        "11-12 clone b a 0 0 4096",
        (show("a b", a=Has("0:0-4096"), b=Has("0:0-4096")),),
    ),
    Row(
        "after a writeback that failed nothing is said",
        _MADE + "w: 5-6 write a 0 4096\n7-8 fsync a !EIO",
        (_a("0:0-4096"),),
    ),
    Row(
        "a store through a mapping may have undone a direct write beside it",
        "1-2 create a\nv: 3-4 write a 0 4096\n5-6 sync\n7-10 mwrite a 0 4096\nw: 8-9 dwrite a 4096 4096",
        (_a("v:0-4096 0:4096-8192"),),
    ),
)  # fmt: skip


@pytest.mark.parametrize(("row", "on"), each_fs(*(replace(row, fs=("xfs",)) for row in ROWS)))
def test_row(row: Row, on: str) -> None:
    check_row(row, on)


def test_btrfs_and_posix_promise_no_such_thing() -> None:
    script = Script(_MADE + "w: 5-6 write a 0 4096")
    zeros = Has("0:0-4096")
    assert not judge_case(script, "btrfs", make_tree(script, "btrfs", "a", a=zeros)).violations
    posix = profile_for("xfs", contract="posix")
    assert not judge_case(script, "xfs", make_tree(script, "xfs", "a", a=zeros), profile=posix).violations
