"""Programs of the user: what is recorded, and what checks a recovered tree.

Unlike our own tools (`process`) they keep the user's environment, may take long, and may start others.
Whatever they started is gone when `run_program` returns, daemons too: it would keep the mount busy.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from fuzzer.errors import InfrastructureError, InputError
from fuzzer.kernel.libc import PR_SET_CHILD_SUBREAPER, prctl
from fuzzer.kernel.mark_socket import MarkSocket
from fuzzer.kernel.process import die_with_parent, wait_until
from fuzzer.kernel.procfs import kernel_stack
from fuzzer.kernel.workarea import RUN_VARIABLE, RunArea

_MAX_OUTPUT_BYTES = 64 << 10
_STOP_EVERY_S = 0.2
_KILL_S = 10.0
_STDERR_FD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run: `argv`, the working directory, variables to add to our environment, a deadline."""

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended. `status` is its exit status, or minus the signal that killed it.

    `killed`: by us, at the deadline or because we were asked to stop. `output` is the beginning of both
    its streams, if they were asked for.
    """

    status: int
    killed: bool
    output: str = ""

    def __str__(self) -> str:
        return (
            f"was killed by signal {-self.status}" if self.status < 0 else f"ended with status {self.status}"
        )


def find_program(words: Sequence[str]) -> tuple[str, ...]:
    """`words` with the program as an absolute path: its working directory will be another one.

    InputError if there is no such program.
    """
    found = shutil.which(words[0]) if words else None
    if found is None:
        raise InputError(
            f"{words[0] if words else 'nothing'!r} is no program that can be run",
            hint="give its path, or the name of one in PATH; shell syntax needs `sh -c '…'`",
        )
    return (str(Path(found).absolute()), *words[1:])


def run_program(
    area: RunArea,
    program: Program,
    *,
    keep_output: bool = False,
    marks: MarkSocket | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run a program in a session of its own until it ends, its deadline passes or `stop` says so.

    Its output goes to our standard error, or is kept. What it writes to `marks` is served meanwhile. The
    caller must have one thread only. InputError if it cannot be executed, InfrastructureError if some
    process of it survives SIGKILL.
    """
    output = bytearray()
    with _adopting() as before, selectors.DefaultSelector() as selector:
        with _started(area, program, keep_output) as child:
            try:
                if child.stdout is not None:
                    _keep(selector, child.stdout.fileno(), output)
                if marks is not None:
                    marks.serve(selector)
                killed = _wait(child, selector, program.timeout_s, stop)
            finally:
                _kill_all(child, before)
            _drain(selector)
        return Ended(status=child.returncode, killed=killed, output=output.decode(errors="replace"))


@contextmanager
def _adopting() -> Iterator[set[int]]:
    """While the block runs, processes whose parent died become children of ours (prctl(2)).

    Gives the children there are already.
    """
    before = {child.pid for child in psutil.Process().children()}
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield before
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0)


@contextmanager
def _started(area: RunArea, program: Program, keep_output: bool) -> Iterator[subprocess.Popen[bytes]]:
    try:
        child = subprocess.Popen(
            program.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if keep_output else _STDERR_FD,
            stderr=subprocess.STDOUT,
            env={**os.environ, **program.environment, RUN_VARIABLE: area.run_id},
            cwd=program.cwd,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
    except OSError as error:
        raise InputError(f"cannot run {program.argv[0]}: {error.strerror}") from error
    with child:
        yield child


def _keep(selector: selectors.BaseSelector, fd: int, kept: bytearray) -> None:
    """Have `selector` read `fd`; past the bound it is still drained, or the program would block on it."""

    def read() -> None:
        chunk = os.read(fd, 1 << 16)
        kept.extend(chunk[: max(0, _MAX_OUTPUT_BYTES - len(kept))])
        if not chunk:
            selector.unregister(fd)

    selector.register(fd, selectors.EVENT_READ, read)


def _wait(
    child: subprocess.Popen[bytes],
    selector: selectors.BaseSelector,
    timeout_s: float,
    stop: Callable[[], bool],
) -> bool:
    """Serve until the program itself has ended; True if it must be killed."""
    deadline = time.monotonic() + timeout_s
    ended: list[bool] = []
    pidfd = os.pidfd_open(child.pid)
    try:
        selector.register(pidfd, selectors.EVENT_READ, partial(ended.append, True))
        while not ended:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or stop():
                return True
            for key, _ in selector.select(min(left_s, _STOP_EVERY_S)):
                key.data()
        return False
    finally:
        selector.unregister(pidfd)
        os.close(pidfd)


def _kill_all(child: subprocess.Popen[bytes], before: set[int]) -> None:
    """Kill and reap the program and all that came of it. What it forks meanwhile is met the next time."""
    me = psutil.Process()
    left: list[psutil.Process] = []

    def gone() -> bool:
        left[:] = [own for own in me.children() if own.pid not in before]
        for own in left:
            for victim in (own, *_descendants(own)):
                _kill(victim)
            if own.pid != child.pid:
                os.waitpid(own.pid, os.WNOHANG)
        return child.poll() is not None and not left

    if not wait_until(gone, _KILL_S):
        stacks = "\n".join(f"pid {one.pid}:\n{kernel_stack(one.pid)}" for one in left)
        raise InfrastructureError(f"killed processes do not die, they are stuck in the kernel\n{stacks}")


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def _kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return


def _drain(selector: selectors.BaseSelector) -> None:
    """Take what was said before the end: nobody is left who could say more."""
    while ready := selector.select(0):
        for key, _ in ready:
            key.data()
