"""History: what happened while a workload ran, op by op, on one monotonic clock.

Workers write fixed-size binary records into shared memory (`RECORD`); everything an op asked for is
re-derived from the workload, so a record only says when, on which inodes, and what came back.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fuzzer.state.inode import make_inode
from fuzzer.state.stamps import Run
from fuzzer.workload.model import MAX_ACTORS, MAX_SEQUENCE, Op, Resolver, Workload, make_op, op_id
from fuzzer.workload.ops import Kind

RECORD = np.dtype(
    [
        ("begin_ns", "<u8"),
        ("end_ns", "<u8"),
        ("result", "<i8"),
        ("subject", "<u8"),
        ("other", "<u8"),
        ("directory", "<u8"),
        ("directory2", "<u8"),
        ("subject_gen", "<u4"),
        ("other_gen", "<u4"),
        ("directory_gen", "<u4"),
        ("directory2_gen", "<u4"),
        ("sequence", "<u4"),
        ("errno", "<u4"),
    ]
)
"""One op as a worker records it, 80 bytes. `begin_ns` is stored before the system call that has the
effect, `end_ns` after it returned (0: it has not). Inodes are numbers and generations apart."""

SEEN = np.dtype(
    [("sequence", "<u4"), ("start", "<u4"), ("end", "<u4"), ("op", "<i4"), ("tag", "<u4"), ("shift", "<i4")]
)
"""One run of what a read returned, as a worker records it: the op's number, then the fields of `Run`."""

FOREVER = (1 << 63) - 1
"""Return time of an op that never returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One op that was started. `end_ns` is `FOREVER` if it was cut short.

    Inodes by op: *subject* is the file worked on (the new one of create, mkdir, symlink; the one
    named by `from` of link and rename; the destination of clone); *directory* the parent of its name
    (`from`'s parent for rename; the new name's for link); *directory2* the parent of rename's `to`;
    *other* what rename's `to` named before (0: nothing), or clone's source. For unlink, rmdir and
    rename, subject and other are looked up just before the call, inside [begin, end].

    `seen` is what a read returned: runs of [off, off + result), or nothing if the worker had no more
    room to record it (or died).
    """

    id: int
    actor: int
    sequence: int
    op: Op
    begin_ns: int
    end_ns: int = FOREVER
    result: int = 0
    errno: int = 0
    subject: int = 0
    other: int = 0
    directory: int = 0
    directory2: int = 0
    seen: tuple[Run, ...] = ()

    @property
    def returned(self) -> bool:
        return self.end_ns != FOREVER

    @property
    def succeeded(self) -> bool:
        return self.returned and self.errno == 0

    @property
    def failed(self) -> bool:
        return self.returned and self.errno != 0


@dataclass(frozen=True, slots=True)
class History:
    """All events in order of their start, and what ended abnormally.

    `root` is the identity of the mount's root directory; `killed` names the actors that were killed
    at the deadline or died. `realtime_ns` is what the wall clock (CLOCK_REALTIME, of which the times of
    inodes are made) was ahead of the events' clock when the run began, 0 if nobody measured it;
    `realtime_drift_ns` is how far that had changed, either way, when it ended. More than clock discipline
    explains means that the wall clock was set.
    """

    events: tuple[Event, ...]
    root: int = 0
    killed: tuple[str, ...] = ()
    realtime_ns: int = 0
    realtime_drift_ns: int = 0
    by_id: dict[int, Event] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_id", {event.id: event for event in self.events})

    def known_ids(self) -> NDArray[np.uint64]:
        """Ids of all started ops, sorted, for `stamps.decode`."""
        return np.array(sorted(self.by_id), dtype=np.uint64)


_NO_RUNS = np.zeros(0, dtype=SEEN)


def events_from_records(
    workload: Workload, actor: int, records: NDArray[np.void], seen: NDArray[np.void] = _NO_RUNS
) -> list[Event]:
    """Turn an actor's records (`RECORD`s with `begin_ns` set) and what its reads saw into events."""
    resolver = Resolver(workload, actor)
    runs: dict[int, list[Run]] = defaultdict(list)
    for sequence, *run in seen.tolist():
        runs[sequence].append(Run(*run))
    # One conversion for all: reading numpy scalars field by field costs ten times as much.
    return [_event(resolver, actor, row, runs) for row in records.tolist() if row[0]]


def _event(resolver: Resolver, actor: int, row: tuple[int, ...], runs: Mapping[int, list[Run]]) -> Event:
    """An event from a record's fields in the order of `RECORD`."""
    begin, end, result, subject, other, directory, directory2, *generations, sequence, errno = row
    return Event(
        id=op_id(actor, sequence),
        actor=actor,
        sequence=sequence,
        op=resolver.op(sequence),
        begin_ns=begin,
        end_ns=end or FOREVER,
        result=result,
        errno=errno,
        subject=make_inode(subject, generations[0]),
        other=make_inode(other, generations[1]),
        directory=make_inode(directory, generations[2]),
        directory2=make_inode(directory2, generations[3]),
        seen=tuple(runs.get(sequence, ())),
    )


_NUMBER_KINDS = frozenset({Kind.BYTES, Kind.NUMBER, Kind.MODE})
_FORMAT = 2
_CLOCK_FIELDS = ("realtime_ns", "realtime_drift_ns")
_INODE_FIELDS = ("subject", "other", "directory", "directory2")


def format_history(history: History) -> Iterator[str]:
    """JSON lines: a head, then one line per event; times in ns."""
    head: dict[str, object] = {"history": _FORMAT, "root": history.root, "killed": list(history.killed)}
    yield json.dumps(head | {name: getattr(history, name) for name in _CLOCK_FIELDS})
    for event in history.events:
        line: dict[str, object] = {
            "actor": event.actor,
            "seq": event.sequence,
            "op": event.op.name,
            "args": dict(event.op.args),
            "begin": event.begin_ns,
        }
        if event.returned:
            line |= {"end": event.end_ns, "result": event.result, "errno": event.errno}
        line |= {name: getattr(event, name) for name in _INODE_FIELDS if getattr(event, name)}
        if event.seen:
            line["seen"] = [[run.start, run.end, run.op, run.tag, run.shift] for run in event.seen]
        yield json.dumps(line)


def parse_history(lines: Iterable[str]) -> History:
    """Inverse of `format_history`. Raises ValueError or KeyError on anything else."""
    head, *rest = [_object(line) for line in lines]
    if head["history"] != _FORMAT:
        raise ValueError(f"history version {head['history']} is not {_FORMAT}")
    killed = head["killed"]
    if not isinstance(killed, list) or not all(isinstance(name, str) for name in killed):
        raise ValueError(f"not a list of actors: {killed!r}")
    events = tuple(_parse_event(line) for line in rest)
    if _number(head, "realtime_drift_ns") < 0:
        raise ValueError("realtime_drift_ns is a distance and cannot be negative")
    clocks = {name: _number(head, name) for name in _CLOCK_FIELDS}
    return History(events, _number(head, "root"), tuple(killed), **clocks)


def _object(line: str) -> dict[str, object]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"not an object: {line[:80]!r}")
    return value


def _number(line: dict[str, object], name: str, default: int | None = None) -> int:
    value = line[name] if default is None else line.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is not a number: {value!r}")
    return value


def _parse_op(line: dict[str, object]) -> Op:
    args = line["args"]
    if not isinstance(args, dict):
        raise ValueError(f"args are not an object: {args!r}")
    op = make_op(str(line["op"]), args)
    for param in op.spec.params:
        wanted = int if param.kind in _NUMBER_KINDS else str
        if type(op[param.name]) is not wanted:
            raise ValueError(f"{op.name}: {param.name} is {op[param.name]!r}")
    return op


def _parse_event(line: dict[str, object]) -> Event:
    actor, sequence = _number(line, "actor"), _number(line, "seq")
    if not (0 <= actor <= MAX_ACTORS and 0 <= sequence < MAX_SEQUENCE):
        raise ValueError(f"no op has actor {actor} and number {sequence}")
    return Event(
        id=op_id(actor, sequence),
        actor=actor,
        sequence=sequence,
        op=_parse_op(line),
        begin_ns=_number(line, "begin"),
        end_ns=_number(line, "end", FOREVER),
        result=_number(line, "result", 0),
        errno=_number(line, "errno", 0),
        seen=_parse_runs(line.get("seen", [])),
        **{name: _number(line, name, 0) for name in _INODE_FIELDS},
    )


def _parse_runs(value: object) -> tuple[Run, ...]:
    if not isinstance(value, list) or not all(isinstance(row, list) and len(row) == 5 for row in value):
        raise ValueError(f"seen is not a list of runs: {str(value)[:80]}")
    if not all(type(number) is int for row in value for number in row):
        raise ValueError(f"seen has something that is not a number: {str(value)[:80]}")
    return tuple(Run(*row) for row in value)
