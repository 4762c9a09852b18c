"""A user-mode-linux guest: another kernel as a process of this one, for what this kernel lacks.

Debian's package `user-mode-linux` boots in seconds and has device-mapper with log-writes, btrfs and
xfs. The guest sees the host's files read-only through hostfs, and one exchange directory it may
write to, so the same Python and the same powercut run in it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import fuzzer
from fuzzer.errors import InputError, LeakError, LostWorkerError, MissingCapabilityError
from fuzzer.kernel.process import PATH, die_with_parent, wait_until
from fuzzer.kernel.procfs import processes, start_ticks
from fuzzer.kernel.workarea import RunArea, run_area
from fuzzer.target import guest

PROGRAM = "linux.uml"
_REAP_S = 10.0
_MAX_OUTPUT_BYTES = 64 << 20
_CONSOLE_BYTES = 64 << 10
_PANIC = "Kernel panic"
_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--", "sh", "-c", '"$@"; exit $?', "sh")
"""In a pid namespace a guest cannot leave a process behind, even if we are killed: two of its helper
processes would not notice. The shell is process 1 there, because the guest ends a panic with signals to
itself, to which a process 1 is immune (pid_namespaces(7))."""
_PROJECT = Path(fuzzer.__file__).parents[1]


@dataclass(frozen=True, slots=True)
class GuestResult:
    """How the command ended: `status` as subprocess gives it. `console` is what the guest's kernel said."""

    status: int
    stdout: str
    stderr: str
    console: str


def run_in_uml(
    argv: Sequence[str],
    *,
    exchange: Path,
    timeout_s: float,
    memory_mib: int = 2048,
    environment: Mapping[str, str] | None = None,
) -> GuestResult:
    """Boot a guest, run `argv` in it as root with `exchange` as its directory, and take its output.

    Host paths are valid in the guest, except below /dev, /proc, /run and /sys, which are its own; only
    `exchange` can be written. `timeout_s` covers boot to power-off. LostWorkerError, with the end of
    the console, if the guest panics, vanishes or is not done in time. Needs root, for a pid namespace.
    """
    program = shutil.which(PROGRAM, path=PATH)
    if program is None:
        raise MissingCapabilityError(f"{PROGRAM} is not installed", hint="apt-get install user-mode-linux")
    with run_area() as area:
        directory = area.mkdir("guest")
        _write_job(directory, argv, exchange.resolve(), environment or {})
        ended = _boot(_command_line(program, directory, memory_mib), area, directory, timeout_s)
        return _result(
            directory, f"ended with status {ended}" if ended is not None else "was not done in time"
        )


def _write_job(directory: Path, argv: Sequence[str], exchange: Path, environment: Mapping[str, str]) -> None:
    variables = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root", "TMPDIR": "/dev/shm"}
    variables |= {"PYTHONPATH": str(_PROJECT), **environment}
    job = {
        "argv": list(argv),
        "environment": [f"{name}={value}" for name, value in variables.items()],
        "cwd": [str(exchange)],
        "writable": [str(directory), str(exchange)],
    }
    (directory / guest.JOB).write_text(json.dumps(job))


def _command_line(program: str, directory: Path, memory_mib: int) -> list[str]:
    """Program and kernel parameters.

    Unknown parameters become the environment of process 1, those behind `--` its arguments.
    """
    for path in (sys.executable, str(_PROJECT), str(directory)):
        if any(character.isspace() for character in path):
            raise InputError(f"a guest cannot use the path {path!r}: the kernel splits words at spaces")
    return [
        *_NAMESPACE,
        program,
        f"mem={memory_mib}M",
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
        *("con=null", "con0=null,fd:1", "ssl=null"),
        f"uml_dir={directory}",
        "umid=guest",
        f"PYTHONPATH={_PROJECT}",
        f"init={sys.executable}",
        "--",
        *("-m", guest.__name__, str(directory)),
    ]


def _boot(argv: Sequence[str], area: RunArea, directory: Path, timeout_s: float) -> int | None:
    """Run the guest to its end, and all its processes; exit status, None if it took too long."""
    parent = os.getpid()

    def prepare() -> None:
        die_with_parent(parent)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # A panic ends in abort(3).

    with (directory / "console").open("wb") as console:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            cwd=directory,
            process_group=0,
            preexec_fn=prepare,
        )
    try:
        area.note_process(process.pid)
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the guest: its processes are processes here, all in the group of the first."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_REAP_S)
    if not wait_until(lambda: not any(_group(process.pid)), _REAP_S):
        raise LeakError(f"processes {list(_group(process.pid))} of a killed guest do not end")


def _group(leader: int) -> Iterator[int]:
    for pid in processes():
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == leader and start_ticks(pid) is not None:
                yield pid


def _result(directory: Path, how: str) -> GuestResult:
    console = _read(directory / "console", _CONSOLE_BYTES)
    status = _read(directory / guest.STATUS, _CONSOLE_BYTES)
    panic = next((line for line in console.splitlines() if _PANIC in line), "")
    if not status or panic:
        what = f"panicked: {panic}" if panic else how
        raise LostWorkerError(f"the UML guest {what}", hint=console[-4000:])
    stdout, stderr = (_read(directory / name, _MAX_OUTPUT_BYTES) for name in (guest.STDOUT, guest.STDERR))
    return GuestResult(int(status), stdout, stderr, console)


def _read(path: Path, limit_bytes: int) -> str:
    """The end of a text file; empty if there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - limit_bytes))
        return file.read().decode(errors="replace")
