"""`powercut replay`: crash states of a recorded dm-log-writes log."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import click

from fuzzer.campaign.check import Checker
from fuzzer.campaign.examiner import Examination, Forbidden
from fuzzer.campaign.lane import open_crash_lane, open_lane
from fuzzer.campaign.monitor import Monitor
from fuzzer.campaign.replay import Recorded, load_recorded, replay
from fuzzer.campaign.session import prepare
from fuzzer.cli.options import FILESYSTEMS, check_options, json_option, make_plan, plan_options
from fuzzer.errors import ExitCode, InputError
from fuzzer.kernel.program import find_program
from fuzzer.writelog.points import Points
from fuzzer.writelog.recipe import format_recipe, say_state

REPLAY_POINTS = f"{Points.FLUSH},{Points.MARK}"
"""Where a log of unknown origin is cut unless told otherwise; without marks in it, after every flush."""


def make_checker(check: str | None, timeout_s: float) -> Checker | None:
    """What `check_options` asked for. InputError if there is no such program."""
    if check is None:
        return None
    try:
        words = shlex.split(check)
    except ValueError as error:
        raise InputError(f"--check {check!r}: {error}") from None
    return Checker(find_program(words), timeout_s)


@click.command("replay")
@click.argument("log", type=click.Path(path_type=Path))
@plan_options(REPLAY_POINTS, tuple(Points))
@click.option("--fs", type=click.Choice(FILESYSTEMS), default=None, help="File system; seen from the log.")
@click.option("--size", type=click.IntRange(1), default=None, help="Bytes of the device; seen from the log.")
@check_options
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
    check: str | None,
    check_time: float,
    directory: Path | None,
    as_json: bool,
) -> ExitCode:
    """Recover every crash state of LOG, a dm-log-writes log with the mark `mkfs`.

    Nothing is known of the workload, so only rules that hold for every state are asked, and CMD. Without
    `sync:` marks in the log there are no fsync points.
    Example: powercut replay writes.log --points fua
    """
    checker = make_checker(check, check_time)
    recorded = load_recorded(log, make_plan(points, states), fs or "", size or 0)
    monitor = Monitor(as_json)
    if not recorded.complete:
        monitor.say(f"{log} has no end mark: the recording was cut short, its end is taken as a crash")
    return replay_and_tell(monitor, recorded, checker, directory)


def replay_and_tell(
    monitor: Monitor, recorded: Recorded, checker: Checker | None, directory: Path | None
) -> ExitCode:
    """Replay, print findings and summary, and put them into `directory` if there is one."""
    again = Points.RECOVERY in recorded.plan.modes
    prepare((recorded.fs,), "auto" if again else "none")
    started = time.monotonic()
    lines: list[dict[str, object]] = []

    def report(forbidden: Forbidden) -> None:
        lines.append(_finding(forbidden))
        click.echo(json.dumps(lines[-1]) if monitor.json_lines else _line(forbidden))

    with open_lane("auto") if again else open_crash_lane() as lane:
        examination = replay(lane, recorded, report, checker)
    summary = _summary(examination, time.monotonic() - started, directory)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in (*lines, summary))
        (directory / "replay.jsonl").write_text(text)
    if monitor.json_lines:
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
    found = " / ".join(first.found.splitlines())
    return f"{say_state(forbidden.state)}: {first.rule}/{first.kind}: {first.subject}: {found}"


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
