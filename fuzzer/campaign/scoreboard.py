"""Scoreboard: what came of looking for known bugs, as numbers and as a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SEED, MIXED, GENERATED = "seed", "mixed", "generation"
ORIGINS = (SEED, MIXED, GENERATED)
"""Where workloads come from: the bug's own entry of the corpus; new ones, with the corpus and its mutations
among them; new ones alone."""

_HEADS = (
    *("bug", "workloads from", "found", "first after: median (worst)", "workloads until then", "hits"),
    *("again", "minimized", "off"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What came of one round: looking for one bug for a while, or the same with its fix in.

    `runs` workloads were run, `found` of them showed it. `seconds` count from the start of the guest, boot
    included; `first_s` and `first_run` tell when the first finding was known (-1: never), `hits` how often
    the kernel did what the fix prevents, up to the last execution that was saved.
    """

    bug: str
    origin: str
    round: int
    switched_on: bool
    runs: int = 0
    found: int = 0
    first_s: float = -1.0
    first_run: int = -1
    seconds: float = 0.0
    hits: int = 0
    buckets: tuple[str, ...] = ()
    lost: str = ""
    """How the guest died, if it did; for a bug whose symptom is a panic this is the finding."""
    again: tuple[int, int] = (0, 0)
    """How often the first workload that showed it did so when run again, in how many runs; with the switch
    off it never did, or it was not counted."""
    rejected: int = 0
    """Workloads with a finding of something else: it showed with the switch off as well, or not again."""
    finding: str = ""
    """Id of the first finding."""
    ops: tuple[int, int] = (0, 0)
    """Ops of its workload, before and after it was minimized."""
    minimized: tuple[int, int] = (0, 0)
    """How often the minimized workload shows it, in how many runs."""


def format_scores(scores: Sequence[Score]) -> str:
    """A table in Markdown, a row for each bug and where its workloads came from."""
    rows = [_row(_HEADS), _row(["---"] * len(_HEADS))]
    for bug, origin in dict.fromkeys((one.bug, one.origin) for one in scores):
        mine = [one for one in scores if (one.bug, one.origin) == (bug, origin)]
        rows.append(_row(_cells([one for one in mine if one.switched_on], mine)))
    return "\n".join(rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(rounds: Sequence[Score], all_of_it: Sequence[Score]) -> tuple[str, ...]:
    found = [one for one in rounds if one.found]
    off = [one for one in all_of_it if not one.switched_on]
    return (
        all_of_it[0].bug,
        all_of_it[0].origin,
        f"in {len(found)} of {len(rounds)} rounds",
        _spread([one.first_s for one in found], " s") if found else f"not in {_longest(rounds):.0f} s",
        _spread([float(one.first_run) for one in found]),
        str(sum(one.hits for one in rounds)),
        _share(found, "again"),
        _minimized(found),
        f"{sum(one.found for one in off)} of {sum(one.runs for one in off)} runs" if off else "",
    )


def _longest(rounds: Sequence[Score]) -> float:
    return max((one.seconds for one in rounds), default=0.0)


def _spread(values: Sequence[float], unit: str = "") -> str:
    return f"{statistics.median(values):.0f}{unit} ({max(values):.0f}{unit})" if values else ""


def _share(found: Sequence[Score], field: str) -> str:
    """k/n over all rounds."""
    pairs = [getattr(one, field) for one in found]
    runs = sum(n for _, n in pairs)
    return f"{sum(k for k, _ in pairs)}/{runs}" if runs else ""


def _minimized(found: Sequence[Score]) -> str:
    done = [one for one in found if one.minimized[1]]
    words = (f"{one.ops[0]} to {one.ops[1]} ops, {one.minimized[0]}/{one.minimized[1]}" for one in done)
    return "; ".join(words)
