"""Worker: the process of one lane. Takes workloads, runs the pipe on each, saves findings, reports.

It speaks JSON lines to the coordinator: `workload` after each one, `finding` once a finding is on
disk, `hit` for more of a bucket that has enough examples, `killed` for actors that had to be killed,
`skipped` for workloads this machine cannot run, `minimized` for what a new bug's first finding became.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from fuzzer.campaign.coverage import coverage_of
from fuzzer.campaign.examine import THOROUGH, Care, Reexamination, examine, examine_one, faults_for
from fuzzer.campaign.examiner import Examination, Forbidden
from fuzzer.campaign.execute import Execution, execute
from fuzzer.campaign.finding import Finding, Origin, Saved, load_finding, make_finding, save_finding
from fuzzer.campaign.hang import save_blocked, save_hang
from fuzzer.campaign.lane import Lane, open_lane
from fuzzer.campaign.outcomes import count_outcomes
from fuzzer.campaign.queue import Queue
from fuzzer.campaign.session import now
from fuzzer.campaign.smallest import smallest
from fuzzer.campaign.source import Source
from fuzzer.errors import HangError, InputError
from fuzzer.kernel.beacon import Beacon, Doing, kernel_stacks
from fuzzer.kernel.children import Send, stop_signals
from fuzzer.kernel.probe import missing
from fuzzer.target.targets import Target
from fuzzer.triage.reduce import reduce_finding
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format as format_workload
from fuzzer.writelog.crash import NO_FAULTS
from fuzzer.writelog.points import Plan, Points
from oracles import Violation

STUCK = 71
"""Exit status of a worker that gave up its lane because processes are stuck in the kernel."""

EXAMPLES_PER_BUCKET = 3
"""Findings kept per bucket and worker; further sightings are only counted."""


MINIMIZE_S, MINIMIZE_SHARE = 60.0, 0.1
"""How long a worker minimizes the first finding of a bucket at most, and what part of the time left."""

DEEP_EVERY = 10
"""One workload in this many is also looked at in the states that have to be sampled."""

_DEEP = Plan((Points.FSYNC, Points.SUBSET, Points.TORN, Points.RECOVERY), each=16)


@dataclass(frozen=True, slots=True, kw_only=True)
class FuzzOptions:
    """What a campaign was asked to do. `deadline` is on the monotonic clock, seconds.

    Without a `plan`, workloads are looked at as `plan_of` says.
    """

    directory: Path
    filesystems: tuple[str, ...]
    source: Source
    first: int
    jobs: int
    deadline: float
    recorder: str
    plan: Plan | None
    canary: str
    origin: Origin
    care: Care = THOROUGH
    target: Target | None = None
    """Where the workers are; None: on this host."""
    seen: frozenset[str] = frozenset()
    """Pairs of ops that overlapped in earlier sessions."""


def plan_of(index: int) -> Plan:
    """Which crash states of the `index`-th workload to look at: one in `DEEP_EVERY` is looked at closely."""
    return _DEEP if index % DEEP_EVERY == DEEP_EVERY - 1 else Plan()


def digest(workload: Workload) -> str:
    """What a workload's file is told by; the same for one number of one seed."""
    return hashlib.sha256(format_workload(workload).encode()).hexdigest()[:16]


def work(options: FuzzOptions, number: int, first: int, send: Send, beacon: Beacon) -> int:
    """Run workloads `first`, `first + jobs`, … until the source's end, the deadline or SIGTERM.

    `beacon` says what could hang to whoever started this.
    """
    total = options.source.total
    with stop_signals() as asked_to_stop, open_lane(options.recorder, beacon) as lane:

        def stop() -> bool:
            return asked_to_stop() or time.monotonic() >= options.deadline

        queue = Queue(options.directory / "queue", number)
        worker = _Worker(options, queue, lane, send, stop, Counter(), set(options.seen))
        index = first
        while not stop() and (total is None or index < total):
            worker.run(index, options.source.workload(index, worker.seen))
            index += options.jobs
        queue.clear()
    return 0


@dataclass(slots=True)
class _Worker:
    options: FuzzOptions
    queue: Queue
    lane: Lane
    send: Send
    stop: Callable[[], bool]
    kept: Counter[str]
    seen: set[str]
    """Pairs of ops that overlapped, in earlier sessions or in this process."""

    def run(self, index: int, workload: Workload) -> None:
        """One workload from run to report. Its text is on disk before it runs."""
        started = time.monotonic()
        lacking = [capability.name for capability in missing(workload.capabilities)]
        lacking += ["delay"] if workload.delay and not self.lane.recorder.delays else []
        if lacking:
            self._send(event="skipped", index=index, fs=workload.fs, missing=lacking)
            return
        self.queue.begin(workload)
        try:
            execution = execute(self.lane, workload, views=self.options.source.views(index))
        except HangError as error:
            self._hang(workload, error)
        covered = coverage_of(execution)
        self.seen.update(covered["overlaps"])
        plan = self.options.plan or plan_of(index)
        examination = self._examine(execution, plan)
        self._report(execution, examination, plan)
        self._send(
            event="workload",
            index=index,
            fs=workload.fs,
            digest=digest(workload),
            workloads=1,
            crash_states=examination.states,
            unique_states=examination.unique,
            **examination.tally.to_json(),
            ops=count_outcomes(execution.history),
            coverage=covered,
            seconds=round(time.monotonic() - started, 3),
        )
        if execution.history.killed:
            self._send(event="killed", index=index, fs=workload.fs, actors=list(execution.history.killed))

    def _examine(self, execution: Execution, plan: Plan) -> Examination:
        """All crash states; each is named on disk before the kernel sees it."""
        options = self.options
        with self.queue.recovering(execution) as states:
            return examine(
                self.lane,
                execution,
                plan,
                options.canary,
                contract=options.origin.contract,
                stop=self.stop,
                care=options.care,
                announce=states.name,
            )

    def _report(self, execution: Execution, examination: Examination, plan: Plan) -> None:
        faults = faults_for(execution, plan, self.options.canary)
        descends = execution.workload.descends
        for forbidden in examination.forbidden:
            self.kept[forbidden.bucket] += 1
            if self.kept[forbidden.bucket] > EXAMPLES_PER_BUCKET:
                bucket, known = forbidden.filed(execution.workload.fs, self.options.canary)
                self._send(event="hit", bucket=bucket, known=known, descends=descends)
                continue
            retry = Reexamination(self.lane, execution, faults, self.options.origin.contract)
            small = smallest(retry, forbidden)
            finding = make_finding(execution, small, self._origin(execution, small, plan))
            place = save_finding(self.options.directory / "findings", finding, execution, small)
            self._send(event="finding", canary=finding.canary, descends=descends, **finding.summary())
            if self._is_worth_minimizing(finding, forbidden):
                self._minimize(load_finding(place))

    def _is_worth_minimizing(self, finding: Finding, forbidden: Forbidden) -> bool:
        """Only what is new, and of workloads without end: short ones of a sweep are as small as can be."""
        first = self.kept[forbidden.bucket] == 1
        return first and not (finding.known or finding.canary) and self.options.source.total is None

    def _minimize(self, saved: Saved) -> None:
        """Minimize for a while; each try is on disk before it runs. `powercut minimize` goes on."""
        began, tried = time.monotonic(), saved.workload
        limit_s = min(MINIMIZE_S, MINIMIZE_SHARE * (self.options.deadline - began))

        def note(workload: Workload) -> None:
            nonlocal tried
            tried = workload
            self.queue.begin(workload)

        def expired() -> bool:
            return self.stop() or time.monotonic() - began > limit_s

        try:
            result = reduce_finding(
                self.lane, saved, expired=expired, interrupted=expired, say=lambda line: None, begin=note
            )
        except HangError as error:
            self._hang(tried, error)
        if result is not None:
            pair = (saved.finding.ops, sum(1 for _ in result.workload.iter_ops()))
            self._send(event="minimized", id=saved.finding.id, ops=pair, runs=result.runs, done=result.done)

    def _origin(self, execution: Execution, forbidden: Forbidden, plan: Plan) -> Origin:
        """A finding counts for the canary only if the same state is allowed without the damage."""
        origin = replace(self.options.origin, points=str(plan), created=now())
        if not origin.canary:
            return origin
        state = forbidden.state
        try:
            honest = (
                examine_one(self.lane, execution, state, NO_FAULTS, forbidden.recoveries, origin.contract)
                if state
                else forbidden
            )
        except InputError:
            honest = None  # An honest device cannot even leave this state behind.
        shows = honest is None or not _breaks(honest, forbidden.judgement.violations[0])
        return origin if shows else replace(origin, canary="")

    def _hang(self, workload: Workload, error: HangError) -> NoReturn:
        """Actors that could not be killed: report, and leave; the coordinator cleans up."""
        finding = save_hang(self.options.directory / "findings", workload, error, self.options.origin)
        self._send(event="finding", canary="", descends=workload.descends, **finding.summary())
        os._exit(STUCK)

    def _send(self, **event: object) -> None:
        self.send(json.dumps(event))


def save_stuck(options: FuzzOptions, number: int, index: int, pid: int, doing: Doing) -> Finding:
    """Save a finding for the worker of lane `number` that hangs, with process `pid`, in workload `index`."""
    plan = options.plan or plan_of(index)
    return save_blocked(
        Queue(options.directory / "queue", number),
        doing.step,
        kernel_stacks(pid),
        options.directory / "findings",
        replace(options.origin, points=str(plan)),
    )


def _breaks(forbidden: Forbidden, violation: Violation) -> bool:
    """True if this promise is broken in the state too, whatever else is."""
    same = (violation.rule, violation.kind, violation.subject)
    return any((v.rule, v.kind, v.subject) == same for v in forbidden.judgement.violations)
