"""`powercut run`: run workload files and look at their crash states."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import click

from fuzzer.campaign.finding import Origin
from fuzzer.campaign.fuzz import fuzz
from fuzzer.campaign.index import open_index
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.monitor import Monitor, count_findings
from fuzzer.campaign.run import Attempt, run_and_keep
from fuzzer.campaign.session import origin, prepare, recorder_for
from fuzzer.campaign.source import Listed
from fuzzer.campaign.worker import FuzzOptions
from fuzzer.cli.fuzz import summarize
from fuzzer.cli.options import (
    FILESYSTEMS,
    canary_option,
    directory_option,
    fs_option,
    json_option,
    make_plan,
    plan_options,
    profile_option,
    recorder_option,
    target_option,
)
from fuzzer.errors import ExitCode, InputError
from fuzzer.kernel.probe import require
from fuzzer.target.targets import Target
from fuzzer.workload.model import Workload
from fuzzer.workload.text import parse_bytes
from fuzzer.workload.validate import validate
from fuzzer.writelog.points import Plan, Points
from oracles import Tally

_MAX_FILE_BYTES = 2 << 20
"""Workload files are small; the parser refuses more than it can mean, this refuses to read it."""


@click.command("run")
@click.argument(
    "workloads", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@fs_option
@click.option("--repeat", type=click.IntRange(1, 100_000), default=1, show_default=True, help="Runs of each.")
@plan_options(Points.FSYNC)
@recorder_option
@target_option
@canary_option
@profile_option
@directory_option
@json_option
@click.pass_context
def run_command(
    ctx: click.Context,
    workloads: tuple[Path, ...],
    filesystems: tuple[str, ...],
    repeat: int,
    points: str,
    states: int | None,
    recorder: str,
    target: Target | None,
    canary: str,
    profile: str,
    directory: Path,
    as_json: bool,
) -> None:
    """Run workload files and judge every crash state. Exit status 1 if anything is found, known or not.

    Example: powercut run corpus/generic/append-fsync-rename.workload --fs xfs --repeat 10
    """
    jobs = [job for path in workloads for job in _bind(path, filesystems)]
    monitor = Monitor(as_json)
    chosen = tuple(sorted({w.fs for _, w in jobs}))
    recorder = recorder_for(recorder, (w for _, w in jobs))
    prepare(chosen, recorder, target)
    plan = make_plan(points, states)
    if target is not None:
        facts = origin(points=points, canary=canary, recorder=recorder, contract=profile)
        ctx.exit(
            _run_in_guest(target, Listed(tuple(w for _, w in jobs), repeat), plan, facts, directory, monitor)
        )
    require(*sorted({name for _, w in jobs for name in w.capabilities}))
    started = time.monotonic()
    tally = _Tally(monitor)
    with open_index(directory, create=True) as index, open_lane(recorder) as lane:
        facts = origin(points=points, canary=canary, recorder=lane.recorder.name, contract=profile)
        for path, workload in jobs:
            for finding in run_and_keep(lane, workload, repeat, plan, facts, directory, tally.add):
                index.put_finding(finding)
                tally.findings += 1
                tally.known += bool(finding.known)
                monitor.event({"event": "finding", "workload": str(path), **finding.summary()})
    tally.summarize(time.monotonic() - started, directory)
    ctx.exit(ExitCode.FINDING if tally.findings else ExitCode.NOTHING_FOUND)


def _run_in_guest(
    target: Target, source: Listed, plan: Plan, facts: Origin, directory: Path, monitor: Monitor
) -> ExitCode:
    """Run all in one guest, as a campaign whose workloads are these; a fresh guest if one is lost."""
    options = FuzzOptions(
        directory=directory,
        filesystems=tuple(sorted({workload.fs for workload in source.workloads})),
        source=source,
        first=0,
        jobs=1,
        deadline=math.inf,
        recorder=facts.recorder,
        plan=plan,
        canary=facts.canary,
        origin=facts,
        target=target,
    )
    with open_index(directory, create=True) as index:
        totals = fuzz(options, index, monitor, position="next of run")
    summarize(monitor, totals, directory, monitor.json_lines)
    return ExitCode.FINDING if totals.findings else ExitCode.NOTHING_FOUND


def _bind(path: Path, filesystems: tuple[str, ...]) -> list[tuple[Path, Workload]]:
    """The workload once per file system it is for and that was asked for."""
    with path.open("rb") as file:
        workload = parse_bytes(file.read(_MAX_FILE_BYTES), str(path))
    fits = [fs for fs in filesystems or FILESYSTEMS if workload.fs in ("", fs)]
    if not fits:
        raise InputError(f"this workload is for {workload.fs}", place=str(path), hint="give --fs accordingly")
    bound = [(path, workload.with_fs(fs)) for fs in fits]
    for _, one in bound:
        validate(one)
    return bound


def _killed(attempt: Attempt) -> str:
    names = attempt.execution.history.killed
    return f"; killed at the deadline, or died: {', '.join(names)}" if names else ""


class _Tally:
    """Counts over all runs of a `run` command."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.findings = 0
        self.known = 0
        self.counts = {"workloads": 0, "crash_states": 0, "unique_states": 0}
        self.promises = Tally()

    def add(self, attempt: Attempt) -> None:
        examination = attempt.examination
        self.counts["workloads"] += 1
        self.counts["crash_states"] += examination.states
        self.counts["unique_states"] += examination.unique
        self.promises.add_json(examination.tally.to_json())
        failed = [e for e in attempt.execution.history.events if e.failed]
        workload = attempt.execution.workload
        self.monitor.say(
            f"{workload.fs}: {len(attempt.execution.history.events)} ops ({len(failed)} failed), "
            f"{examination.states} crash states ({examination.unique} unique), "
            f"{', '.join(attempt.buckets) or 'nothing forbidden'}{_killed(attempt)}"
        )
        self.monitor.event(
            {
                "event": "run",
                "fs": workload.fs,
                "ops": len(attempt.execution.history.events),
                "failed_ops": len(failed),
                "killed": list(attempt.execution.history.killed),
                "crash_states": examination.states,
                "unique_states": examination.unique,
                "buckets": list(attempt.buckets),
            }
        )

    def summarize(self, seconds: float, directory: Path) -> None:
        summary = {"event": "summary", **self.counts, "findings": self.findings, "known": self.known}
        summary |= self.promises.to_json()
        if self.monitor.json_lines:
            click.echo(json.dumps(summary | {"seconds": round(seconds, 1), "dir": str(directory)}))
        else:
            found = count_findings(self.findings, self.known)
            self.monitor.say(f"{self.promises.words()}; {found} in {seconds:.1f} s")
