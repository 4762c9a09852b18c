"""A guest: another kernel on this machine, started once, that runs commands one after the other.

The guest sees the host's files read-only, and one exchange directory it may write to, so the same
Python and the same powercut run in it. How a kernel is booted is told by a `Plan` (`uml.py`, `qemu.py`);
what runs inside is `guest.py`.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fuzzer
from fuzzer.errors import InfrastructureError, InputError, LeakError, LostWorkerError
from fuzzer.kernel.process import PATH, die_with_parent, wait_until
from fuzzer.kernel.procfs import processes, start_ticks
from fuzzer.kernel.workarea import run_area
from fuzzer.target import guest

PROJECT = Path(fuzzer.__file__).parents[1]
PANICS = ("Kernel panic", "BUG: ", "kernel BUG at", "Oops: ", "general protection fault")

_REAP_S = 10.0
_GRACE_S = 60.0
"""How long beyond a command's own deadline a guest may be silent: it has to kill what did not end."""
_MAX_OUTPUT_BYTES = 64 << 20
_CONSOLE_BYTES = 64 << 10
_HEAD_BYTES = 4 << 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How to boot one kind of guest. `module_roots`: where modules are looked for, in it."""

    name: str
    command_line: Callable[[Path, Sequence[Path]], list[str]]
    """Of the guest's own directory and all directories it may write to."""
    mount: Callable[[int, Path], tuple[str, str, str]]
    """Number and path of one it may write to, to the (type, source, options) the guest mounts it with."""
    module_roots: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestResult:
    """How a command ended: `status` as subprocess gives it. `console` is what the guest's kernel said
    since the command before, `hits` the counters of the known bugs its kernel can switch on."""

    status: int
    stdout: str
    stderr: str
    console: str
    hits: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Guest:
    """A running guest."""

    name: str
    exchange: Path
    _directory: Path
    _process: subprocess.Popen[bytes]
    _number: int = 0
    _said: int = 0
    """Bytes of the console that belong to earlier commands."""
    _busy: bool = False

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        switches: Mapping[str, str] | None = None,
    ) -> GuestResult:
        """Run a command as root and wait for its end; see `start` and `Pending.result`."""
        return self.start(
            argv, timeout_s=timeout_s, environment=environment, cwd=cwd, switches=switches
        ).result()

    def start(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        switches: Mapping[str, str] | None = None,
    ) -> Pending:
        """Start a command as root; `switches` are known bugs to have on meanwhile (name to value).

        Host paths are valid in the guest, except below /dev, /proc, /run and /sys, which are its own.
        One command runs at a time.
        """
        assert not self._busy
        number, self._number = self._number, self._number + 1
        command = {
            "argv": list(argv),
            "environment": _variables() | dict(environment or {}),
            "cwd": str(cwd or self.exchange),
            "timeout_s": timeout_s,
            "switches": dict(switches or {}),
        }
        self._ask(number, command)
        self._busy = True
        return Pending(self, number, tuple(argv), time.monotonic() + timeout_s + _GRACE_S)

    def _result(self, number: int, argv: Sequence[str], deadline: float) -> GuestResult:
        answer = self._answer(number, deadline)
        self._busy = False
        if "error" in answer:
            raise InfrastructureError(f"the {self.name} guest: {answer['error']}")
        said, self._said = self._said, self._console_size()
        console = self._console(said)
        if answer["stuck"]:
            stacks = "\n".join(answer["stuck"])
            raise LostWorkerError(f"processes of the {self.name} guest cannot be killed", hint=stacks)
        if answer["status"] is None:
            raise LostWorkerError(
                f"the {self.name} guest was not done in time: {shlex.join(argv)}", hint=console[-4000:]
            )
        stdout, stderr = (self._read(f"{number}.{name}", _MAX_OUTPUT_BYTES) for name in ("stdout", "stderr"))
        return GuestResult(answer["status"], stdout, stderr, console, answer["hits"])

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the guest takes commands; LostWorkerError if it does not in time."""
        self._wait(guest.READY, time.monotonic() + timeout_s)

    def power_off(self) -> None:
        """Ask the guest to end; one that does not, or still runs a command, is killed by the owner."""
        if self._busy:
            return
        self._ask(self._number, {})
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_S)

    def _ask(self, number: int, command: Mapping[str, object]) -> None:
        part = self._directory / "command"
        part.write_text(json.dumps(command))
        part.rename(self._directory / f"{number}.json")

    def _answer(self, number: int, deadline: float) -> dict[str, Any]:
        name = f"{number}.done"
        self._wait(name, deadline)
        return dict(json.loads((self._directory / name).read_text()))

    def _wait(self, name: str, deadline: float) -> None:
        while not self._is_there(name):
            if time.monotonic() > deadline:
                raise self.lost("does not answer")
            time.sleep(0.01)

    def _is_there(self, name: str) -> bool:
        """True if the guest has put the file there; LostWorkerError if it has ended without."""
        path, ended = self._directory / name, self._process.poll()
        if ended is not None and not path.exists():
            raise self.lost(f"ended with status {ended}")
        return path.exists()

    def console(self) -> str:
        """What the guest's kernel said: its first words and its last, if it was much."""
        said = self._console(0)
        with (self._directory / "console").open("rb") as file:
            first = file.read(_HEAD_BYTES).decode(errors="replace")
        return said if said.startswith(first) else f"{first}\n[...]\n{said}"

    def lost(self, how: str) -> LostWorkerError:
        """The error for a guest that is no good any more; if it panicked, it says so instead of `how`."""
        console = self._console(0)
        said = [line for line in console.splitlines() if any(word in line for word in PANICS)]
        # The last panic is of our making where an oops came before: the first line says what it was.
        what = f"panicked: {' / '.join(dict.fromkeys((said[0], said[-1])))}" if said else how
        return LostWorkerError(f"the {self.name} guest {what}", hint=console[-4000:])

    def _console_size(self) -> int:
        return (self._directory / "console").stat().st_size

    def _console(self, start: int) -> str:
        size = self._console_size()
        return self._read("console", min(_CONSOLE_BYTES, size - start))

    def _read(self, name: str, limit_bytes: int) -> str:
        """The end of a text file."""
        with (self._directory / name).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit_bytes))
            return file.read().decode(errors="replace")


@dataclass(slots=True)
class Output:
    """How much of a growing file was read."""

    _start: int = 0
    """Where the first line begins that is not complete."""

    def read(self, path: Path) -> Iterator[str]:
        """Its lines since the last time, the last one only once it ends."""
        with path.open("rb") as file:
            file.seek(self._start)
            data = file.read(_MAX_OUTPUT_BYTES)
        *lines, rest = data.split(b"\n")
        self._start += len(data) - len(rest)
        yield from (line.decode(errors="replace") for line in lines)


@dataclass(frozen=True, slots=True)
class Pending:
    """A command that was started in a guest."""

    guest: Guest
    _number: int
    _argv: tuple[str, ...]
    _deadline: float
    _output: Output = field(default_factory=Output)

    def read_lines(self) -> Iterator[str]:
        """Whole lines of standard output that have arrived since the last time."""
        path = self.guest._directory / f"{self._number}.stdout"
        if path.exists():
            yield from self._output.read(path)

    def is_done(self) -> bool:
        """True if `result` will not wait. LostWorkerError if the guest is gone."""
        return self.guest._is_there(f"{self._number}.done")

    def result(self) -> GuestResult:
        """Wait for the end.

        LostWorkerError, with the end of the console, if the guest panics or vanishes, or if the command
        is not done in time; in that last case the guest goes on if all its processes could be killed.
        InfrastructureError if the command cannot be started.
        """
        return self.guest._result(self._number, self._argv, self._deadline)


@contextmanager
def open_guest(plan: Plan, *, exchange: Path, boot_s: float = 120.0) -> Iterator[Guest]:
    """Boot a guest and power it off at the end; only `exchange` can be written in it."""
    with run_area() as area:
        directory = area.mkdir("guest")
        writable = (directory, exchange.resolve())
        _check_paths(sys.executable, str(PROJECT), *map(str, writable))
        _write_job(directory, plan, writable)
        process = _start(plan.command_line(directory, writable), directory)
        running = Guest(plan.name, writable[1], directory, process)
        try:
            area.note_process(process.pid)
            running.wait_ready(boot_s)
            yield running
            running.power_off()
        finally:
            _kill_group(process)


def run_in_guest(
    plan: Plan,
    argv: Sequence[str],
    *,
    exchange: Path,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> GuestResult:
    """Boot a guest for one command; `timeout_s` covers the boot too."""
    begin = time.monotonic()
    with open_guest(plan, exchange=exchange, boot_s=timeout_s) as running:
        left_s = max(1.0, timeout_s - (time.monotonic() - begin))
        return running.run(argv, timeout_s=left_s, environment=environment)


def init_arguments(directory: Path) -> list[str]:
    """Kernel parameters that make our Python process 1, the last of all.

    Unknown parameters become the environment of process 1, those behind `--` its arguments.
    """
    return [
        f"PYTHONPATH={PROJECT}",
        f"init={sys.executable}",
        "--",
        *("-m", guest.__name__, str(directory)),
    ]


def _check_paths(*paths: str) -> None:
    for path in paths:
        if any(character.isspace() or character == "," for character in path):
            raise InputError(
                f"a guest cannot use the path {path!r}: its kernel splits words at spaces and commas"
            )


def _variables() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{PATH}"
    return {
        "PATH": path,
        "LANG": "C.UTF-8",
        "HOME": "/root",
        "TMPDIR": "/dev/shm",
        "PYTHONPATH": str(PROJECT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _write_job(directory: Path, plan: Plan, writable: Sequence[Path]) -> None:
    job = {
        "mounts": [[str(path), *plan.mount(number, path)] for number, path in enumerate(writable)],
        "module_roots": [str(root) for root in plan.module_roots],
    }
    (directory / guest.JOB).write_text(json.dumps(job))


def _start(argv: Sequence[str], directory: Path) -> subprocess.Popen[bytes]:
    with (directory / "console").open("ab") as console:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            cwd=directory,
            process_group=0,
            preexec_fn=partial(_prepare, os.getpid()),
        )


def _prepare(parent: int) -> None:
    die_with_parent(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # A panic of user-mode-linux ends in abort(3).


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
