"""`powercut minimize`: the smallest workload that still shows a finding."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import click

from fuzzer.campaign.finding import load_facts, load_finding
from fuzzer.campaign.index import open_index
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.monitor import Monitor
from fuzzer.campaign.session import prepare
from fuzzer.cli.options import Duration, directory_option, json_option, target_option
from fuzzer.cli.there import run_there
from fuzzer.errors import ExitCode
from fuzzer.kernel.children import stop_signals
from fuzzer.kernel.probe import require
from fuzzer.target.targets import Target
from fuzzer.triage.reduce import Reduced, reduce_finding
from fuzzer.workload.text import format as format_workload


@click.command("minimize")
@click.argument("finding")
@click.option("--time", "seconds", type=Duration(), default="30m", show_default=True, help="How long.")
@target_option
@directory_option
@json_option
@click.pass_context
def minimize_command(
    ctx: click.Context, finding: str, seconds: float, target: Target | None, directory: Path, as_json: bool
) -> None:
    """Leave out of a finding's workload what it does not take to show it; goes on where it was stopped.

    A smaller workload is taken if it shows the finding with 95 % confidence more than a third as often.
    Exit status 1 if the finding shows, 0 if it never does. Example: powercut minimize btrfs-data-1c7e
    """
    if target is not None:
        words = ("minimize", finding, "--time", str(seconds), *(("--json",) if as_json else ()))
        ctx.exit(run_there(target, words, directory))
    with open_index(directory) as index:
        saved = load_finding(index.find(finding))
    recorder = saved.finding.recorder or "auto"
    prepare((saved.workload.fs,), recorder)
    require(*sorted(saved.workload.capabilities))
    monitor, started = Monitor(as_json), time.monotonic()
    with stop_signals() as interrupted, open_lane(recorder) as lane:
        result = reduce_finding(
            lane,
            saved,
            expired=lambda: time.monotonic() - started > seconds,
            interrupted=interrupted,
            say=monitor.say,
        )
    if result is None:
        monitor.say(
            f"{saved.finding.id} does not show here ({platform.release()}), so there is nothing to go by"
        )
        monitor.say(f"it was found on {saved.finding.kernel}, by {saved.finding.command}")
        ctx.exit(ExitCode.NOTHING_FOUND)
    with open_index(directory) as index:
        index.put_finding(load_facts(saved.directory))
    before = sum(1 for _ in saved.workload.iter_ops())
    if as_json:
        click.echo(json.dumps(_summary(result, saved.finding.id, before, time.monotonic() - started)))
    else:
        click.echo(format_workload(result.workload), nl=False)
        monitor.say(_line(result, before))
    ctx.exit(ExitCode.FINDING if result.after.hits else ExitCode.NOTHING_FOUND)


def _summary(result: Reduced, finding: str, before: int, seconds: float) -> dict[str, object]:
    after = sum(1 for _ in result.workload.iter_ops())
    return {
        "event": "minimized",
        "id": finding,
        "ops": [before, after],
        "reproduced": [[result.before.hits, result.before.runs], [result.after.hits, result.after.runs]],
        "runs": result.runs,
        "done": result.done,
        "seconds": round(seconds, 1),
    }


def _line(result: Reduced, before: int) -> str:
    after = sum(1 for _ in result.workload.iter_ops())
    more = "" if result.done else "; not finished, the same command goes on"
    return (
        f"{before} ops became {after}; it showed in {result.before}, now in {result.after} "
        f"({result.runs} runs in all{more})"
    )
