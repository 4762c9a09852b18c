"""Run workloads of one actor and print the verdict on each of their crash states, healthy and damaged.

A program of `test_recorders_agree.py`, which runs it on the host and in a guest and compares what the
two print. States are named by what both recorders must agree on: the sync call that returned last,
what was kept of the writes that were not durable, and the damage planted.

Usage: crash_verdicts.py RECORDER FS WORKLOAD...
"""

from __future__ import annotations

import json
import os
import sys
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from fuzzer.campaign.execute import Execution, execute
from fuzzer.campaign.lane import Lane, open_lane
from fuzzer.campaign.recover import Look, recover
from fuzzer.state.history import Event
from fuzzer.state.recovery import Recovery
from fuzzer.state.stamps import decode
from fuzzer.workload.text import parse
from fuzzer.writelog.crash import (
    LIVE,
    NO_FAULTS,
    CrashState,
    Cut,
    Faults,
    Kept,
    StateBuilder,
    cut_at,
)
from fuzzer.writelog.image import BLOCK_BYTES, Image
from fuzzer.writelog.joined import RunLog
from fuzzer.writelog.model import Entry, Flag
from fuzzer.writelog.points import Points, crash_points
from oracles import PROFILES, build_versions, judge
from oracles.versions import Versions

END = "end"
"""Name of the state after the clean unmount."""

_BARRIER = Flag.FLUSH | Flag.FUA
_WRITES = ("write", "dwrite")


@dataclass(frozen=True, slots=True)
class Sync:
    """A sync call that succeeded; the one before it had returned at log position `first`, it at `point`."""

    name: str
    event: Event
    first: int
    point: int


@dataclass(frozen=True, slots=True)
class Damage:
    """One planted fault: its name, the log and what is written wrongly, and the syncs to look at."""

    name: str
    log: RunLog
    faults: Faults
    syncs: tuple[Sync, ...]


@dataclass(slots=True)
class Judge:
    """Recovers each image once, whatever damage it came from, and judges it at its cut."""

    lane: Lane
    execution: Execution
    look: Look
    versions: Versions
    seen: dict[int, Recovery] = field(default_factory=dict)

    def violations(self, image: Image, cut: Cut) -> list[list[str | int]]:
        """(rule, kind, id of the sync call that promised) of all that is wrong with a state."""
        if image.digest not in self.seen:
            self.seen[image.digest] = recover(self.lane, image, self.look)
        profile = PROFILES[self.execution.workload.fs]
        found = judge(profile, self.seen[image.digest], self.versions, cut).violations
        return [list(one) for one in sorted({(v.rule, v.kind, v.sync) for v in found})]


def sync_calls(execution: Execution) -> list[Sync]:
    """All sync calls that succeeded, with where the log is cut for them."""
    log = execution.log
    points = crash_points(log, execution.history, Points.FSYNC, log.start)
    returned = [cut_at(log.entries, point, execution.history).returned_before_ns for point in points]
    events = [e for e in execution.history.events if e.succeeded and e.op.is_crash_point]
    # A call that wrote nothing shares its point with the one before it where the log has times.
    places = [log.start, *(points[bisect_left(returned, event.end_ns + 1)] for event in events)]
    return [
        Sync(_name(event), event, first, point)
        for event, (first, point) in zip(events, pairwise(places), strict=True)
    ]


def _name(event: Event) -> str:
    """The same on both sides, where ids and inodes need not be."""
    return f"{event.actor}.{event.sequence} {event.op.name}"


def damages(execution: Execution) -> Iterator[Damage]:
    """Healthy first; then what a lying device may do to each sync call, and a lost block for each."""
    log, syncs = execution.log, sync_calls(execution)
    yield Damage("none", log, NO_FAULTS, tuple(syncs))
    for sync in syncs:
        barriers = [e.index for e in log.entries[sync.first : sync.point] if e.flags & _BARRIER]
        for name, dead in (("all barriers", barriers), ("last barrier", barriers[-1:])):
            yield Damage(f"{name} of {sync.name}", _without_barriers(log, dead), NO_FAULTS, (sync,))
    before_ns = 0
    for sync in syncs:
        for event in _writes(execution, before_ns, sync.event.begin_ns)[-1:]:
            faults = _lost_block(execution, event)
            name = f"{'block lost' if faults.pieces else 'not written'} of {_name(event)}"
            yield Damage(name, log, faults, (sync,))
        before_ns = sync.event.begin_ns


def _without_barriers(log: RunLog, indexes: list[int]) -> RunLog:
    """The log with entries that are neither flush nor FUA any more: acknowledged, and not done."""
    entries = list(log.entries)
    for index in indexes:
        entries[index] = replace(entries[index], flags=entries[index].flags & ~_BARRIER)
    return replace(log, entries=tuple(entries))


def _writes(execution: Execution, after_ns: int, until_ns: int) -> list[Event]:
    """The writes begun since a sync call, up to the next one (which may be a write itself)."""
    events = execution.history.events
    return [e for e in events if e.op.name in _WRITES and after_ns < e.begin_ns <= until_ns]


def _lost_block(execution: Execution, event: Event) -> Faults:
    """The first whole block the op wrote never arrives, however often it is written."""
    log, known = execution.log, execution.history.known_ids()
    want = -(-event.op.number("off") // BLOCK_BYTES) * BLOCK_BYTES
    pieces = {}
    for entry in log.entries[log.start :]:
        data = bytes(log.payload(entry)) if entry.is_write else b""
        for skip in range(0, len(data) - BLOCK_BYTES + 1, BLOCK_BYTES):
            runs = decode(data[skip : skip + BLOCK_BYTES], 0, known)
            if [(run.op, -run.shift) for run in runs] == [(event.id, want)]:
                pieces[entry.index] = _around(entry, data, skip)
    return Faults(pieces=pieces)


def _around(entry: Entry, data: bytes, skip: int) -> tuple[tuple[int, bytes], ...]:
    after = skip + BLOCK_BYTES
    return ((entry.offset, data[:skip]), (entry.offset + after, data[after:]))


def verdicts(lane: Lane, execution: Execution) -> Iterator[list[object]]:
    """Rows of damage, sync call, kept, violations."""
    known = execution.history.known_ids()
    look = Look(fs=execution.workload.fs, mount_options=execution.workload.mount, known=known)
    judge = Judge(lane, execution, look, build_versions(execution.history))
    for damage in damages(execution):
        entries = damage.log.entries
        builder = StateBuilder(execution.base, damage.log, damage.log.start, damage.faults)
        for sync in damage.syncs:
            for kept in Kept:
                image = builder.at(CrashState(sync.point, kept))
                cut = cut_at(entries, sync.point, execution.history)
                yield [damage.name, sync.name, str(kept), judge.violations(image, cut)]
        image = builder.at(CrashState(len(entries), Kept.EVERYTHING))
        yield [damage.name, END, str(Kept.EVERYTHING), judge.violations(image, LIVE)]


def main(recorder: str, fs: str, *paths: str) -> None:
    """One JSON line per workload."""
    with open_lane(recorder) as lane:
        for path in paths:
            execution = execute(lane, parse(Path(path).read_text(), path).with_fs(fs))
            events = execution.history.events
            facts = {
                "workload": Path(path).name,
                "recorder": lane.recorder.name,
                "kernel": os.uname().release,
                "failed": [f"{_name(e)}: {os.strerror(e.errno)}" for e in events if e.failed],
                "rows": list(verdicts(lane, execution)),
            }
            sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
