"""Score: rounds in which known bugs are looked for, and the same with them switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from fuzzer.campaign.hunt import Trial, hunt
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.scoreboard import Score
from fuzzer.target.targets import Target

_ALL = 1 << 30
"""More runs with findings than there can be."""


def score_seed(
    lane: Lane,
    target: Target,
    wanted: Trial,
    rounds: int,
    off_s: float,
    *,
    directory: Path,
    say: Callable[[str], None],
) -> Iterator[Score]:
    """Rounds with a bug's own workload, as long as each finds it; at last one with the switch off."""
    for number in range(1, rounds + 1):
        (one,) = hunt(lane, target, _numbered(wanted, number), directory=directory, say=say)
        yield one
        if not one.found:
            break
    if off_s:
        off = replace(wanted, on=False, time_s=off_s, enough=_ALL, minimize_s=0.0)
        yield from hunt(lane, target, off, directory=directory, say=say)


def score_together(
    lane: Lane, target: Target, wanted: Trial, rounds: int, *, directory: Path, say: Callable[[str], None]
) -> Iterator[Score]:
    """Rounds in which all bugs are looked for at once, with other workloads than their own."""
    for number in range(1, rounds + 1):
        yield from hunt(lane, target, _numbered(wanted, number), directory=directory, say=say)


def _numbered(wanted: Trial, number: int) -> Trial:
    """Minimizing takes longer than looking, and once is enough to know."""
    return replace(wanted, round=number, minimize_s=wanted.minimize_s if number == 1 else 0.0)
