"""Actions on the surroundings: drop_caches, reclaim, squeeze, balance; and on time: sleep, barrier."""

from __future__ import annotations

import ctypes
import fcntl
import os
import time

from fuzzer.kernel.actions.base import Action, Context
from fuzzer.workload.model import Op

_DATA, _SYSTEM, _METADATA = 1, 2, 4
_BALANCE_TYPES = {"all": _DATA | _SYSTEM | _METADATA, "data": _DATA, "metadata": _METADATA, "system": _SYSTEM}
"""BTRFS_BALANCE_DATA, _SYSTEM, _METADATA of linux/btrfs.h."""

_BY_USAGE, _BY_LIMIT = 1 << 1, 1 << 5
"""BTRFS_BALANCE_ARGS_USAGE and _LIMIT: which fields of the filter count."""

_NO_USAGE_FILTER = 100

_BTRFS_IOC_BALANCE_V2 = 0xC4009420
"""_IOWR(0x94, 32, struct btrfs_ioctl_balance_args)."""


class _Filter(ctypes.Structure):
    """struct btrfs_balance_args: the chunks of one type to move. The ones between are not used."""

    _pack_ = 1
    _fields_ = (
        ("profiles", ctypes.c_uint64),
        ("usage", ctypes.c_uint64),
        ("between", ctypes.c_uint64 * 6),
        ("flags", ctypes.c_uint64),
        ("limit", ctypes.c_uint64),
        ("stripes_min", ctypes.c_uint32),
        ("stripes_max", ctypes.c_uint32),
        ("unused", ctypes.c_uint64 * 6),
    )


class _BalanceArgs(ctypes.Structure):
    """struct btrfs_ioctl_balance_args."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("state", ctypes.c_uint64),
        ("filters", _Filter * 3),
        ("expected", ctypes.c_uint64),
        ("considered", ctypes.c_uint64),
        ("completed", ctypes.c_uint64),
        ("unused", ctypes.c_uint64 * 72),
    )


assert ctypes.sizeof(_BalanceArgs) == _BTRFS_IOC_BALANCE_V2 >> 16 & 0x3FFF == 1024


def drop_caches(ctx: Context, op: Op) -> None:
    fd = os.open("/proc/sys/vm/drop_caches", os.O_WRONLY)
    try:
        ctx.begin()
        os.write(fd, op.text("level").encode())
        ctx.end()
    finally:
        os.close(fd)


def reclaim(ctx: Context, op: Op) -> None:
    assert ctx.cgroup is not None
    ctx.begin()
    ctx.end(ctx.cgroup.reclaim(op.number("bytes")))


def squeeze(ctx: Context, op: Op) -> None:
    assert ctx.cgroup is not None
    ctx.begin()
    ctx.cgroup.squeeze(op.number("limit"), op.number("hold_ms") / 1000)
    ctx.end()


def balance(ctx: Context, op: Op) -> None:
    """Rewrite chunks of the asked type; `result` is how many.

    A second balance at the same time is EINPROGRESS, another file system's answer ENOTTY.
    """
    arguments = _balance_args(op.text("type"), op.number("usage"), op.number("limit"))
    ctx.begin(ctx.root)
    fcntl.ioctl(ctx.mount_fd, _BTRFS_IOC_BALANCE_V2, arguments)
    ctx.end(arguments.completed)


def _balance_args(kind: str, usage: int, limit: int) -> _BalanceArgs:
    arguments = _BalanceArgs(flags=_BALANCE_TYPES[kind])
    for chosen in arguments.filters:
        if usage < _NO_USAGE_FILTER:
            chosen.flags |= _BY_USAGE
            chosen.usage = usage
        if limit:
            chosen.flags |= _BY_LIMIT
            chosen.limit = limit
    return arguments


def sleep(ctx: Context, op: Op) -> None:
    ctx.begin()
    time.sleep(op.number("us") / 1_000_000)
    ctx.end()


def spin(ctx: Context, op: Op) -> None:
    ctx.begin()
    end_ns = time.monotonic_ns() + op.number("us") * 1000
    while time.monotonic_ns() < end_ns:
        pass
    ctx.end()


def barrier(ctx: Context, op: Op) -> None:
    assert ctx.barriers is not None
    ctx.begin()
    ctx.barriers.wait(op.text("name"))
    ctx.end()


ACTIONS: dict[str, Action] = {
    "drop_caches": drop_caches,
    "reclaim": reclaim,
    "squeeze": squeeze,
    "balance": balance,
    "sleep": sleep,
    "spin": spin,
    "barrier": barrier,
}
