"""Score: are the documented races found on a kernel that has them, and is all silent on one without?

The kernel is one and the same: the fix of each race can be taken out at run time. The guest runs
workloads, and its executions are examined here. With a race's own workload whatever is found counts, since
nothing is with the switch off. Other workloads show other bugs of that kernel as well: there a finding
counts only if it comes again with the switch on, and never with it off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzzer.campaign.corpus import load_corpus, workload_of
from fuzzer.campaign.examine import examine
from fuzzer.campaign.examiner import Forbidden
from fuzzer.campaign.execute import Execution
from fuzzer.campaign.finding import load_facts, make_finding, save_finding
from fuzzer.campaign.guestwork import minimize_in_guest, recorded
from fuzzer.campaign.index import open_index
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.recording import Task
from fuzzer.campaign.scoreboard import MIXED, SEED, Score
from fuzzer.campaign.session import origin
from fuzzer.campaign.source import Generated, Listed, Source
from fuzzer.errors import LostWorkerError
from fuzzer.target.machine import Guest, open_guest
from fuzzer.target.targets import Target
from fuzzer.triage.known import load_known
from fuzzer.workload.model import Workload
from fuzzer.workload.text import parse_bytes
from fuzzer.writelog.points import parse_plan

_POINTS = "fsync"
_MANY = 100_000
_CORPUS_PERCENT = 25
_ON_RUNS, _ENOUGH_AGAIN, _OFF_RUNS = 5, 2, 10
"""A bug of this kernel that shows in a fifth of all runs passes for the switch's one time in forty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One round: the bug, where workloads come from (one of `ORIGINS`), and how long to look.

    It ends when `enough` workloads showed the bug; one that is then `minimized` takes that long, too.
    """

    bug: str
    fs: str
    origin: str
    time_s: float
    round: int = 1
    on: bool = True
    enough: int = 1
    minimize_s: float = 0.0

    @property
    def switches(self) -> dict[str, str]:
        return {self.bug: "1"} if self.on else {}

    def seed(self) -> Workload:
        """The bug's own entry of the corpus."""
        path = workload_of(self.bug)
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


def score(lane: Lane, target: Target, trial: Trial, *, directory: Path, say: Callable[[str], None]) -> Score:
    """Look for a bug in a guest, until there is enough or the time is over. What showed it first is saved
    as a finding in `directory`, the one the guest may write to."""
    name = f"{trial.bug} from {trial.origin}, {'on' if trial.on else 'off'}"
    started = Score(bug=trial.bug, origin=trial.origin, round=trial.round, switched_on=trial.on)
    hunt = _Hunt(lane, target, trial, directory, lambda text: say(f"{name}: {text}"), started)
    hunt.run()
    return replace(hunt.score, seconds=round(hunt.seconds, 1))


def score_rounds(
    lane: Lane,
    target: Target,
    wanted: Trial,
    rounds: int,
    off_s: float,
    *,
    directory: Path,
    say: Callable[[str], None],
) -> Iterator[Score]:
    """Some rounds, as long as each finds the bug; of its own workload at last one with the switch off."""
    for number in range(1, rounds + 1):
        # Minimizing takes longer than looking, and once is enough to know.
        trial = replace(wanted, round=number, minimize_s=wanted.minimize_s if number == 1 else 0.0)
        one = score(lane, target, trial, directory=directory, say=say)
        yield one
        if not one.found:
            break
    if wanted.origin == SEED and off_s:
        off = replace(wanted, on=False, time_s=off_s, enough=_MANY, minimize_s=0.0)
        yield score(lane, target, off, directory=directory, say=say)


@dataclass(slots=True)
class _Hunt:
    """One round as it goes on."""

    lane: Lane
    target: Target
    trial: Trial
    directory: Path
    say: Callable[[str], None]
    score: Score
    next: int = 0
    """Number of the workload to go on with."""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def _is_over(self) -> bool:
        return self.score.found >= self.trial.enough or self.seconds >= self.trial.time_s

    def run(self) -> None:
        """A guest after the other, if they are lost."""
        while not self._is_over():
            try:
                plan, boot_s = self.target.plan(), self.target.boot_s
                with open_guest(plan, exchange=self.directory, boot_s=boot_s) as guest:
                    self._look(guest)
            except LostWorkerError as error:
                self._lose(error)
                if self.trial.origin == SEED:
                    return

    def _look(self, guest: Guest) -> None:
        while not self._is_over():
            suspect = self._search(guest)
            if suspect is None:
                continue  # The time is over.
            execution, forbidden = suspect
            if self.trial.origin == SEED or self._comes_again(guest, execution.workload, forbidden.bucket):
                self._take(execution, forbidden)
                if self.trial.minimize_s and self.score.found == 1:
                    self._minimize(guest)
            else:
                self.score = replace(self.score, rejected=self.score.rejected + 1)

    # --------------------------------------------------------------------------------------- workloads

    def _search(self, guest: Guest) -> tuple[Execution, Forbidden] | None:
        """Run workloads until one shows the bug, or what may be it."""
        trial, before = self.trial, 0
        task = Task(source=trial.source(), first=self.next, recorder=trial.recorder)
        left_s = max(0.0, trial.time_s - self.seconds)
        with recorded(guest, self.target, task, trial.switches, left_s) as executions:
            for counts, execution in executions:
                hits = counts.hits.get(trial.bug, 0)
                forbidden = self._suspect(execution, hits > before)
                self.next, more, before = counts.index + 1, hits - before, hits
                runs = self.score.runs + 1
                self.score = replace(self.score, runs=runs, hits=self.score.hits + more)
                self.say(f"workload {runs}, {self.score.hits} hits{', a finding' if forbidden else ''}")
                if forbidden is not None:
                    return execution, forbidden
        return None

    def _suspect(self, execution: Execution, hit: bool) -> Forbidden | None:
        """What the round is looking for, if it may be in this execution."""
        found = examine(self.lane, execution, parse_plan(_POINTS)).forbidden
        if self.trial.origin == SEED:
            return next(iter(found), None)
        return next((one for one in found if hit and one.known not in _others()), None)

    def _comes_again(self, guest: Guest, workload: Workload, bucket: str) -> bool:
        """True if the bucket shows again with the switch on, and only then."""
        on = self._shown(guest, workload, bucket, self.trial.switches, _ON_RUNS)
        off = self._shown(guest, workload, bucket, {}, _OFF_RUNS) if on >= _ENOUGH_AGAIN else -1
        told = "not run" if off < 0 else f"{off}/{_OFF_RUNS}"
        self.say(f"{bucket} comes again in {on}/{_ON_RUNS} runs; off: {told}")
        if off == 0 and not self.score.found:
            self.score = replace(self.score, again=(on, _ON_RUNS))
        return off == 0

    def _shown(
        self, guest: Guest, workload: Workload, bucket: str, switches: Mapping[str, str], times: int
    ) -> int:
        task, shown = Task(source=Listed((workload,), times)), 0
        with recorded(guest, self.target, task, switches, self.target.silent_s) as executions:
            for _, execution in executions:
                found = examine(self.lane, execution, parse_plan(_POINTS)).forbidden
                shown += any(one.bucket == bucket for one in found)
        return shown

    # ---------------------------------------------------------------------------------------- findings

    def _take(self, execution: Execution, forbidden: Forbidden) -> None:
        """Count it; the first is saved."""
        one = self.score
        if not one.found:
            finding = self._save(execution, forbidden)
            one = replace(one, first_s=round(self.seconds, 1), first_run=one.runs, finding=finding)
        buckets = tuple(sorted({*one.buckets, forbidden.bucket}))
        self.score = replace(one, found=one.found + 1, buckets=buckets)

    def _save(self, execution: Execution, forbidden: Forbidden) -> str:
        """Save a finding; returns its id."""
        facts = origin(points=_POINTS, canary="", recorder=self.trial.recorder)
        finding = make_finding(execution, forbidden, replace(facts, kernel=self.target.kernel.release))
        place = save_finding(self.directory / "findings", finding, execution, forbidden)
        with open_index(self.directory, create=True) as index:
            index.put_finding(load_facts(place))
        return finding.id

    def _minimize(self, guest: Guest) -> None:
        trial, one = self.trial, self.score
        self.say(f"minimizing {one.finding}")
        told = minimize_in_guest(guest, self.target, one.finding, trial.switches, trial.minimize_s)
        if told is not None:
            self.score = replace(one, ops=told.ops, minimized=told.after)

    def _lose(self, error: LostWorkerError) -> None:
        """A guest that is lost is what a race's own workload may be about; else it is only told."""
        self.say(str(error))
        one = replace(self.score, lost=str(error))
        if self.trial.origin == SEED and not one.found:
            runs, now = one.runs + 1, round(self.seconds, 1)
            one = replace(one, runs=runs, found=1, first_s=now, first_run=runs, buckets=("guest-lost",))
        self.score = one
        self.next += 1


def _others() -> frozenset[str]:
    """Ids of known bugs that no switch of a kernel of ours is needed for."""
    return frozenset(bug.id for bug in load_known() if not bug.taken_out)
