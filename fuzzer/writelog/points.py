"""Points: where to cut the power, by mode; a plan is a union of modes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from fuzzer.errors import InputError
from fuzzer.state.history import History
from fuzzer.writelog.crash import LogData, sync_points
from fuzzer.writelog.model import Entry, Flag


class Points(StrEnum):
    """Where to cut the power, and what survives.

    The first five cut after every sync call, flush, flush or forced write, write, mark, and look at the
    worst and the best state. `subset` and `torn` cut at sync calls, marks and around barriers and let a
    choice of the open entries survive, or parts of them; `recovery` cuts again while the kernel recovers.
    """

    FSYNC = "fsync"
    FLUSH = "flush"
    FUA = "fua"
    WRITE = "write"
    MARK = "mark"
    SUBSET = "subset"
    TORN = "torn"
    RECOVERY = "recovery"


SAMPLED = frozenset({Points.SUBSET, Points.TORN, Points.RECOVERY})
"""Modes with more states than anybody can look at."""

SAMPLED_STATES = 64
"""States of each sampled mode where no number is asked for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A union of modes, in the order of `Points`.

    `states` > 0 bounds the states of all of them together; otherwise sampled modes have `each` of them.
    """

    modes: tuple[Points, ...] = (Points.FSYNC,)
    states: int = 0
    each: int = SAMPLED_STATES

    def __str__(self) -> str:
        return ",".join(self.modes)

    @property
    def simple(self) -> tuple[Points, ...]:
        """Modes of which every state is looked at. Recovery alone cuts again where `fsync` cuts."""
        modes = tuple(mode for mode in self.modes if mode not in SAMPLED)
        return (Points.FSYNC,) if self.modes == (Points.RECOVERY,) else modes

    @property
    def sampled(self) -> tuple[Points, ...]:
        """Modes of which some states are drawn."""
        return tuple(mode for mode in self.modes if mode in SAMPLED)

    def share(self, simple: int) -> int:
        """States each sampled mode may have beside `simple` states of the others."""
        if not self.states:
            return self.each
        return max(0, self.states - simple) // len(self.sampled) if self.sampled else 0

    def recovery_states(self, others: int) -> int:
        """States to look at in recoveries, beside `others` that need none."""
        if Points.RECOVERY not in self.modes:
            return 0
        return max(0, self.states - others) if self.states else self.each


def parse_plan(text: str, states: int = 0) -> Plan:
    """The plan of `fsync,subset`; InputError for a mode that is none."""
    names = text.split(",")
    unknown = [name for name in names if name not in set(Points)]
    if unknown:
        raise InputError(f"no points are called {unknown[0]!r}", hint=f"there are {', '.join(Points)}")
    return Plan(tuple(mode for mode in Points if mode in names), states)


def crash_points(log: LogData, history: History, mode: Points, start: int = 0) -> tuple[int, ...]:
    """Positions in the log after `start` to cut at, ascending, each once."""
    entries = log.entries
    if mode is Points.FSYNC:
        points = sync_points(entries, history)
    elif mode is Points.FLUSH:
        points = [e.index + 1 for e in entries if e.is_flush]
    elif mode is Points.FUA:
        points = _after_barriers(entries)
    elif mode is Points.WRITE:
        points = [e.index + 1 for e in entries if not e.is_mark]
    elif mode is Points.MARK:
        points = _after_marks(entries)
    else:
        after = _after_barriers(entries)
        around = [*after, *(p - 1 for p in after)]
        points = [*sync_points(entries, history), *_after_marks(entries), *around, len(entries)]
    return tuple(sorted({point for point in points if point > start}))


def _after_marks(entries: Iterable[Entry]) -> list[int]:
    return [e.index + 1 for e in entries if e.is_mark]


def _after_barriers(entries: Iterable[Entry]) -> list[int]:
    return [e.index + 1 for e in entries if e.is_flush or e.flags & Flag.FUA]
