"""Minimize what bugs planted in the model show: `python tests/unit/oracle_minimize.py` prints a table.

The workloads are random ones of three actors with nine ops each; a run is one schedule of the model, with its
crashes. What is asked of a candidate is what a campaign asks: does the finding's bucket show?
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from statistics import median

import click
from oracle_bugs import BUGS, Bug
from oracle_planted import run_planted

from fuzzer.triage.minimize import Minimizer, Progress, size
from fuzzer.triage.sequential import Rate
from fuzzer.workload.model import Workload

_SEEDS = 1000
"""Workloads in which a bug is looked for."""

_LAST_RUNS = 40
_MOST_RUNS = 6_000


@dataclass(frozen=True)
class Minimized:
    """One bug's finding, before and after."""

    bug: Bug
    fs: str
    original: Workload
    workload: Workload
    bucket: str
    before: Rate
    after: Rate
    runs: int
    seconds: float

    @property
    def ops(self) -> tuple[int, int]:
        return size(self.original), size(self.workload)


def found_in(bug: Bug, fs: str, own: bool = True) -> Iterator[tuple[Workload, str]]:
    """Workloads that show the bug, and the bucket each is filed under. `own`: by what its row waits for."""
    for seed in range(_SEEDS):
        run = run_planted(bug, fs, seed)
        found = next((label.bucket for label, expected in run.findings() if expected or not own), None)
        if found is not None:
            yield run.workload, found


def minimize(bug: Bug, fs: str, workload: Workload, bucket: str) -> Minimized | None:
    """Minimize as a campaign does; None if the bucket does not show in other schedules."""
    started, seeds = time.monotonic(), count(1000)

    def shows(candidate: Workload) -> bool:
        return any(
            found.bucket == bucket for found, _ in run_planted(bug, fs, next(seeds), candidate).findings()
        )

    minimizer = Minimizer(
        progress=Progress(steps=[(workload, Rate())]),
        shows=shows,
        stop=lambda: minimizer.progress.runs > _MOST_RUNS,
    )
    if not minimizer.run():
        return None
    minimizer.stop = lambda: False
    after = minimizer.measure_best(_LAST_RUNS)
    progress = minimizer.progress
    seconds = time.monotonic() - started
    return Minimized(
        bug, fs, workload, progress.best, bucket, progress.original, after, progress.runs, seconds
    )


def minimize_first(bug: Bug, fs: str) -> Minimized | None:
    """Minimize the first finding of a bug that shows again."""
    tried = (minimize(bug, fs, *found) for found in found_in(bug, fs))
    return next((done for done in tried if done is not None), None)


def main(names: list[str]) -> None:
    """The table: every bug on every file system it can be in, or those with one of `names` in their name."""
    click.echo("| planted in the model | fs | ops before | after | rate before | after | runs | seconds |")
    click.echo("|---|---|---|---|---|---|---|---|")
    wanted = [bug for bug in BUGS if not names or any(name in bug.name for name in names)]
    sizes = []
    for one, fs in ((bug, fs) for bug in wanted for fs in bug.fs):
        done = minimize_first(one, fs)
        if done is None:
            click.echo(f"| {one} | {fs} | not found | | | | | |")
            continue
        before, after = done.ops
        sizes.append(after)
        row = (one, fs, before, after, done.before, done.after, done.runs, f"{done.seconds:.1f}")
        click.echo(f"| {' | '.join(map(str, row))} |")
    click.echo(f"\n{len(sizes)} findings: median {median(sizes)} ops, largest {max(sizes)}")


if __name__ == "__main__":
    main(sys.argv[1:])
