"""Run: one workload, n times, and how often it broke a promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzer.campaign.examine import Reexamination, examine, examine_one, faults_for
from fuzzer.campaign.examiner import Examination, Forbidden
from fuzzer.campaign.execute import Execution, execute
from fuzzer.campaign.finding import (
    Finding,
    Origin,
    Saved,
    load_recoveries,
    load_run_log,
    make_finding,
    save_finding,
    write_facts,
)
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.smallest import smallest
from fuzzer.state.recovery import Recovery
from fuzzer.workload.model import Workload
from fuzzer.writelog.joined import base_image
from fuzzer.writelog.points import Plan, parse_plan
from oracles import OWN


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a workload."""

    execution: Execution
    examination: Examination
    canary: str = ""

    @property
    def buckets(self) -> tuple[str, ...]:
        fs = self.execution.workload.fs
        return tuple(forbidden.filed(fs, self.canary)[0] for forbidden in self.examination.forbidden)


def attempts(
    lane: Lane, workload: Workload, times: int, plan: Plan, canary: str = "", contract: str = OWN
) -> Iterator[Attempt]:
    """Run the workload `times` times, each on a fresh file system."""
    for _ in range(times):
        execution = execute(lane, workload)
        yield Attempt(execution, examine(lane, execution, plan, canary, contract=contract), canary)


def run_and_keep(
    lane: Lane,
    workload: Workload,
    times: int,
    plan: Plan,
    origin: Origin,
    directory: Path,
    report: Callable[[Attempt], None],
) -> tuple[Finding, ...]:
    """Run `times` times and save the first finding of each bucket, with how often it showed."""
    first: dict[str, tuple[Execution, Forbidden]] = {}
    hits: Counter[str] = Counter()
    for attempt in attempts(lane, workload, times, plan, origin.canary, origin.contract):
        hits.update(set(attempt.buckets))
        for bucket, forbidden in zip(attempt.buckets, attempt.examination.forbidden, strict=True):
            first.setdefault(bucket, (attempt.execution, forbidden))
        report(attempt)
    findings: list[Finding] = []
    for bucket, (execution, seen) in first.items():
        faults = faults_for(execution, plan, origin.canary)
        forbidden = smallest(Reexamination(lane, execution, faults, origin.contract), seen)
        finding = replace(make_finding(execution, forbidden, origin), reproduced=(hits[bucket], times))
        place = save_finding(directory / "findings", finding, execution, forbidden)
        write_facts(place, finding)
        findings.append(finding)
    return tuple(findings)


def recheck(lane: Lane, saved: Saved) -> Forbidden | None:
    """Judge the recorded crash state of a finding again: deterministic but for the kernel.

    None if it is allowed now, or if there is no recorded state (see `has_state`).
    """
    log = load_run_log(saved.directory, lane.directory)
    if log is None or saved.state is None:
        return None
    base = base_image(log, saved.workload.size)
    without = saved.finding.facts.get("without", "")
    execution = Execution(saved.workload, saved.history, base, log, Recovery(), without=without)
    faults = faults_for(execution, parse_plan(saved.finding.points), saved.finding.canary)
    recoveries = load_recoveries(saved.directory, lane.directory)
    return examine_one(lane, execution, saved.state, faults, recoveries, saved.finding.contract)


def has_state(saved: Saved) -> bool:
    """True if the finding has a recorded crash state to look at again."""
    return saved.state is not None and (saved.directory / "writes.log.gz").exists()
