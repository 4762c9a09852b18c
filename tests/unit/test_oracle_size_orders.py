"""Sizes that no order of all ops leaves, though any two durable ones could have left them."""

from __future__ import annotations

import pytest
from oracle_cases import Has, Row, Script, check_row, each_fs, judge_case, make_tree, show

_MADE = "1-2 create a\nx: 3-4 write a 0 2048\n5-6 sync\n"
# The second write came after the first; each of them may have come before the truncate.
_CYCLE = "10-30 truncate a 0\nv: 12-14 write a 0 4096\nw: 20-32 dwrite a 4096 4096\n40-41 sync"
_HALF = show("a", a=Has("v:0-4096"))
_BROKEN = "size size-too-small"

ROWS = (
    Row(
        "a truncate came before one write, between two, or behind both",
        _MADE + _CYCLE,
        (show("a"), show("a", a=Has("0:0-4096 w:4096-8192")), show("a", a=Has("v:0-4096 w:4096-8192"))),
        ((_BROKEN, _HALF),),
    ),
    Row(
        "one that failed may have come between as well",
        _MADE + "10-30 truncate a 0\nv: 12-14 write a 0 4096\nw: 20-32 dwrite a 4096 4096\n"
        "33-34 truncate a 4096 !EIO\n40-41 sync",
        (_HALF, show("a", a=Has("v:0-4096 w:4096-8192"))),
    ),
    Row(
        "one that failed may have done nothing",
        _MADE + "10-15 truncate a 1000\n11-12 truncate a 1000 !EIO\n14-16 truncate a 6000\n17-18 fsync a",
        (show("a", a=Has("x:0-1000")), show("a", a=Has("x:0-1000 0:1000-6000"))),
        ((_BROKEN, show("a", a=Has("x:0-1000 0:1000-4096"))),),
    ),
    Row(
        "a write that failed may have left the file shorter than the next one made it",
        _MADE + "10-11 write a 0 8192 !EIO\nv: 12-13 write a 0 4104\n14-15 fsync a",
        (show("a", a=Has("v:0-4104")),),
    ),
    Row(
        "a write whose data a failed sync call lost may be gone with it",
        _MADE + "10-30 truncate a 0\nv: 12-14 write a 0 4096\nw: 20-32 dwrite a 4096 4096\n"
        "33-34 fsync a !EIO\n40-41 sync",
        (_HALF,),
    ),
    Row(
        "truncates that overlap pass no size the file had only before a durable one",
        _MADE + "10-11 truncate a 0\n12-13 fsync a\n14-17 truncate a 0\n15-16 truncate a 0",
        (show("a"),),
        (("size size-too-large", show("a", a=Has("0:0-512"))),),
        fs=("btrfs",),
    ),
    Row(
        "a truncate that overlaps a sync call: what it cut off stays so, once both are durable",
        _MADE + "v: 7-8 write a 0 8192\n10-20 truncate a 0\n12-14 fsync a\n"
        "16-22 truncate a 8192\n30-31 fsync a",
        (show("a"), show("a", a=Has("0:0-8192"))),
        ((_BROKEN, show("a", a=Has("v:0-4096"))),),
        fs=("xfs",),
    ),
)  # fmt: skip


@pytest.mark.parametrize(("row", "on"), each_fs(*ROWS))
def test_row(row: Row, on: str) -> None:
    check_row(row, on)


def _kinds(text: str, on: str) -> set[str]:
    script = Script(text)
    tree = make_tree(script, on, "a", a=Has("v:0-4096"))
    return {v.kind for v in judge_case(script, on, tree).violations if v.rule == "size"}


def test_what_is_durable_as_a_whole_is_not_put_in_order(fs: str) -> None:
    """However much it is, only the size it left counts."""
    long_ago = "".join(f"{n}-{n + 1} write a 0 1024\n" for n in range(50, 1000, 2))
    later = (
        "2010-2030 truncate a 0\nv: 2012-2014 write a 0 4096\nw: 2020-2032 dwrite a 4096 4096\n2040-2041 sync"
    )
    assert _kinds(f"{_MADE}{long_ago}1005-1006 sync\n{later}", fs) == {"size-too-small"}


@pytest.mark.parametrize(("more", "kinds"), [(20, {"size-too-small"}), (21, set())])
def test_so_many_ops_that_overlap_are_put_in_order(fs: str, more: int, kinds: set[str]) -> None:
    """Of more nothing is said that two durable ops do not contradict."""
    inside = "".join(f"{n}-{n} write a 0 8\n" for n in range(40, 40 + more))
    after = "10-90 write a 0 8\n" + _CYCLE.replace("40-41", "91-92")
    assert _kinds(f"{_MADE}{inside}{after}", fs) == kinds
