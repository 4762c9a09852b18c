"""An actor: the child process that runs one block of a workload's ops and logs each of them."""

from __future__ import annotations

import errno
import gc
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import NoReturn

from fuzzer.kernel.actions import ACTIONS
from fuzzer.kernel.actions.base import Context
from fuzzer.kernel.barriers import Barriers, spin_until
from fuzzer.kernel.identity import InodeReader
from fuzzer.kernel.memcg import MemoryCgroup
from fuzzer.kernel.process import die_with_parent
from fuzzer.kernel.shared import SharedRun
from fuzzer.kernel.throttle import Throttle
from fuzzer.workload.model import SETUP, Actor, Op, Resolver, Workload, varies

ENDED, CRASHED = 0, 70
"""Exit status: every op was run; or our own code failed, and why is on the board."""

HELD_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
"""Blocked around the fork: their Python handlers belong to the caller and must not run in an actor."""

_GATE_S = 60.0
_START_S = 0.5
"""How long an actor waits at the start for the others to be running as well."""

OnDurable = Callable[[int, int], None]
"""Called with (op id, return time in ns) right after a durability point succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What all actors of a run are given."""

    workload: Workload
    mountpoint: Path
    fs: str
    shared: SharedRun
    cgroup: MemoryCgroup | None
    throttle: Throttle | None
    on_durable: OnDurable | None
    keep_fds: tuple[int, ...]


def become_actor(stage: Stage, number: int, group: tuple[int, ...], parent_pid: int) -> NoReturn:
    """Turn this just forked process into actor `number`, run it to its end, and exit.

    `group` are the actors that start together.
    """
    status = CRASHED
    try:
        _detach_from_parent(parent_pid, stage.keep_fds)
        _run(stage, number, group)
        status = ENDED
    except BaseException:
        # Whatever it is must not reach the caller's code, of which this process has a copy.
        stage.shared.board.write_crash(number, traceback.format_exc())
    finally:
        stage.shared.board.mark_ended(number)
        os._exit(status)


def _detach_from_parent(parent_pid: int, keep_fds: tuple[int, ...]) -> None:
    die_with_parent(parent_pid)
    # Ctrl-C goes to the whole process group; the parent hears it too and ends its actors.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)
    # A collection would write to most of the pages that are still shared with the parent.
    gc.disable()
    os.umask(0)
    _close_all_but({0, 1, 2, *keep_fds})


def _close_all_but(keep: set[int]) -> None:
    """Close what was inherited: a recorder's pipe or a mount must not be held open from here."""
    low = 0
    for fd in (*sorted(keep), os.sysconf("SC_OPEN_MAX")):
        # Never an empty range: closerange(0, 0) becomes close_range(0, UINT_MAX) in CPython 3.11.
        if low < fd:
            os.closerange(low, fd)
        low = fd + 1


def _run(stage: Stage, number: int, group: tuple[int, ...]) -> None:
    workload, board = stage.workload, stage.shared.board
    actor = Actor("setup", ()) if number == SETUP else workload.actors[number - 1]
    if actor.cpu is not None:
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[actor.cpu % len(cpus)]})
    mount_fd = os.open(stage.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    ctx = Context(number, mount_fd, InodeReader(stage.fs), stage.shared)
    ctx.cgroup = stage.cgroup
    ctx.barriers = Barriers(workload, number, board)
    if not spin_until(board.gate_is_open, _GATE_S):
        raise TimeoutError("the start gate did not open")
    board.mark_started(number)
    spin_until(lambda: board.all_started(group), _START_S)
    if actor.sched == "idle":
        # Not before: the others wait for all to start.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _run_ops(stage, number, ctx, crowded=len(group) > len(os.sched_getaffinity(0)))


def _run_ops(stage: Stage, number: int, ctx: Context, *, crowded: bool) -> None:
    actors = stage.workload.actors
    counted = tuple(n for n, actor in enumerate(actors, 1) if actor.loop is not None)
    free_running = number != SETUP and actors[number - 1].loop is None
    ops = islice(concrete_ops(stage.workload, number), stage.shared.rows[number].capacity)
    for sequence, op in enumerate(ops):
        if free_running and stage.shared.board.all_ended(counted):
            return
        ctx.start(sequence)
        if run_op(ctx, op) and stage.on_durable and op.is_crash_point:
            stage.on_durable(ctx.op_id, ctx.end_ns)
        if crowded:
            # With more actors than CPUs one would run hundreds of ops until the next scheduler tick.
            os.sched_yield()


def run_op(ctx: Context, op: Op) -> bool:
    """Run one op and log it; True if it succeeded."""
    try:
        ACTIONS[op.name](ctx, op)
    except OSError as error:
        if ctx.end_ns or not error.errno:
            raise  # from cleaning up after an op that had succeeded: nothing an op can do
        ctx.fail(error.errno)
        return False
    except MemoryError:
        ctx.fail(errno.ENOMEM)
        return False
    return True


def concrete_ops(workload: Workload, number: int) -> Iterator[Op]:
    """All ops of an actor's run in order, drawn anew for each iteration; endless if it has no count."""
    resolver = Resolver(workload, number)
    block = workload.block(number)
    loop = 1 if number == SETUP else workload.actors[number - 1].loop
    drawn = any(varies(op) for op in block)
    for iteration in count() if loop is None else range(loop):
        # Seeding the draws costs as much as an op: not done where there is nothing to draw.
        yield from resolver.iteration(iteration if drawn else 0)
