"""Running a workload on a mount: fork the actors, start them together, bring in their history."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzzer.errors import HangError, LostWorkerError, MissingCapabilityError
from fuzzer.kernel import libc
from fuzzer.kernel.actor import CRASHED, HELD_SIGNALS, OnDurable, Stage, become_actor
from fuzzer.kernel.clock import realtime_offset_ns
from fuzzer.kernel.identity import InodeReader
from fuzzer.kernel.knobs import kept_knobs
from fuzzer.kernel.memcg import MemoryCgroup
from fuzzer.kernel.procfs import kernel_stack
from fuzzer.kernel.shared import SharedRun
from fuzzer.kernel.throttle import Throttle
from fuzzer.state.history import History, events_from_records
from fuzzer.workload.model import SETUP, THROTTLED, Workload

KILL_S = 10.0
"""How long a killed actor may take to die before it counts as stuck in the kernel."""


def run_workload(
    workload: Workload,
    mountpoint: Path,
    *,
    fs: str,
    cgroup: MemoryCgroup | None,
    throttle: Throttle | None = None,
    deadline_s: float,
    on_durable: OnDurable | None = None,
    keep_fds: tuple[int, ...] = (),
) -> History:
    """Run the setup, then all actors at once; at most `deadline_s` seconds in all.

    Forks from the calling process, which must have one thread only. `on_durable` is called in the
    actors; of the caller's file descriptors they keep only `keep_fds` and the standard ones. Nothing
    of the run is left when this returns.

    Raises HangError if a killed actor does not die, LostWorkerError if an actor's own code failed,
    MissingCapabilityError if the workload needs a memory cgroup, or a throttle, and none is given.
    """
    if cgroup is None and workload.needs_memcg:
        raise MissingCapabilityError("the workload needs a memory cgroup", hint="see powercut doctor: memcg")
    if throttle is None and workload.needs_throttle:
        raise MissingCapabilityError("the workload throttles actors", hint="see powercut doctor: cpu-quota")
    root = _root_inode(mountpoint, fs)
    turns_knobs = any(op.name == "knob" for op in workload.iter_ops())
    with kept_knobs() if turns_knobs else nullcontext(), SharedRun(workload) as shared:
        stage = Stage(
            workload=workload,
            mountpoint=mountpoint,
            fs=fs,
            shared=shared,
            cgroup=cgroup,
            throttle=throttle,
            on_durable=on_durable,
            keep_fds=keep_fds,
        )
        start = History((), root, realtime_ns=realtime_offset_ns())
        return _run_stage(stage, start, time.monotonic() + deadline_s)


def _run_stage(stage: Stage, start: History, deadline: float) -> History:
    workload = stage.workload
    try:
        killed = _run_group(stage, (SETUP,), deadline) if workload.setup else ()
        if not killed and workload.actors:
            killed = _run_group(stage, tuple(range(1, len(workload.actors) + 1)), deadline)
    except _StuckError as stuck:
        names = tuple(workload.actor_name(number) for number in stuck.numbers)
        raise HangError(
            f"killed actors do not die: {', '.join(names)}",
            stacks=dict(zip(names, stuck.stacks, strict=True)),
            pids=stuck.pids,
            history=_history(stage, start, stuck.numbers),
        ) from None
    return _history(stage, start, killed)


def _history(stage: Stage, start: History, killed: Iterable[int]) -> History:
    """`start`, with what has come since."""
    events = [
        event
        for number, rows in enumerate(stage.shared.rows)
        for event in events_from_records(
            stage.workload, number, rows.records(), stage.shared.seen[number].rows()
        )
    ]
    events.sort(key=lambda event: (event.begin_ns, event.id))
    return replace(
        start,
        events=tuple(events),
        killed=tuple(stage.workload.actor_name(number) for number in killed),
        realtime_drift_ns=abs(realtime_offset_ns() - start.realtime_ns),
    )


def _root_inode(mountpoint: Path, fs: str) -> int:
    fd = os.open(mountpoint, os.O_PATH | os.O_DIRECTORY)
    try:
        return InodeReader(fs).of_fd(fd)
    finally:
        os.close(fd)


# The processes of one group: actors that start together.


@dataclass(slots=True)
class _Child:
    number: int
    pid: int
    pidfd: int
    status: int | None = None
    """Wait status; None while it lives."""


class _StuckError(Exception):
    """Actors that survive SIGKILL: they wait in the kernel for something that does not come."""

    def __init__(self, children: list[_Child]) -> None:
        super().__init__(f"{len(children)} processes survive SIGKILL")
        self.numbers = tuple(child.number for child in children)
        self.pids = tuple(child.pid for child in children)
        self.stacks = tuple(kernel_stack(child.pid) for child in children)


@dataclass(slots=True)
class _Group:
    stage: Stage
    children: list[_Child] = field(default_factory=list)

    def fork(self, numbers: tuple[int, ...]) -> None:
        parent_pid = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
        try:
            for number in numbers:
                pid = os.fork()
                if pid == 0:
                    become_actor(self.stage, number, numbers, parent_pid)
                self.children.append(_Child(number, pid, os.pidfd_open(pid)))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def reap_until(self, deadline: float, only: Container[int] | None = None) -> None:
        """Reap actors (all, or those numbered `only`) as they end; returns when all have, or at the
        deadline."""
        poll = select.poll()
        for child in self.living(only):
            poll.register(child.pidfd, select.POLLIN)
        while self.living(only):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            ready = {fd for fd, _ in poll.poll(left_s * 1000 + 1)}
            for child in self.living(only):
                if child.pidfd in ready:
                    poll.unregister(child.pidfd)
                    _, child.status = os.waitpid(child.pid, 0)
                    # One that was killed could not say so itself; others may wait for it.
                    self.stage.shared.board.mark_ended(child.number)

    def kill(self) -> None:
        """Kill and reap what still lives. _StuckError if something does not die."""
        for child in self.living():
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        deadline = time.monotonic() + KILL_S
        self._thaw(deadline)
        self.reap_until(deadline)
        if self.living():
            raise _StuckError(self.living())

    def _thaw(self, deadline: float) -> None:
        """Thaw what a killed actor left frozen: the others, and the unmount, would wait for ever. And make
        writable what it left read-only.

        Not before it is dead: FITHAW waits for a freeze that is under way, and cannot be interrupted.
        """
        freezers = {c.number for c in self.children if _freezes(self.stage.workload, c.number)}
        if not freezers:
            return
        self.reap_until(deadline, only=freezers)
        if self.living(freezers):
            return
        fd = os.open(self.stage.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # EINVAL: it is not frozen
            with suppress(OSError):
                libc.thaw(fd)
            with suppress(OSError):
                libc.reconfigure(fd, "rw")
        finally:
            os.close(fd)

    def living(self, only: Container[int] | None = None) -> list[_Child]:
        return [c for c in self.children if c.status is None and (only is None or c.number in only)]

    def died(self) -> tuple[int, ...]:
        """Actors that ended by a signal, ours or another; LostWorkerError if our code failed in one."""
        for child in self.children:
            if child.status is not None and os.WIFEXITED(child.status) and os.WEXITSTATUS(child.status):
                raise self._lost(child)
        return tuple(c.number for c in self.children if c.status is not None and os.WIFSIGNALED(c.status))

    def _lost(self, child: _Child) -> LostWorkerError:
        name = self.stage.workload.actor_name(child.number)
        status = os.waitstatus_to_exitcode(child.status or 0)
        text = self.stage.shared.board.crash(child.number) if status == CRASHED else ""
        return LostWorkerError(f"actor {name} exited with status {status}\n{text}".rstrip())


def _run_group(stage: Stage, numbers: tuple[int, ...], deadline: float) -> tuple[int, ...]:
    """Run actors together until all have ended; returns those that were killed or died."""
    with _forked_group(stage, numbers) as group:
        if stage.cgroup is not None:
            _enter_cgroup(stage, stage.cgroup, group.children)
        if stage.throttle is not None:
            _throttle(stage, stage.throttle, group.children)
        stage.shared.board.open_gate()
        group.reap_until(deadline)
    return group.died()


@contextmanager
def _forked_group(stage: Stage, numbers: tuple[int, ...]) -> Iterator[_Group]:
    """Actors before the closed gate; none is alive after it. _StuckError if that cannot be had."""
    group = _Group(stage)
    stage.shared.board.close_gate()
    try:
        group.fork(numbers)
        yield group
    finally:
        try:
            group.kill()
        finally:
            for child in group.children:
                os.close(child.pidfd)
            if stage.cgroup is not None:
                # An actor killed in the middle of a squeeze leaves the limit low.
                stage.cgroup.restore_limit()


def _enter_cgroup(stage: Stage, cgroup: MemoryCgroup, children: list[_Child]) -> None:
    """Put actors under the memory limit. Those that work on the limit stay out: they must not wait
    for memory themselves."""
    for child in children:
        ops = stage.workload.block(child.number)
        if not any("memcg" in op.spec.requires for op in ops):
            # An actor that has died already says so when it is reaped.
            with suppress(ProcessLookupError):
                cgroup.add(child.pid)


def _throttle(stage: Stage, throttle: Throttle, children: list[_Child]) -> None:
    """On cgroup v2, where a process is in one group, this takes them out of the memory limit."""
    for child in children:
        if child.number != SETUP and stage.workload.actors[child.number - 1].sched == THROTTLED:
            with suppress(ProcessLookupError):
                throttle.add(child.pid)


def _freezes(workload: Workload, number: int) -> bool:
    return any(op.name in ("freeze", "remount_ro") for op in workload.block(number))


def reap_stuck(pids: Iterable[int], timeout_s: float) -> tuple[int, ...]:
    """Reap the actors a HangError names, once what they waited for is gone; returns those left."""
    left = set(pids)
    deadline = time.monotonic() + timeout_s
    while left:
        left -= {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]}
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return tuple(sorted(left))
