"""What people see of a finding: lanes, the log, and the tree beside what was promised."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dossiers import EVIL, make_dossier, make_log

from fuzzer.triage.dossier import Dossier
from fuzzer.triage.logview import describe_log, log_lines
from fuzzer.triage.timeline import DEVICE, Step, build_timeline, render_timeline
from fuzzer.triage.treediff import describe_diff, diff_tree
from fuzzer.writelog.crash import Kept
from fuzzer.writelog.fate import Fate
from fuzzer.writelog.model import Flag


def test_rows_are_in_order_up_to_the_cut() -> None:
    timeline = build_timeline(make_dossier(name="a"))
    assert [(row.step, row.lane, row.text) for row in timeline.rows] == [
        (Step.WHOLE, 1, "create a"),
        (Step.BEGIN, 1, "sync"),
        (Step.REQUEST, DEVICE, "FLUSH"),
        (Step.END, 1, "done"),
        (Step.WHOLE, 1, "missing: write a 0 4K"),
        (Step.BEGIN, 1, "promised: fsync a"),
        (Step.REQUEST, DEVICE, "data, lost; log, lost"),
        (Step.END, 1, "done"),
        (Step.WHOLE, 1, "create b"),
        (Step.CRASH, DEVICE, "power cut after entry 4"),
    ]
    assert timeline.lanes == ((1, "one"), (DEVICE, "device"))
    assert timeline.zero_ns == 30


def test_the_terminal_form() -> None:
    lines = list(render_timeline(build_timeline(make_dossier(name="a")), 60))
    assert all(len(line) <= 60 for line in lines)
    begin = next(n for n, line in enumerate(lines) if "┌ promised: fsync a" in line)
    assert "│" in lines[begin + 1]
    assert "data, lost" in lines[begin + 1]
    assert "└ done" in lines[begin + 2]
    assert "power cut after entry 4 ═══" in lines[-1]


def test_what_is_far_away_is_only_counted() -> None:
    dossier = make_dossier(name="a")
    sync = dossier.sync
    assert sync is not None
    last = replace(sync, end_ns=49)
    crowd = [replace(sync, id=1000 + n, begin_ns=41, end_ns=42 + n % 4) for n in range(30)]
    events = sorted([*(e for e in dossier.saved.history.events if e is not sync), last, *crowd], key=_begin)
    busy = Dossier(
        replace(dossier.saved, history=replace(dossier.saved.history, events=tuple(events))),
        dossier.log,
        dossier.tree,
    )
    rows = build_timeline(busy).rows
    assert any(row.step is Step.GAP for row in rows)
    assert len(rows) < 45
    assert sum(row.matters for row in rows) == 4


def _begin(event: object) -> int:
    return int(getattr(event, "begin_ns"))  # noqa: B009


def test_no_log_and_no_crash() -> None:
    assert not any(row.step is Step.CRASH for row in build_timeline(make_dossier(log=False)).rows)
    assert "not kept" in next(describe_log(make_dossier(log=False)))
    dossier = make_dossier()
    live = Dossier(replace(dossier.saved, state=None), dossier.log, dossier.tree)
    assert not any(row.step is Step.CRASH for row in build_timeline(live).rows)
    assert live.crash_ns is None


def test_log_lines_say_what_and_its_fate() -> None:
    lines = log_lines(make_dossier(name="a"))
    assert [(line.index, line.text, line.fate) for line in lines] == [
        (1, "flush", Fate.NONE),
        (2, "data of a at 0..4096 by `write a 0 4K` (actor 1, op 2)", Fate.LOST),
        (3, "log tree leaf (generation 8; logs a, inode 9999)", Fate.LOST),
        (4, "flush", Fate.AFTER),
        (5, "superblock, generation 7, log tree at 2097152", Fate.AFTER),
    ]
    text = "\n".join(describe_log(make_dossier(name="a")))
    assert text.index("[lost]") < text.index("power was cut here") < text.index("superblock")


def test_log_without_times_is_placed_by_marks() -> None:
    dossier = make_dossier(name="a")
    log = make_log((Flag(0), 4096, bytes(4096), 0, 0), (Flag.FLUSH, 0, b"", 0, 0), timed=False)
    bare = Dossier(dossier.saved, log, None)
    assert [line.time_us for line in log_lines(bare)] == [None] * len(log_lines(bare))
    assert list(render_timeline(build_timeline(bare), 60))


@pytest.mark.parametrize("name", ["a", EVIL])
def test_diff_shows_what_is_gone(name: str) -> None:
    rows = diff_tree(make_dossier(name=name))
    broken = [row for row in rows if row.broken]
    assert [(row.subject, row.found) for row in broken][:1] == [(f"{name} 0..4096", "zeroes")]
    quoted = name if name == "a" else f'"{name}"'
    assert broken[0].expected.startswith(f"`write {quoted} 0 4K` (actor 1, op 2) or later, by `fsync")
    kept = next(row for row in rows if row.subject == name)
    assert not kept.broken
    assert not any(row.subject == "b" for row in rows), "nothing is promised of what came after the cut"


def test_diff_without_a_tree_tells_the_broken_promises() -> None:
    rows = diff_tree(make_dossier(tree=False))
    assert rows
    assert all(row.broken for row in rows)
    assert "no recovered tree" in next(describe_diff(make_dossier(tree=False)))


def test_everything_survived() -> None:
    lines = log_lines(make_dossier(kept=Kept.EVERYTHING))
    assert {line.fate for line in lines} == {Fate.NONE, Fate.SURVIVED, Fate.AFTER}
