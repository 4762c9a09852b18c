"""Crash states: which part of a log survived, and the images they are.

Durable at a crash point is everything completed before a completed flush arrived, plus completed FUA
writes (Documentation/block/writeback_cache_control.rst). Every point is looked at in the *worst*
legal state (only what is durable) and the *best* (everything completed); a missing flush shows only
in the worst.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from fuzzer.errors import InputError
from fuzzer.state.history import FOREVER, History
from fuzzer.workload.model import SETUP
from fuzzer.writelog.image import Image
from fuzzer.writelog.model import SYNC_MARK_PREFIX, Entry, Flag


class Points(StrEnum):
    """Where to cut the power."""

    FSYNC = "fsync"
    FLUSH = "flush"
    FUA = "fua"
    WRITE = "write"


class Kept(StrEnum):
    """What survived of the writes that are not durable at the crash point."""

    NOTHING = "nothing"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class CrashState:
    """Power is cut after the first `point` entries; `kept` of the undurable ones survive."""

    point: int
    kept: Kept

    def to_json(self) -> dict[str, int | str]:
        return {"crash": 1, "point": self.point, "kept": str(self.kept)}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> CrashState:
        """Inverse of `to_json`; InputError on anything else."""
        point, kept = data.get("point"), data.get("kept")
        known = data.get("crash") == 1 and isinstance(kept, str) and kept in set(Kept)
        if not known or not isinstance(point, int) or point < 0:
            raise InputError(f"not a crash state of version 1: {dict(data)!r}")
        return cls(point, Kept(str(kept)))


@dataclass(frozen=True, slots=True)
class Cut:
    """The times that belong to a crash point, on the workload's clock.

    Sync calls that returned before `returned_before_ns` are promises the state must keep; ops invoked
    at or after `invoked_before_ns` cannot show in it.
    """

    returned_before_ns: int
    invoked_before_ns: int


LIVE = Cut(FOREVER, FOREVER)
"""No crash at all: everything that returned counts."""


class LogData(Protocol):
    """A readable log: its entries and the bytes they wrote."""

    @property
    def entries(self) -> tuple[Entry, ...]: ...

    def payload(self, entry: Entry) -> memoryview: ...


def crash_points(log: LogData, history: History, mode: Points, start: int = 0) -> tuple[int, ...]:
    """Positions in the log after `start` to cut at, ascending, each once."""
    if mode is Points.FSYNC:
        points = _sync_points(log.entries, history)
    elif mode is Points.FLUSH:
        points = [e.index + 1 for e in log.entries if e.is_flush]
    elif mode is Points.FUA:
        points = [e.index + 1 for e in log.entries if e.is_flush or e.flags & Flag.FUA]
    else:
        points = [e.index + 1 for e in log.entries if not e.is_mark]
    return tuple(sorted({point for point in points if point > start}))


def _sync_points(entries: tuple[Entry, ...], history: History) -> list[int]:
    if not _timed(entries):
        return [e.index + 1 for e in entries if e.mark.startswith(SYNC_MARK_PREFIX)]
    done = [entry.done_ns for entry in entries]
    syncs = [e for e in history.events if e.succeeded and e.op.is_durability_point]
    return [bisect_right(done, event.end_ns) for event in syncs]


def cut_at(entries: tuple[Entry, ...], point: int, history: History) -> Cut:
    """The times of crash point `point`.

    With times in the log: power goes just before the next entry completes. Without (device-mapper),
    sync marks bound both: a mark is put after its call returned, and before its actor goes on.
    """
    if _timed(entries):
        returned = entries[point].done_ns if point < len(entries) else FOREVER
        return Cut(returned, entries[point - 1].done_ns if point else 0)
    returned, invoked = 0, FOREVER
    for entry in entries:
        if entry.mark.startswith(SYNC_MARK_PREFIX):
            op, returned_ns = map(int, entry.mark.split(":")[1:])
            if entry.index < point:
                returned = max(returned, returned_ns + 1)
            if entry.index >= point - 1:
                invoked = min(invoked, _next_begin_ns(history, op))
    return Cut(returned, invoked)


def _next_begin_ns(history: History, op: int) -> int:
    """When the actor of `op` began its next op, or after the last op of the setup the first actor."""
    marked, following = history.by_id.get(op), history.by_id.get(op + 1)
    if following is not None:
        return following.begin_ns
    if marked is None or marked.actor != SETUP:
        return FOREVER
    return next((event.begin_ns for event in history.events if event.actor != SETUP), FOREVER)


def _timed(entries: tuple[Entry, ...]) -> bool:
    return any(entry.done_ns for entry in entries)


@dataclass(frozen=True, slots=True)
class Faults:
    """Planted damage (canaries), applied while images are built, never by an oracle.

    `pieces` replaces what an entry writes (empty: the write is lost); `dead_flushes` are flushes that
    make nothing durable; `base` is written over the base image first; `truncate_seed` >= 0 cuts a
    recovered file short (done by whoever mounts).
    """

    pieces: Mapping[int, tuple[tuple[int, bytes], ...]] = field(default_factory=dict)
    dead_flushes: frozenset[int] = frozenset()
    base: tuple[tuple[int, bytes], ...] = ()
    truncate_seed: int = -1


NO_FAULTS = Faults()


class StateBuilder:
    """Builds the images of crash states from `base`, the device at position `start`, forward only.

    Going back is refused because xfs recovery skips buffers that carry a newer LSN: a block from the
    future in the image would make recovery wrong (fs/xfs/xfs_log_recover.c).
    """

    def __init__(self, base: Image, log: LogData, start: int = 0, faults: Faults = NO_FAULTS) -> None:
        self._log = log
        self._faults = faults
        self._durable = base.fork()
        for offset, data in faults.base:
            self._durable.write(offset, data)
        self._pending: list[Entry] = []
        self._position = start

    def at(self, state: CrashState) -> Image:
        """The image of `state`. The result may be kept; it is not changed later."""
        assert state.point >= self._position, "crash states are built forward only"
        for entry in self._log.entries[self._position : state.point]:
            self._advance(entry)
        self._position = state.point
        image = self._durable.fork()
        if state.kept is Kept.EVERYTHING:
            for entry in self._pending:
                self._apply(image, entry)
        return image

    def _advance(self, entry: Entry) -> None:
        if entry.is_flush and entry.index not in self._faults.dead_flushes:
            self._flush(entry)
        if entry.length:
            self._pending.append(entry)
        if entry.flags & Flag.FUA:
            # It also stays pending: an older write to the same block must not be put over it later.
            self._apply(self._durable, entry)

    def _flush(self, flush: Entry) -> None:
        """What had completed when the flush arrived becomes durable, in log order.

        FUA writes that completed while the flush was under way already are; they go over older ones again.
        """
        late = [e for e in self._pending if e.done_ns > flush.arrived_ns]
        for entry in self._pending:
            if entry.done_ns <= flush.arrived_ns or entry.flags & Flag.FUA:
                self._apply(self._durable, entry)
        self._pending = late

    def _apply(self, image: Image, entry: Entry) -> None:
        pieces = self._faults.pieces.get(entry.index)
        if pieces is not None:
            for offset, data in pieces:
                image.write(offset, data)
        elif entry.flags & Flag.DISCARD:
            image.discard(entry.offset, entry.length)
        else:
            image.write(entry.offset, self._log.payload(entry))


def states_at(points: Iterable[int]) -> Iterator[CrashState]:
    """Worst and best state of each point, in building order."""
    for point in points:
        yield CrashState(point, Kept.NOTHING)
        yield CrashState(point, Kept.EVERYTHING)
