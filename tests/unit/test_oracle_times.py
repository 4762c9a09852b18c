"""Times and reserved space after a crash."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from oracle_cases import Script, make_tree

from fuzzer.state.recovery import Recovery
from fuzzer.state.utimes_value import utimes_ns
from fuzzer.workload.model import op_id
from fuzzer.writelog.crash import Cut
from oracles import build_versions, judge
from oracles.profile import own_profile

MS = 1_000_000
AHEAD_NS = 1_700_000_000 * 1000 * MS


def judged(
    fs: str,
    history: str,
    *,
    drift_ns: int = 0,
    cut_ms: int = 10_000,
    mount: str = "",
    **values: Fraction | int,
) -> set[str]:
    """Kinds of violations if `a` has these values after the crash; times are given in ms of the history."""
    script = Script(history)
    slow = [
        replace(e, begin_ns=e.begin_ns * MS, end_ns=e.end_ns * MS if e.returned else e.end_ns)
        for e in script.events
    ]
    past = replace(script.history, events=tuple(slow), realtime_ns=AHEAD_NS, realtime_drift_ns=drift_ns)
    tree = make_tree(script, fs, "a")
    inode = tree.entries[tree.root, "a"]
    times = {name: AHEAD_NS + round(ms * MS) for name, ms in values.items() if name.endswith("time_ns")}
    given = {"mtime_ns": AHEAD_NS + 1000 * MS, "ctime_ns": AHEAD_NS + 1000 * MS, **values, **times}
    tree.nodes[inode] = replace(tree.nodes[inode], **given)
    versions = build_versions(past, () if fs == "btrfs" else None)
    cut = Cut(cut_ms * MS, cut_ms * MS)
    found = judge(own_profile(fs, mount), Recovery(tree=tree), versions, cut).violations
    return {violation.kind for violation in found if violation.rule in ("times", "prealloc")}


TRUNCATED = "1000-1001 create a\n2000-2001 truncate a 0\n3000-3001 {}"


@pytest.mark.parametrize("call", ["fsync a", "sync"])
def test_fsync_keeps_the_times(fs: str, call: str) -> None:
    history = TRUNCATED.format(call)
    assert not judged(fs, history, mtime_ns=2000, ctime_ns=2000)
    assert judged(fs, history, mtime_ns=1000, ctime_ns=2000) == {"old-mtime"}
    assert judged(fs, history, mtime_ns=1000, ctime_ns=1000) == {"old-mtime", "old-ctime"}


def test_a_late_clock_tick_is_forgiven(fs: str) -> None:
    assert not judged(fs, TRUNCATED.format("fsync a"), mtime_ns=1900, ctime_ns=1900)


def test_fdatasync_need_not_keep_the_times(fs: str) -> None:
    assert not judged(fs, TRUNCATED.format("fdatasync a"), mtime_ns=1000, ctime_ns=1000)


def test_chmod_sets_the_ctime_only(fs: str) -> None:
    history = "1000-1001 create a\n2000-2001 chmod a 644\n3000-3001 fsync a"
    assert not judged(fs, history, mtime_ns=1000, ctime_ns=2000)
    assert judged(fs, history, mtime_ns=1000, ctime_ns=1000) == {"old-ctime"}


DATED = "1000-1001 create a\n2000-2001 truncate a 0\n3000-3001 utimes a\n4000-4001 {}"
SET_MS = Fraction(utimes_ns(op_id(1, 2)) - AHEAD_NS, MS)


@pytest.mark.parametrize("call", ["fsync a", "sync"])
def test_a_time_that_was_set_is_kept(fs: str, call: str) -> None:
    history = DATED.format(call)
    assert not judged(fs, history, mtime_ns=SET_MS, ctime_ns=3000)
    assert judged(fs, history, mtime_ns=2000, ctime_ns=3000) == {"old-mtime"}
    assert judged(fs, history, mtime_ns=3000, ctime_ns=3000) == {"old-mtime"}
    assert judged(fs, history, mtime_ns=SET_MS, ctime_ns=2000) == {"old-ctime"}


def test_a_time_that_was_set_without_fsync(fs: str) -> None:
    history = DATED.format("fdatasync a")
    assert not judged(fs, history, mtime_ns=SET_MS, ctime_ns=2000)
    assert not judged(fs, history, mtime_ns=2000, ctime_ns=2000)
    assert judged(fs, history, mtime_ns=SET_MS + Fraction(1, MS), ctime_ns=2000) == {"old-mtime"}


def test_a_write_replaces_a_time_that_was_set(fs: str) -> None:
    history = DATED.format("truncate a 0") + "\n5000-5001 fsync a"
    assert not judged(fs, history, mtime_ns=4000, ctime_ns=4000)
    assert judged(fs, history, mtime_ns=SET_MS, ctime_ns=4000) == {"old-mtime"}
    assert not judged(fs, DATED.format("fsync a") + "\n5000-? truncate a 0", mtime_ns=5000, ctime_ns=5000)


def test_lazy_times_come_with_fsync_of_the_file(fs: str) -> None:
    """And not with a later change of another one, which on xfs brings along everything else."""
    history = "1000-1001 create a\n1002-1003 create b\n1500-1501 sync\n2000-2001 truncate a 0\n"
    ordered = history + "3000-3001 chmod b 600\n3002-3003 rename b c\n4000-4001 fsync c"
    plain = judged(fs, ordered, mtime_ns=1000, ctime_ns=1000)
    assert plain == ({"old-mtime", "old-ctime"} if fs == "xfs" else set())
    assert not judged(fs, ordered, mtime_ns=1000, ctime_ns=1000, mount="lazytime")
    synced = history + "4000-4001 fsync a"
    assert judged(fs, synced, mtime_ns=1000, ctime_ns=2000, mount="lazytime") == {"old-mtime"}


def test_later_changes_may_show(fs: str) -> None:
    history = TRUNCATED.format("fsync a") + "\n4000-4001 truncate a 0"
    assert not judged(fs, history, mtime_ns=4000, ctime_ns=4000)


def test_no_time_is_from_before_the_file_or_after_the_crash(fs: str) -> None:
    history = "1000-1001 create a\n2000-2001 sync"
    assert judged(fs, history, mtime_ns=0, ctime_ns=1000) == {"old-mtime"}
    assert judged(fs, history, mtime_ns=20_000, ctime_ns=1000) == {"mtime-from-nowhere"}


def test_nothing_is_asked_if_the_wall_clock_was_set(fs: str) -> None:
    assert not judged(fs, TRUNCATED.format("sync"), drift_ns=1000 * MS, mtime_ns=0, ctime_ns=0)


RESERVED = "1000-1001 create a\n1002-1003 fallocate a 0 16384 mode=keep\n{}"


@pytest.mark.parametrize("call", ["fsync a", "fdatasync a", "sync"])
def test_a_reservation_survives_a_sync_call(fs: str, call: str) -> None:
    history = RESERVED.format(f"1004-1005 {call}")
    assert not judged(fs, history, allocated_bytes=16384)
    assert judged(fs, history, allocated_bytes=12288) == {"lost-reservation"}


def test_without_a_sync_call_nothing_is_reserved(fs: str) -> None:
    assert not judged(fs, RESERVED.format(""), allocated_bytes=0)


@pytest.mark.parametrize(
    ("release", "left"),
    [
        ("truncate a 4096", 4096),
        ("truncate a 0", 0),
        ("otrunc a", 0),
        ("fallocate a 4096 4096 mode=punch", 12288),
        ("fallocate a 100 5000 mode=punch", 8192),
        ("write a 0 16384", 16384),
        ("fallocate a 0 4096 mode=zero_keep", 12288),
        ("dedupe a a 0 4096 4096", 12288),
        ("dedupe a a 8192 4096 0", 4096),
    ],
)
def test_what_a_later_op_gives_back_is_not_asked_for(fs: str, release: str, left: int) -> None:
    history = RESERVED.format(f"1004-1005 fsync a\n1006-1007 {release}")
    assert not judged(fs, history, allocated_bytes=left)
    if left:
        assert judged(fs, history, allocated_bytes=left - 4096) == {"lost-reservation"}


def test_reservations_that_overlap_count_once(fs: str) -> None:
    history = RESERVED.format("1004-1005 fallocate a 8192 16384 mode=keep\n1006-1007 fsync a")
    assert not judged(fs, history, allocated_bytes=24576)
    assert judged(fs, history, allocated_bytes=20480) == {"lost-reservation"}
