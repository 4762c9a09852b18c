"""The one door for subprocesses, and what every child of ours must do first.

No shell, a small fixed environment, no standard input, a deadline, bounded output, and no child that
outlives its parent.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fuzzer.errors import DeadlineError, InfrastructureError, MissingCapabilityError
from fuzzer.kernel.libc import PR_SET_PDEATHSIG, prctl

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for: mkfs and friends live in sbin, which users often lack."""

_ENVIRONMENT = {"PATH": PATH, "LANG": "C", "LC_ALL": "C"}
_MAX_OUTPUT_BYTES = 1 << 20
_REAP_S = 5.0
"""How long a killed child may take to vanish before it counts as stuck in the kernel."""


@dataclass(frozen=True, slots=True)
class CompletedRun:
    """A program that ended. `status` is its exit status, or minus the signal that killed it."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Standard output, then standard error."""
        return self.stdout + self.stderr


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this (just forked) process when its parent dies.

    PR_SET_PDEATHSIG speaks of the *thread* that forked: fork from a thread that lives as long as
    the child is wanted (prctl(2)). A parent that died before this call is noticed by its pid.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def run(argv: Sequence[str], *, timeout_s: float, check: bool = True, cwd: Path = Path("/")) -> CompletedRun:
    """Run a program to its end.

    Raises MissingCapabilityError if it is not installed, DeadlineError if the deadline passes (the whole
    process group is killed), InfrastructureError, with `check`, if it fails. Each output stream is cut at
    1 MiB.
    """
    child = _start(argv, cwd)
    try:
        stdout, stderr = _collect(child, time.monotonic() + timeout_s)
    except TimeoutError:
        raise DeadlineError(f"no end after {timeout_s:g} s: {shlex.join(argv)}") from None
    finally:
        _end_group(child, argv)
    done = CompletedRun(tuple(argv), child.returncode, _text(stdout), _text(stderr))
    if check and done.status:
        said = done.stderr.strip() or done.stdout.strip()
        raise InfrastructureError(f"status {done.status} from {shlex.join(argv)}: {said[-2000:]}")
    return done


def _start(argv: Sequence[str], cwd: Path) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd=cwd,
            process_group=0,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
    except FileNotFoundError:
        raise MissingCapabilityError(
            f"{argv[0]} is not installed", hint="scripts/setup installs what powercut needs"
        ) from None


def _collect(child: subprocess.Popen[bytes], deadline: float) -> tuple[bytearray, bytearray]:
    """Drain both streams until they end and the child is dead (but not reaped)."""
    stdout, stderr = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector, _pidfd(child.pid) as pidfd:
        selector.register(pidfd, selectors.EVENT_READ)
        for stream, kept in ((child.stdout, stdout), (child.stderr, stderr)):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, kept)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                chunk = b"" if key.data is None else os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                    continue
                # Past the bound the stream is still drained, or the program would block on it.
                key.data.extend(chunk[: max(0, _MAX_OUTPUT_BYTES - len(key.data))])
    return stdout, stderr


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _end_group(child: subprocess.Popen[bytes], argv: Sequence[str]) -> None:
    """Leave nothing of the child's process group behind, however `run` ends.

    The child is not reaped before this, so its number cannot have become someone else's group.
    """
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for stream in (child.stdout, child.stderr):
        assert stream is not None
        stream.close()
    try:
        child.wait(_REAP_S)
    except subprocess.TimeoutExpired:
        raise InfrastructureError(
            f"pid {child.pid} cannot be killed, it is stuck in the kernel: {shlex.join(argv)}"
        ) from None


def _text(data: bytearray) -> str:
    return data.decode(errors="replace")


def wait_until(done: Callable[[], bool], timeout_s: float) -> bool:
    """Poll `done` with growing pauses (0.1 ms to 50 ms); False if the deadline passes first."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.0001
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)
    return True
