"""Crash states: which part of a log survived, and the images they are.

Durable at a crash point is everything completed before a completed flush arrived, plus completed FUA
writes (Documentation/block/writeback_cache_control.rst). Of the other completed writes and discards,
the *open* ones, any may survive, whole or in part; those that do take effect in log order. Our
recorders carry out one request after the other, so nothing is in flight that the log does not have, but for
writes a workload asked to hold back: those are not there until they complete, and may be from then on.
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

Span = tuple[int, int]
"""A byte range [start, end) inside what an entry writes."""


class Kept(StrEnum):
    """What survived of the open entries, where it is not a choice of them."""

    NOTHING = "nothing"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Torn:
    """Of the write with index `entry` only `spans` reached the medium: ascending, apart, in sectors."""

    entry: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class CrashState:
    """Power is cut after the first `point` entries; `kept` of the entries open there survive.

    `kept` may be the ascending indexes of those that do, some of them `torn`. `again` is a second cut,
    while the kernel recovered from this one. `recipe.py` has the text of it.
    """

    point: int
    kept: Kept | tuple[int, ...]
    torn: tuple[Torn, ...] = ()
    again: Again | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """A cut in the log of a recovery. `log` is the digest of that log, in which `state` counts."""

    log: str
    state: CrashState


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

    @property
    def sector_bytes(self) -> int: ...

    def payload(self, entry: Entry) -> memoryview: ...


def sync_points(entries: tuple[Entry, ...], history: History) -> list[int]:
    """Positions in the log at which sync calls had returned, not sorted: those of marks, or of times."""
    if not (_timed(entries) and history.events):
        return [e.index + 1 for e in entries if e.mark.startswith(SYNC_MARK_PREFIX)]
    done = [entry.done_ns for entry in entries]
    syncs = [e for e in history.events if e.succeeded and e.op.is_crash_point]
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


def cut_of(entries: tuple[Entry, ...], state: CrashState, history: History) -> Cut:
    """The cut at which a state is judged; later cuts, in recovery, change nothing about it.

    After the clean unmount, which ends every log, nothing may be missing.
    """
    if state == CrashState(len(entries), Kept.EVERYTHING):
        return LIVE
    return cut_at(entries, state.point, history)


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


class OpenEntries:
    """The entries that completed and are not durable, in log order, while the log goes by."""

    __slots__ = ("_dead_flushes", "entries")

    def __init__(self, dead_flushes: frozenset[int] = frozenset()) -> None:
        self._dead_flushes = dead_flushes
        self.entries: list[Entry] = []

    def advance(self, entry: Entry) -> list[Entry]:
        """Take in the next entry of the log; returns what became durable by it, in log order."""
        durable: list[Entry] = []
        if entry.is_flush and entry.index not in self._dead_flushes:
            durable += self._flush(entry)
        if entry.length:
            self.entries.append(entry)
        if entry.flags & Flag.FUA:
            # It also stays open: an older write to the same block must not be put over it later.
            durable.append(entry)
        return durable

    def _flush(self, flush: Entry) -> list[Entry]:
        """What had completed when the flush arrived becomes durable, in log order.

        FUA writes that completed while the flush was under way already are; they go over older ones again.
        """
        before = self.entries
        self.entries = [e for e in before if e.done_ns > flush.arrived_ns]
        return [e for e in before if e.done_ns <= flush.arrived_ns or e.flags & Flag.FUA]

    @property
    def may_be_lost(self) -> tuple[Entry, ...]:
        """The open entries but those that were forced: FUA writes survive."""
        return tuple(entry for entry in self.entries if not entry.flags & Flag.FUA)


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
        self._open = OpenEntries(faults.dead_flushes)
        self._position = start

    def may_be_lost(self, point: int) -> tuple[Entry, ...]:
        """The entries a state at `point` may do without."""
        assert point >= self._position, "crash states are built forward only"
        for entry in self._log.entries[self._position : point]:
            for durable in self._open.advance(entry):
                self._apply(self._durable, durable)
        self._position = point
        return self._open.may_be_lost

    def at(self, state: CrashState) -> Image:
        """The image of `state`, not of its `again`. The result may be kept; it is not changed later.

        InputError if the state is none that this log can leave behind.
        """
        if state.point > len(self._log.entries):
            raise InputError(f"no crash state of this log: it has no entry {state.point - 1}")
        choice = {entry.index for entry in self.may_be_lost(state.point)}
        image = self._durable.fork()
        if state.kept is Kept.NOTHING:
            return image
        kept = choice if state.kept is Kept.EVERYTHING else set(state.kept)
        torn = {one.entry: one.spans for one in state.torn}
        if not torn.keys() <= kept <= choice:
            wrong = sorted((kept | torn.keys()) - choice)
            raise InputError(f"no crash state of this log: entries {wrong} are not open at {state.point}")
        for entry in self._open.entries:
            if entry.index in torn:
                self._apply_part(image, entry, torn[entry.index])
            elif entry.index in kept or entry.flags & Flag.FUA:
                self._apply(image, entry)
        return image

    def _apply(self, image: Image, entry: Entry) -> None:
        pieces = self._faults.pieces.get(entry.index)
        if pieces is not None:
            for offset, data in pieces:
                image.write(offset, data)
        elif entry.flags & Flag.DISCARD:
            image.discard(entry.offset, entry.length)
        else:
            image.write(entry.offset, self._log.payload(entry))

    def _apply_part(self, image: Image, entry: Entry, spans: tuple[Span, ...]) -> None:
        if not entry.is_write or (spans and spans[-1][1] > entry.length):
            raise InputError(f"no crash state of this log: entry {entry.index} cannot be torn at {spans}")
        if entry.index in self._faults.pieces:
            self._apply(image, entry)  # What the damage changed must not come back by tearing.
            return
        for first, end in spans:
            image.write(entry.offset + first, self._log.payload(entry)[first:end])


def states_at(points: Iterable[int]) -> Iterator[CrashState]:
    """Worst and best state of each point, in building order."""
    for point in points:
        yield CrashState(point, Kept.NOTHING)
        yield CrashState(point, Kept.EVERYTHING)
