"""Hunt: are the documented races found on a kernel that has them, and is all silent on one without?

The kernel is one and the same: the fix of each race can be taken out at run time. The guest runs
workloads, and its executions are examined here. Findings of known bugs that kernel has anyway do not count.
With a race's own workload whatever else is found does, since nothing is with the switch off. Other workloads
are tried with many switches on at once: there a finding counts only if it never shows with all of them off,
and for those bugs with which alone it comes again. What is found is switched off, so that it does not hide
the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzzer.campaign.corpus import load_corpus, workload_of
from fuzzer.campaign.examine import examine
from fuzzer.campaign.examiner import Forbidden
from fuzzer.campaign.execute import Execution
from fuzzer.campaign.finding import load_facts, make_finding, save_finding
from fuzzer.campaign.guestwork import forget_recordings, minimize_in_guest, recorded
from fuzzer.campaign.index import open_index
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.recording import Task
from fuzzer.campaign.scoreboard import MIXED, SEED, Score
from fuzzer.campaign.session import origin
from fuzzer.campaign.source import Generated, Listed, Source
from fuzzer.errors import LostWorkerError
from fuzzer.state.view import MORE_VIEWS
from fuzzer.target.machine import Guest, open_guest
from fuzzer.target.targets import Target
from fuzzer.triage.known import load_known
from fuzzer.workload.model import Workload
from fuzzer.workload.text import parse_bytes
from fuzzer.writelog.points import parse_plan

_POINTS = "fsync"
_MANY = 100_000
_DEADLINE_S = 15.0
"""Actors of a workload that wait for each other for ever are killed then."""
_PATIENCE_S = 90.0
"""Within it the runs that tell whose a finding is have to be done, or enough of those with nothing on."""
_CORPUS_PERCENT = 25
_OFF_RUNS, _ENOUGH_OFF, _FIRST_RUNS, _MORE_RUNS, _ENOUGH_AGAIN = 10, 5, 2, 3, 2
"""Runs with nothing on, and with one bug: those of which the first show nothing get no more. A bug of this
kernel that shows in a fifth of all runs passes for a switch's one time in forty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One round: the bugs that are looked for, where workloads come from (one of `ORIGINS`), and how long.

    A bug is found when `enough` workloads showed it; then its first finding is minimized for `minimize_s`.
    """

    bugs: tuple[str, ...]
    """Only one if workloads are its own (SEED)."""
    fs: str
    origin: str
    time_s: float
    round: int = 1
    on: bool = True
    enough: int = 1
    minimize_s: float = 0.0

    def seed(self) -> Workload:
        """The bug's own entry of the corpus."""
        path = workload_of(*self.bugs)
        return parse_bytes(path.read_bytes(), str(path)).with_fs(self.fs)

    def source(self) -> Source:
        """Its workloads; those of a round are the same each time."""
        if self.origin == SEED:
            return Listed((self.seed(),), _MANY)
        corpus = load_corpus() if self.origin == MIXED else ()
        # What runs in the guest records with device-mapper, which holds nothing back.
        return Generated(self.round, (self.fs,), corpus, _CORPUS_PERCENT if corpus else 0, delays=False)

    @property
    def recorder(self) -> str:
        """Only the one of ours can hold requests back."""
        return "fuse" if self.origin == SEED and self.seed().delay else "auto"


def hunt(
    lane: Lane, target: Target, trial: Trial, *, directory: Path, say: Callable[[str], None]
) -> tuple[Score, ...]:
    """Look for bugs in a guest, until all are found or the time is over; a score for each. What showed
    one first is saved as a finding in `directory`, the one the guest may write to."""
    name = f"{trial.origin} {'on' if trial.on else 'off'}, round {trial.round}"
    name = f"{trial.bugs[0]} from {name}" if len(trial.bugs) == 1 else f"{len(trial.bugs)} bugs from {name}"
    round_ = _Hunt(lane, target, trial, directory, lambda text: say(f"{name}: {text}"))
    round_.run()
    return tuple(round_.scores.values())


@dataclass(frozen=True, slots=True)
class _Suspect:
    """An execution that may show what is looked for; `bugs` are those that took effect in it."""

    execution: Execution
    found: tuple[Forbidden, ...]
    bugs: tuple[str, ...]

    @property
    def buckets(self) -> frozenset[str]:
        return frozenset(one.bucket for one in self.found)


@dataclass(slots=True)
class _Hunt:
    """One round as it goes on."""

    lane: Lane
    target: Target
    trial: Trial
    directory: Path
    say: Callable[[str], None]
    scores: dict[str, Score] = field(default_factory=dict)
    next: int = 0
    """Number of the workload to go on with."""
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        trial = self.trial
        for bug in trial.bugs:
            self.scores[bug] = Score(bug=bug, origin=trial.origin, round=trial.round, switched_on=trial.on)

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 1)

    def wanted(self) -> tuple[str, ...]:
        """The bugs not found so far."""
        return tuple(bug for bug, one in self.scores.items() if one.found < self.trial.enough)

    def _is_over(self) -> bool:
        return not self.wanted() or self.seconds >= self.trial.time_s

    def _switches(self, bugs: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(bugs, "1") if self.trial.on else {}

    def _note(self, bugs: Sequence[str], **changes: object) -> None:
        for bug in bugs:
            self.scores[bug] = replace(self.scores[bug], **changes)  # type: ignore[arg-type]

    def run(self) -> None:
        """A guest after the other, if they are lost."""
        while not self._is_over():
            try:
                plan, boot_s = self.target.plan(), self.target.boot_s
                with open_guest(plan, exchange=self.directory, boot_s=boot_s) as guest:
                    self._look(guest)
                    self._minimize(guest)
            except LostWorkerError as error:
                self._lose(error)
                if self.trial.origin == SEED:
                    break
            finally:
                forget_recordings(self.directory)
        self._note(self.wanted(), seconds=self.seconds)

    def _look(self, guest: Guest) -> None:
        while not self._is_over():
            suspect = self._search(guest)
            if suspect is None:
                continue  # The time is over.
            if self.trial.origin == SEED:
                self._take(self.trial.bugs[0], suspect.execution, suspect.found[0])
            else:
                self._try(guest, suspect)

    # --------------------------------------------------------------------------------------- workloads

    def _search(self, guest: Guest) -> _Suspect | None:
        """Run workloads until one shows a bug, or what may be one."""
        trial, bugs = self.trial, self.wanted()
        task = self._task(trial.source(), self.next)
        before: Mapping[str, int] = {}
        left_s = max(0.0, trial.time_s - self.seconds)
        with recorded(guest, self.target, task, self._switches(bugs), left_s) as executions:
            for counts, execution in executions:
                more = {bug: counts.hits.get(bug, 0) - before.get(bug, 0) for bug in bugs}
                before, self.next = counts.hits, counts.index + 1
                for bug in bugs:
                    one = self.scores[bug]
                    self.scores[bug] = replace(one, runs=one.runs + 1, hits=one.hits + more[bug])
                suspect = self._suspect(execution, tuple(bug for bug in bugs if more[bug]))
                told = "" if suspect is None else f": {', '.join(sorted(suspect.buckets))}"
                self.say(f"workload {self.scores[bugs[0]].runs}, {sum(more.values())} hits{told}")
                if suspect is not None:
                    return suspect
        return None

    def _suspect(self, execution: Execution, hit: tuple[str, ...]) -> _Suspect | None:
        """The execution, if what the round is looking for may be in it."""
        found = examine(self.lane, execution, parse_plan(_POINTS)).forbidden
        others = _others()
        found = tuple(one for one in found if one.known not in others)
        if self.trial.origin != SEED and not hit:
            return None
        return _Suspect(execution, found, hit) if found else None

    def _try(self, guest: Guest, suspect: _Suspect) -> None:
        """Find out which bugs it shows: alone, and not without any."""
        shown, runs = self._again(guest, suspect, (), _OFF_RUNS, enough=1)
        if shown or runs < _ENOUGH_OFF:
            self._reject("shows with all of them off" if shown else "takes too long to be tried again")
            return
        taken = [bug for bug in suspect.bugs if self._shows_alone(guest, suspect, bug)]
        if taken:
            self.say(f"found {', '.join(taken)}")
        else:
            self._reject(f"shows with none of {', '.join(suspect.bugs)} alone")

    def _shows_alone(self, guest: Guest, suspect: _Suspect, bug: str) -> bool:
        """Run it with just this bug on, and count it if that shows the finding."""
        again, _ = self._again(guest, suspect, (bug,), _FIRST_RUNS)
        again += self._again(guest, suspect, (bug,), _MORE_RUNS)[0] if again else []
        if len(again) < _ENOUGH_AGAIN:
            return False
        if not self.scores[bug].found:
            self._note((bug,), again=(len(again), _FIRST_RUNS + _MORE_RUNS))
        self._take(bug, *again[0])
        return True

    def _reject(self, why: str) -> None:
        self.say(f"not counted: {why}")
        for bug in self.wanted():
            self._note((bug,), rejected=self.scores[bug].rejected + 1)

    def _again(
        self, guest: Guest, suspect: _Suspect, bugs: Sequence[str], times: int, enough: int = _MANY
    ) -> tuple[list[tuple[Execution, Forbidden]], int]:
        """Run its workload again with just these bugs on. Returns the runs that show one of its buckets, and
        how many there were: fewer if `enough` have shown it, or if they take too long."""
        task = self._task(Listed((suspect.execution.workload,), times))
        shown: list[tuple[Execution, Forbidden]] = []
        runs = 0
        with recorded(guest, self.target, task, self._switches(bugs), _PATIENCE_S) as executions:
            for _, execution in executions:
                runs += 1
                found = examine(self.lane, execution, parse_plan(_POINTS)).forbidden
                shown += [(execution, one) for one in found if one.bucket in suspect.buckets][:1]
                if len(shown) >= enough:
                    break
        return shown, runs

    def _task(self, source: Source, first: int = 0) -> Task:
        """A bug's own workload is looked at from all sides and may take long, others are not to."""
        if self.trial.origin == SEED:
            return Task(source=source, first=first, recorder=self.trial.recorder, views=MORE_VIEWS)
        return Task(source=source, first=first, deadline_s=_DEADLINE_S)

    # ---------------------------------------------------------------------------------------- findings

    def _take(self, bug: str, execution: Execution, forbidden: Forbidden) -> None:
        """Count it; the first is saved."""
        one = self.scores[bug]
        if not one.found:
            finding = self._save(execution, forbidden)
            self._note((bug,), first_s=self.seconds, first_run=one.runs, finding=finding)
        buckets = tuple(sorted({*one.buckets, forbidden.bucket}))
        self._note((bug,), found=one.found + 1, buckets=buckets, seconds=self.seconds)

    def _save(self, execution: Execution, forbidden: Forbidden) -> str:
        """Save a finding; returns its id."""
        facts = origin(points=_POINTS, canary="", recorder=self.trial.recorder)
        finding = make_finding(execution, forbidden, replace(facts, kernel=self.target.kernel.release))
        place = save_finding(self.directory / "findings", finding, execution, forbidden)
        with open_index(self.directory, create=True) as index:
            index.put_finding(load_facts(place))
        return finding.id

    def _minimize(self, guest: Guest) -> None:
        """Minimize the first finding of each bug that was found, with nothing else on."""
        limit_s = self.trial.minimize_s
        for bug, one in self.scores.items() if limit_s else ():
            if one.finding and not one.minimized[1]:
                self.say(f"minimizing {one.finding}")
                told = minimize_in_guest(guest, self.target, one.finding, self._switches((bug,)), limit_s)
                if told is not None:
                    self._note((bug,), ops=told.ops, minimized=told.after)

    def _lose(self, error: LostWorkerError) -> None:
        """A guest that is lost is what a race's own workload may be about; else it is only told."""
        self.say(str(error))
        wanted = self.wanted()
        self._note(wanted, lost=str(error))
        self.next += 1
        if self.trial.origin == SEED and wanted:
            runs = self.scores[wanted[0]].runs + 1
            first = {"first_s": self.seconds, "first_run": runs} if not self.scores[wanted[0]].found else {}
            found = self.scores[wanted[0]].found + 1
            self._note(wanted, runs=runs, found=found, buckets=("guest-lost",), **first)


def _others() -> frozenset[str]:
    """Ids of known bugs that no switch of a kernel of ours is needed for."""
    return frozenset(bug.id for bug in load_known() if not bug.taken_out)
