"""Waiting for other actors: a short spin, so that actors leave together, then sleeps."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

from fuzzer.kernel.shared import Board
from fuzzer.workload.model import SETUP, Workload

_SPIN_S = 0.0002
_NAP_S = 0.00005

BARRIER_TIMEOUT_S = 2.0
"""Two barriers taken in opposite orders would wait for each other for ever: one gives up after this."""


def spin_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for `condition`; False if it does not come true in time."""
    start = time.monotonic()
    while not condition():
        waited = time.monotonic() - start
        if waited > timeout_s:
            return False
        if waited < _SPIN_S:
            os.sched_yield()
        else:
            time.sleep(_NAP_S)
    return True


class Barriers:
    """The barriers of a workload as one actor sees them."""

    __slots__ = ("_actor", "_board", "_others")

    def __init__(self, workload: Workload, actor: int, board: Board) -> None:
        self._actor = actor
        self._board = board
        self._others = _other_users(workload, actor)

    def wait(self, barrier: str) -> None:
        """Wait until every other actor that uses `barrier` came as often, or ended.

        OSError with ETIMEDOUT after `BARRIER_TIMEOUT_S`.
        """
        times = self._board.arrive(self._actor, barrier)
        others = self._others[barrier]
        if not spin_until(lambda: self._board.all_arrived(others, barrier, times), BARRIER_TIMEOUT_S):
            raise TimeoutError(errno.ETIMEDOUT, f"barrier {barrier}")


def _other_users(workload: Workload, actor: int) -> dict[str, tuple[int, ...]]:
    """For each barrier of `actor`: the actors that use it too. The setup runs alone."""
    used = {
        number: {op.text("name") for op in workload.block(number) if op.name == "barrier"}
        for number in range(len(workload.actors) + 1)
    }
    return {
        name: tuple(n for n, names in used.items() if n not in (actor, SETUP) and name in names and actor)
        for name in used[actor]
    }
