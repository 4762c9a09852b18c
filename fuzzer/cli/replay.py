"""`powercut replay`: crash states of a recorded dm-log-writes log."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from fuzzer.campaign.examiner import Examination, Forbidden
from fuzzer.campaign.lane import open_crash_lane, open_lane
from fuzzer.campaign.monitor import Monitor
from fuzzer.campaign.replay import load_recorded, replay
from fuzzer.campaign.session import prepare
from fuzzer.cli.options import FILESYSTEMS, json_option, make_plan, plan_options
from fuzzer.errors import ExitCode
from fuzzer.writelog.points import Points
from fuzzer.writelog.recipe import format_recipe, say_state


@click.command("replay")
@click.argument("log", type=click.Path(path_type=Path))
@plan_options(Points.FLUSH)
@click.option("--fs", type=click.Choice(FILESYSTEMS), default=None, help="File system; seen from the log.")
@click.option("--size", type=click.IntRange(1), default=None, help="Bytes of the device; seen from the log.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Also write what is found to DIR/replay.jsonl.",
)
@json_option
def replay_command(
    log: Path,
    points: str,
    states: int | None,
    fs: str | None,
    size: int | None,
    directory: Path | None,
    as_json: bool,
) -> ExitCode:
    """Recover every crash state of LOG, a dm-log-writes log with the mark `mkfs`.

    Nothing is known of the workload, so only rules that hold for every state are asked. Without `sync:`
    marks in the log there are no fsync points.
    Example: powercut replay writes.log --points fua
    """
    plan = make_plan(points, states)
    recorded = load_recorded(log, plan, fs or "", size or 0)
    monitor = Monitor(as_json)
    again = Points.RECOVERY in plan.modes
    prepare((recorded.fs,), "auto" if again else "none")
    if not recorded.complete:
        monitor.say(f"{log} has no end mark: the recording was cut short, its end is taken as a crash")
    started = time.monotonic()
    lines: list[dict[str, object]] = []

    def report(forbidden: Forbidden) -> None:
        lines.append(_finding(forbidden))
        click.echo(json.dumps(lines[-1]) if as_json else _line(forbidden))

    with open_lane("auto") if again else open_crash_lane() as lane:
        examination = replay(lane, recorded, report)
    summary = _summary(examination, time.monotonic() - started, directory)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in (*lines, summary))
        (directory / "replay.jsonl").write_text(text)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        monitor.say(
            f"{recorded.fs}: {examination.states} crash states ({examination.unique} unique), "
            f"{examination.tally.words()}, {len(examination.forbidden)} findings in {summary['seconds']} s"
        )
    return ExitCode.FINDING if examination.forbidden else ExitCode.NOTHING_FOUND


def _finding(forbidden: Forbidden) -> dict[str, object]:
    assert forbidden.state is not None
    first = forbidden.judgement.violations[0]
    return {"event": "finding", "state": format_recipe(forbidden.state), **first.to_json()}


def _line(forbidden: Forbidden) -> str:
    assert forbidden.state is not None
    first = forbidden.judgement.violations[0]
    return f"{say_state(forbidden.state)}: {first.rule}/{first.kind}: {first.subject}: {first.found}"


def _summary(examination: Examination, seconds: float, directory: Path | None) -> dict[str, object]:
    return {
        "event": "summary",
        "workloads": 0,
        "crash_states": examination.states,
        "unique_states": examination.unique,
        "findings": len(examination.forbidden),
        **examination.tally.to_json(),
        "seconds": round(seconds, 1),
        "dir": "" if directory is None else str(directory),
    }
