"""Beacon: what a process is doing and until when, told in memory that its parent sees.

A process that blocks in the kernel cannot say so. Its parent reads here what it was at, looks where in
the kernel it and others stand, and frees what can be freed.
"""

from __future__ import annotations

import mmap
import re
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

from fuzzer.kernel import procfs
from fuzzer.kernel.journal import read_journals
from fuzzer.kernel.sweep import abort_fuse

_LAYOUT = struct.Struct("=d32s")
_RUN_NAME = re.compile(r"pc-[0-9a-f]{8}")
_MAX_TASKS = 32


@dataclass(frozen=True, slots=True)
class Doing:
    """A step that should have ended at `deadline` (monotonic seconds)."""

    step: str
    deadline: float


class Beacon:
    """Made before the fork; the child writes, the parent reads. Costs the writer a microsecond a step."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _LAYOUT.size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)

    def enter(self, step: str, limit_s: float) -> None:
        """From now on `step` is under way, for `limit_s` seconds at most."""
        _LAYOUT.pack_into(self._memory, 0, time.monotonic() + limit_s, step.encode())

    def leave(self) -> None:
        """Nothing that could hang is under way."""
        _LAYOUT.pack_into(self._memory, 0, 0.0, b"")

    def overdue(self) -> Doing | None:
        """The step that is past its deadline.

        A half-written entry is no harm: a deadline that has passed is written by nobody.
        """
        deadline, step = _LAYOUT.unpack_from(self._memory)
        if not deadline or time.monotonic() < deadline:
            return None
        return Doing(step.rstrip(b"\0").decode(errors="replace"), deadline)


def kernel_stacks(pid: int) -> dict[str, str]:
    """Kernel stacks by `command (pid)`: of `pid`, then of all tasks in uninterruptible sleep.

    The processes of other runs are left out, kernel threads are not: they may be what `pid` waits for.
    """
    own = procfs.comm(pid)
    found = {f"{own} ({pid})": procfs.kernel_stack(pid)}
    for other in procfs.processes():
        if len(found) >= _MAX_TASKS:
            break
        name = procfs.comm(other)
        foreign = _RUN_NAME.fullmatch(name) and name != own
        if other != pid and not foreign and procfs.is_blocked(other):
            found[f"{name} ({other})"] = procfs.kernel_stack(other)
    return found


def fail_recorded_devices(pid: int) -> None:
    """Fail all I/O to the FUSE recorders of the runs `pid` owns, so that what waits for them ends."""
    for journal in read_journals():
        if journal.owner_pid == pid:
            with suppress(OSError):
                abort_fuse(journal.directory)
