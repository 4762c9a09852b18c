"""`powercut record`: any program as the workload."""

from __future__ import annotations

import time
from pathlib import Path

import click

from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.monitor import Monitor
from fuzzer.campaign.record import Recording, check_log_path, record_program
from fuzzer.campaign.replay import load_recorded
from fuzzer.campaign.session import prepare
from fuzzer.cli.options import (
    FILESYSTEMS,
    Duration,
    Size,
    check_options,
    json_option,
    make_plan,
    plan_options,
    recorder_option,
)
from fuzzer.cli.replay import REPLAY_POINTS, make_checker, replay_and_tell
from fuzzer.errors import ExitCode
from fuzzer.kernel.children import stop_signals
from fuzzer.kernel.program import find_program
from fuzzer.workload.model import Workload
from fuzzer.workload.validate import validate_header
from fuzzer.writelog.points import Points


@click.command("record")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--log", type=click.Path(path_type=Path), required=True, help="Where to write the log.")
@click.option("--fs", type=click.Choice(FILESYSTEMS), default="btrfs", show_default=True, help="File system.")
@click.option("--size", type=Size(), default=Workload().size, show_default="320M", help="Size of the device.")
@click.option("--mkfs", default="", metavar="OPTIONS", help="More options for mkfs.")
@click.option("--mount", default="", metavar="OPTIONS", help="Mount options.")
@click.option(
    "--time",
    "timeout_s",
    type=Duration(),
    default="10m",
    show_default=True,
    help="Kill the program, and all it started, after so long. The log is good all the same.",
)
@recorder_option
@plan_options(None, tuple(Points))
@check_options
@json_option
def record_command(
    command: tuple[str, ...],
    log: Path,
    fs: str,
    size: int,
    mkfs: str,
    mount: str,
    timeout_s: float,
    recorder: str,
    points: str | None,
    states: int | None,
    check: str | None,
    check_time: float,
    as_json: bool,
) -> ExitCode:
    """Run COMMAND in a fresh, recorded file system (its working directory) and keep the log of all writes.

    What COMMAND expects of its files is not known: `powercut replay LOG` judges only the structure of what
    recovery shows, unless a program given with --check says more. With --check it is replayed at once.
    COMMAND finds the mount in POWERCUT_MOUNT, and in POWERCUT_MARKS a Unix socket: each line sent there is
    answered `ok` once it is a mark in the log; a checker gets the lines sent before the crash.
    Example: powercut record --fs xfs --log fio.log -- fio --name=w --rw=randwrite --size=8M --fsync=1
    """
    if check is None and (points or states):
        raise click.UsageError(
            "--points and --states say what to replay: give --check, or use powercut replay"
        )
    argv, checker = find_program(command), make_checker(check, check_time)
    formatted = Workload(fs=fs, size=size, mkfs=mkfs, mount=mount)
    validate_header(formatted)
    check_log_path(log)
    monitor = Monitor(as_json)
    prepare((fs,), recorder)
    started = time.monotonic()
    with stop_signals() as stop, open_lane(recorder) as lane:
        recording = record_program(lane, formatted, argv, log, timeout_s, stop)
        interrupted = stop()
    _tell(monitor, log, fs, recording, time.monotonic() - started)
    if interrupted:
        raise click.Abort
    if checker is None:
        return ExitCode.NOTHING_FOUND
    recorded = load_recorded(log, make_plan(points or REPLAY_POINTS, states), fs)
    return replay_and_tell(monitor, recorded, checker, None)


def _tell(monitor: Monitor, log: Path, fs: str, recording: Recording, seconds: float) -> None:
    ended = recording.ended
    how = "was killed" if ended.killed else str(ended)
    monitor.say(
        f"{fs}: the program {how} after {seconds:.1f} s: {recording.writes} writes, "
        f"{recording.flushes} flushes, {recording.marks} marks in {log}"
    )
    monitor.event(
        {
            "event": "recorded",
            "log": str(log),
            "fs": fs,
            "status": ended.status,
            "killed": ended.killed,
            "writes": recording.writes,
            "flushes": recording.flushes,
            "marks": recording.marks,
            "seconds": round(seconds, 1),
        }
    )
