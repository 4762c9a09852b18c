"""`powercut run`: run workload files and look at their crash states."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from fuzzer.campaign.index import open_index
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.monitor import Monitor, count_findings
from fuzzer.campaign.run import Attempt, run_and_keep
from fuzzer.campaign.session import origin, prepare
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
)
from fuzzer.errors import ExitCode, InputError
from fuzzer.kernel.probe import require
from fuzzer.workload.model import Workload
from fuzzer.workload.text import parse_bytes
from fuzzer.workload.validate import validate
from fuzzer.writelog.points import Points
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
    prepare(tuple(sorted({w.fs for _, w in jobs})), recorder)
    require(*sorted({name for _, w in jobs for name in w.capabilities}))
    started = time.monotonic()
    tally = _Tally(monitor)
    with open_index(directory, create=True) as index, open_lane(recorder) as lane:
        plan = make_plan(points, states)
        facts = origin(points=points, canary=canary, recorder=lane.recorder.name, contract=profile)
        for path, workload in jobs:
            for finding in run_and_keep(lane, workload, repeat, plan, facts, directory, tally.add):
                index.put_finding(finding)
                tally.findings += 1
                tally.known += bool(finding.known)
                monitor.event({"event": "finding", "workload": str(path), **finding.summary()})
    tally.summarize(time.monotonic() - started, directory)
    ctx.exit(ExitCode.FINDING if tally.findings else ExitCode.NOTHING_FOUND)


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
