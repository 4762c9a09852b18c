"""Smallest: the finding in the smallest crash state that still shows it, found on the recorded log."""

from __future__ import annotations

from dataclasses import replace

from fuzzer.campaign.again import innermost
from fuzzer.campaign.examine import Reexamination, end_state
from fuzzer.campaign.examiner import Forbidden
from fuzzer.campaign.recover import FULL, SHALLOW, Depth
from fuzzer.writelog.crash import CrashState
from fuzzer.writelog.smallest import smallest_state

TRIES = 40
"""States looked at per finding: about as long as one more workload."""


def smallest(retry: Reexamination, found: Forbidden) -> Forbidden:
    """`found` in the smallest state of the same bucket; `found` itself if there is none, or no crash.

    A state without the second crash is smaller than any with it; else only the last cut is changed, since
    the logs of recoveries belong to the states before them.
    """
    state, execution, faults = found.state, retry.execution, retry.faults
    if state is None or state == end_state(execution):
        return found
    depth = next((d for d in (SHALLOW, FULL) if _shown(retry, found, state, d)), None)
    if depth is None:
        return found  # Once is once: the kernel does not always recover alike.
    while state.again is not None and _shown(retry, found, outer := _without_last(state), depth):
        state = outer
    last = innermost(state)
    log = found.recoveries[_cuts(state) - 2] if state.again else execution.log
    smaller = smallest_state(
        log.entries,
        last,
        lambda one: _shown(retry, found, _with_last(state, one), depth) is not None,
        start=0 if state.again else execution.log.start,
        dead_flushes=frozenset() if state.again else faults.dead_flushes,
        tries=TRIES,
    )
    return _shown(retry, found, _with_last(state, smaller), depth) or found


def _shown(retry: Reexamination, found: Forbidden, state: CrashState, depth: Depth) -> Forbidden | None:
    again = retry.look(state, found.recoveries[: _cuts(state) - 1], (depth,))
    return again if again is not None and again.bucket == found.bucket else None


def _cuts(state: CrashState) -> int:
    return 1 if state.again is None else 1 + _cuts(state.again.state)


def _with_last(state: CrashState, last: CrashState) -> CrashState:
    """`state` with its innermost cut replaced."""
    if state.again is None:
        return last
    return replace(state, again=replace(state.again, state=_with_last(state.again.state, last)))


def _without_last(state: CrashState) -> CrashState:
    """`state` without its innermost cut."""
    if state.again is None or state.again.state.again is None:
        return replace(state, again=None)
    return replace(state, again=replace(state.again, state=_without_last(state.again.state)))
