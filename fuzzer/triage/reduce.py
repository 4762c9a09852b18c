"""Reduce a finding: minimize its workload on the kernel at hand, and keep what is left beside it.

In the finding's directory: `minimize.json` (where it stands), `minimized.workload`, and `minimized/`, a
finding of its own with the log, history and crash state of a run of that workload.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzzer.campaign.examine import Care, examine
from fuzzer.campaign.examiner import Forbidden
from fuzzer.campaign.execute import Execution, execute
from fuzzer.campaign.finding import (
    MINIMIZED,
    Finding,
    Origin,
    Saved,
    load_facts,
    make_finding,
    save_finding,
    write_facts,
)
from fuzzer.campaign.lane import Lane
from fuzzer.errors import InputError
from fuzzer.triage.dossier import load_dossier
from fuzzer.triage.minimize import Minimizer, load_progress, save_progress, tidy
from fuzzer.triage.sequential import Rate
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format as format_workload
from fuzzer.writelog.crash import LIVE
from fuzzer.writelog.points import parse_plan

_DEADLINE_S = 15.0
"""Actors of a candidate that wait for each other for ever are killed then."""

_LAST_RUNS = 20
"""Runs that say how often the minimized workload shows the finding."""

_PLAIN = frozenset({"mountable", "readable", "names", "data", "size", "mode", "xattr"})
"""Rules that need no more of a recovery than mounting and reading; checkers cost more than all the rest."""

_NO_CHECKS = Care(full_every=1 << 40)


@dataclass(frozen=True, slots=True)
class Reduced:
    """What came of it: the workload, and how often it and the original show the finding."""

    workload: Workload
    before: Rate
    after: Rate
    runs: int
    done: bool
    """False if it was stopped; it goes on from there the next time."""


@dataclass(slots=True)
class _Runner:
    """Runs workloads and remembers the last one that showed the bucket."""

    lane: Lane
    finding: Finding
    begin: Callable[[Workload], None]
    care: Care
    last: tuple[str, Execution, Forbidden] | None = field(default=None)

    def shows(self, workload: Workload) -> bool:
        """Run once; True if the bucket of the finding shows."""
        facts = self.finding
        self.begin(workload)
        try:
            execution = execute(self.lane, workload, _DEADLINE_S)
        except InputError:
            return False  # options that do not go together
        if execution.history.killed:
            return False
        plan = parse_plan(facts.points)
        examination = examine(
            self.lane, execution, plan, facts.canary, contract=facts.contract, care=self.care
        )
        for forbidden in examination.forbidden:
            if forbidden.filed(facts.fs, facts.canary)[0] == facts.bucket:
                self.last = (format_workload(workload), execution, forbidden)
                return True
        return False


def reduce_finding(
    lane: Lane,
    saved: Saved,
    *,
    expired: Callable[[], bool],
    interrupted: Callable[[], bool],
    say: Callable[[str], None],
    begin: Callable[[Workload], None] = lambda workload: None,
) -> Reduced | None:
    """Minimize until nothing more can be left out, or time has `expired`; None if the finding never shows:
    then what was reached earlier stays.

    What was reached is then measured anew, unless `interrupted`. `begin` hears of each workload before it
    runs.
    """
    path = saved.directory / "minimize.json"
    runner = _Runner(lane, saved.finding, begin, _care(saved))
    minimizer = Minimizer(
        progress=load_progress(path, saved.workload),
        shows=runner.shows,
        saved=lambda progress: save_progress(path, progress),
        say=say,
        stop=lambda: expired() or interrupted(),
    )
    if minimizer.progress.original.hits and not minimizer.shows_still():
        return None
    if not minimizer.run():
        return None
    progress = minimizer.progress
    steps = list(progress.steps)
    progress.steps.append((tidy(progress.best), progress.steps[-1][1]))
    minimizer.stop = interrupted
    after = minimizer.measure_best(_LAST_RUNS)
    result = Reduced(progress.best, steps[0][1], after, progress.runs, progress.done)
    progress.steps[:] = steps
    save_progress(path, progress)
    _keep(saved, result, runner)
    return result


def _care(saved: Saved) -> Care:
    """How closely to look. What is wrong after a clean unmount is seen only by a full look."""
    unmounted = saved.state is not None and load_dossier(saved.directory).cut is LIVE
    return Care() if unmounted or saved.finding.oracle not in _PLAIN else _NO_CHECKS


def _keep(saved: Saved, result: Reduced, runner: _Runner) -> None:
    """Write the workload, and the last run that showed the finding as a finding of its own."""
    text = format_workload(result.workload)
    (saved.directory / "minimized.workload").write_text(text)
    # What was marked meanwhile stays.
    write_facts(saved.directory, replace(load_facts(saved.directory), reproduced=_pair(result.before)))
    if runner.last is None or runner.last[0] != text:
        return
    _, execution, forbidden = runner.last
    facts = saved.finding
    origin = Origin(
        points=facts.points,
        canary=facts.canary,
        contract=facts.contract,
        recorder=facts.recorder,
        kernel=facts.kernel,
        created=facts.created,
        command=f"powercut minimize {facts.id}",
    )
    finding = replace(make_finding(execution, forbidden, origin), reproduced=_pair(result.after))
    place = save_finding(saved.directory / ".minimizing", finding, execution, forbidden)
    target = minimized_directory(saved.directory)
    shutil.rmtree(target, ignore_errors=True)
    place.rename(target)
    place.parent.rmdir()


def _pair(rate: Rate) -> tuple[int, int]:
    return rate.hits, rate.runs


def minimized_directory(finding: Path) -> Path:
    """Where the minimized finding is kept, given the directory of the original."""
    return finding / MINIMIZED
