"""Record: any program as the workload. What it does is not known, so only its log is kept.

A crash state of such a log can be asked for its structure (see `replay`), and a checker can be asked what
the program's own files say.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fuzzer.campaign.execute import enter_mount
from fuzzer.campaign.lane import Lane, mount_options
from fuzzer.errors import InfrastructureError, InputError
from fuzzer.kernel.imagefile import store_image
from fuzzer.kernel.mark_socket import open_mark_socket
from fuzzer.kernel.mount import mounted
from fuzzer.kernel.program import Ended, Program, run_program
from fuzzer.kernel.recorder.base import RecordedDevice
from fuzzer.workload.model import Workload
from fuzzer.writelog.forced import is_discard, settle
from fuzzer.writelog.format import read_log
from fuzzer.writelog.joined import join_logs, write_joined
from fuzzer.writelog.marks import format_program_mark


@dataclass(frozen=True, slots=True)
class Recording:
    """A program that ended, and what its log holds after mkfs."""

    ended: Ended
    writes: int
    flushes: int
    marks: int


def check_log_path(path: Path) -> None:
    """InputError if no log can be written at `path`: better now than after an hour of recording."""
    reason = ""
    if path.is_dir():
        reason = "it is a directory"
    elif path.exists() and not path.is_file():
        reason = "it is no regular file"
    elif not path.parent.is_dir():
        reason = f"there is no directory {path.parent}"
    if reason:
        raise InputError(f"the log cannot be written: {reason}", place=str(path))


def record_program(
    lane: Lane,
    formatted: Workload,
    argv: tuple[str, ...],
    path: Path,
    timeout_s: float,
    stop: Callable[[], bool],
) -> Recording:
    """Run a program in a fresh file system and save the log at `path`, mkfs first.

    `formatted` is a workload without actors: it says which file system, how large, with which options.
    The program is killed after `timeout_s` or when `stop` says so; the log is good all the same.
    InputError for options mkfs or the kernel refuses, or if the log cannot be written.
    """
    fresh = lane.fresh(formatted)
    store_image(fresh.image, lane.disk)
    lane.log.unlink(missing_ok=True)
    with lane.recorder.record(lane.disk, lane.log) as recorded:
        ended = _run_mounted(lane, formatted, recorded, argv, timeout_s, stop)
    log = settle(join_logs(fresh.log, read_log(lane.log, mapped=False)), is_discard)
    try:
        write_joined(path, log)
    except OSError as error:
        raise InputError(f"the log cannot be written: {error.strerror}", place=str(path)) from error
    after = log.entries[log.start :]
    return Recording(
        ended,
        writes=sum(entry.is_write for entry in after),
        flushes=sum(entry.is_flush for entry in after),
        marks=sum(entry.is_mark for entry in after),
    )


def _run_mounted(
    lane: Lane,
    formatted: Workload,
    recorded: RecordedDevice,
    argv: tuple[str, ...],
    timeout_s: float,
    stop: Callable[[], bool],
) -> Ended:
    options = mount_options(formatted.fs, formatted.mount)
    with ExitStack() as stack:
        marks = stack.enter_context(
            open_mark_socket(lane.directory / "marks", lambda line: recorded.mark(format_program_mark(line)))
        )
        mount = mounted(recorded.device, lane.live_mount, formatted.fs, options)
        mountpoint = enter_mount(stack, mount, f"{formatted.fs} with {options}")
        program = Program(
            argv=argv,
            cwd=mountpoint,
            environment={"POWERCUT_MOUNT": str(mountpoint), "POWERCUT_MARKS": str(marks.path)},
            timeout_s=timeout_s,
        )
        try:
            return run_program(lane.area, program, marks=marks, stop=stop)
        except InfrastructureError:
            # Failing all its I/O is what frees a file system, and those who wait for it.
            lane.recorder.abort()
            raise
