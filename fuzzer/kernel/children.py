"""Forked children that report to us in lines: one pipe each, dead when we die, never left behind."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from fuzzer.errors import LeakError
from fuzzer.kernel.process import die_with_parent, wait_until

Send = Callable[[str], None]
"""Sends one line (without its newline) to the parent."""

CRASHED = 70
"""Exit status of a child whose own code raised (EX_SOFTWARE of sysexits.h)."""

LEAKED = 72
"""Exit status of a child that could not give something back in time. That need not be its own fault: a new
mount namespace, such as any container gets, holds copies of our mounts until it has thrown them away."""


@dataclass(slots=True)
class Child:
    """A running child. `fd` is the reading end of its pipe, for select()."""

    pid: int
    fd: int
    _rest: bytes = b""
    status: int | None = field(default=None)

    def read_lines(self) -> Iterator[str]:
        """Lines that have arrived; call when `fd` is readable. Sets `status` once the child has ended."""
        data = os.read(self.fd, 1 << 20)
        if not data:
            self._reap(os.waitpid(self.pid, 0)[1])
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")

    def terminate(self) -> None:
        """Ask it to end."""
        if self.status is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self, timeout_s: float) -> bool:
        """End it at once, its process group too; False if it does not die in time (stuck in the kernel)."""
        if self.status is not None:
            return True
        for target in (-self.pid, self.pid):
            with suppress(ProcessLookupError):
                os.kill(target, signal.SIGKILL)
        return wait_until(self._is_reaped, timeout_s)

    def _is_reaped(self) -> bool:
        pid, wait_status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self._reap(wait_status)
        return pid != 0

    def _reap(self, wait_status: int) -> None:
        self.status = os.waitstatus_to_exitcode(wait_status)
        os.close(self.fd)


def fork_child(main: Callable[[Send], int]) -> Child:
    """Fork; the child runs `main(send)` in a process group of its own and exits with what it returns.

    The caller must have one thread only. A Ctrl-C at the terminal does not reach the child: the
    parent decides what that means.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(writing)
        with suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        return Child(pid, reading)
    try:
        os.setpgid(0, 0)
        die_with_parent(parent)
        os.close(reading)
        status = main(lambda line: _send(writing, line))
    except LeakError:
        traceback.print_exc()
        status = LEAKED
    except BaseException:
        traceback.print_exc()
        status = CRASHED
    finally:
        # No atexit handlers, no unwinding into the parent's frames.
        sys.stderr.flush()
    os._exit(status)


def _send(fd: int, line: str) -> None:
    data = line.encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """While the block runs, SIGTERM and SIGHUP do what Ctrl-C does: whatever is held is released. Not for
    blocks that fork: a child would have it, too."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """While the block runs, SIGTERM, SIGINT and SIGHUP only set a flag; gives the question "is it set?"."""
    asked: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, lambda number, _: asked.append(number)) for number in signals]
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
