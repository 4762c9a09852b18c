"""How the wall clock stands to the clock of histories and recorders (CLOCK_MONOTONIC)."""

from __future__ import annotations

from time import CLOCK_REALTIME, clock_gettime_ns, monotonic_ns

_TRIES = 5


def realtime_offset_ns() -> int:
    """CLOCK_REALTIME minus CLOCK_MONOTONIC, now; exact to what two clock readings take.

    Being preempted between the readings would spoil it, so the closest of some tries counts.
    """
    return min(_measure() for _ in range(_TRIES))[1]


def _measure() -> tuple[int, int]:
    """(how long it took, the offset), both in ns."""
    before = monotonic_ns()
    wall = clock_gettime_ns(CLOCK_REALTIME)
    after = monotonic_ns()
    return after - before, wall - (before + after) // 2
