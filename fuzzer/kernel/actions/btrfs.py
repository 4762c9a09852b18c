"""Actions on a whole btrfs: balance and its control, scrub, quota, resize; and send and defrag."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from fuzzer.kernel.actions.base import Action, Context
from fuzzer.workload.model import Op

_DATA, _SYSTEM, _METADATA = 1, 2, 4
_BALANCE_TYPES = {"all": _DATA | _SYSTEM | _METADATA, "data": _DATA, "metadata": _METADATA, "system": _SYSTEM}
"""BTRFS_BALANCE_DATA, _SYSTEM, _METADATA of linux/btrfs.h."""

_BY_USAGE, _BY_VRANGE, _BY_LIMIT, _CONVERT = 1 << 1, 1 << 4, 1 << 5, 1 << 8
"""BTRFS_BALANCE_ARGS_USAGE, _VRANGE, _LIMIT and _CONVERT: which fields of the filter count."""

_FORCE, _RESUME = 1 << 3, 1 << 4
"""BTRFS_BALANCE_FORCE, without which metadata loses no copy, and BTRFS_BALANCE_RESUME."""

_PROFILES = {"single": 1 << 48, "dup": 1 << 5}
"""BTRFS_AVAIL_ALLOC_BIT_SINGLE and BTRFS_BLOCK_GROUP_DUP of linux/btrfs_tree.h."""

_NO_USAGE_FILTER = 100

_BTRFS_IOC_BALANCE_V2 = 0xC4009420
"""_IOWR(0x94, 32, struct btrfs_ioctl_balance_args)."""


class _Filter(ctypes.Structure):
    """struct btrfs_balance_args: the chunks of one type to move. `place`, on the device, is not used."""

    _pack_ = 1
    _fields_ = (
        ("profiles", ctypes.c_uint64),
        ("usage", ctypes.c_uint64),
        ("place", ctypes.c_uint64 * 3),
        ("vstart", ctypes.c_uint64),
        ("vend", ctypes.c_uint64),
        ("target", ctypes.c_uint64),
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

_BTRFS_IOC_BALANCE_CTL = 0x40049421
"""_IOW(0x94, 33, int)."""

_PAUSE, _CANCEL = 1, 2

_BTRFS_IOC_SCRUB = 0xC400941B
_SCRUB_HEAD = struct.Struct("=4Q")
_SCRUB_ARGS_BYTES = 1024
"""struct btrfs_ioctl_scrub_args: devid, start, end, flags, then progress."""

_BTRFS_IOC_DEFRAG_RANGE = 0x40309410
_DEFRAG_ARGS = struct.Struct("=QQQII16x")
"""struct btrfs_ioctl_defrag_range_args: start, len, flags, extent_thresh, compress_type."""

_DEFRAG_COMPRESS, _DEFRAG_START_IO = 1, 2
_COMPRESSION = {"none": 0, "zlib": 1, "lzo": 2, "zstd": 3}

_BTRFS_IOC_QUOTA_CTL, _QUOTA_CTL = 0xC0109428, struct.Struct("=QQ")
_QUOTA_COMMANDS = {"enable": 1, "disable": 2}
_BTRFS_IOC_QUOTA_RESCAN, _QUOTA_RESCAN_BYTES = 0x4040942C, 64

_BTRFS_IOC_RESIZE, _RESIZE_ARGS = 0x50009403, struct.Struct("=q4088s")
"""struct btrfs_ioctl_vol_args: fd, and the new size in words."""

_BTRFS_IOC_SEND = 0x40489426
_SEND_ARGS = struct.Struct("=qQQQQI28x")
"""struct btrfs_ioctl_send_args: send_fd, clone_sources_count, clone_sources, parent_root, flags, version."""

_FIRST_DEVICE = 1


def balance(ctx: Context, op: Op) -> None:
    """Rewrite chunks of the asked type; `result` is how many.

    A second balance at the same time is EINPROGRESS, another file system's answer ENOTTY.
    """
    arguments = _balance_args(op)
    ctx.begin(ctx.root)
    fcntl.ioctl(ctx.mount_fd, _BTRFS_IOC_BALANCE_V2, arguments)
    ctx.end(arguments.completed)


def _balance_args(op: Op) -> _BalanceArgs:
    arguments = _BalanceArgs(flags=_BALANCE_TYPES[op.text("type")])
    for chosen in arguments.filters:
        if op.number("usage") < _NO_USAGE_FILTER:
            chosen.flags |= _BY_USAGE
            chosen.usage = op.number("usage")
        if op.number("limit"):
            chosen.flags |= _BY_LIMIT
            chosen.limit = op.number("limit")
        if op.number("vend"):
            chosen.flags |= _BY_VRANGE
            chosen.vend = op.number("vend")
        if op.text("convert") != "none":
            chosen.flags |= _CONVERT
            chosen.target = _PROFILES[op.text("convert")]
            arguments.flags |= _FORCE
    return arguments


def balance_ctl(ctx: Context, op: Op) -> None:
    """Pause or cancel the balance of another actor, or go on with a paused one; ENOTCONN: there is none."""
    ctx.begin(ctx.root)
    if op.text("action") == "resume":
        arguments = _BalanceArgs(flags=_RESUME)
        fcntl.ioctl(ctx.mount_fd, _BTRFS_IOC_BALANCE_V2, arguments)
        ctx.end(arguments.completed)
        return
    command = _PAUSE if op.text("action") == "pause" else _CANCEL
    fcntl.ioctl(ctx.mount_fd, _BTRFS_IOC_BALANCE_CTL, command)
    ctx.end()


def scrub(ctx: Context, op: Op) -> None:
    """Scrub the device and repair; what it finds wrong is in the kernel's log."""
    arguments = bytearray(_SCRUB_ARGS_BYTES)
    _SCRUB_HEAD.pack_into(arguments, 0, _FIRST_DEVICE, 0, (1 << 64) - 1, 0)
    ctx.begin(ctx.root)
    fcntl.ioctl(ctx.mount_fd, _BTRFS_IOC_SCRUB, arguments)
    ctx.end()


def quota(ctx: Context, op: Op) -> None:
    action = op.text("action")
    ctx.begin(ctx.root)
    if action == "rescan":
        fcntl.ioctl(ctx.mount_fd, _BTRFS_IOC_QUOTA_RESCAN, bytes(_QUOTA_RESCAN_BYTES))
    else:
        command = bytearray(_QUOTA_CTL.pack(_QUOTA_COMMANDS[action], 0))
        fcntl.ioctl(ctx.mount_fd, _BTRFS_IOC_QUOTA_CTL, command)
    ctx.end()


def resize(ctx: Context, op: Op) -> None:
    """Make the file system smaller by some bytes, or as large as its device again."""
    size = "max" if op.text("to") == "max" else f"-{op.number('by')}"
    argument = bytearray(_RESIZE_ARGS.pack(0, f"{_FIRST_DEVICE}:{size}".encode()))
    ctx.begin(ctx.root)
    fcntl.ioctl(ctx.mount_fd, _BTRFS_IOC_RESIZE, argument)
    ctx.end()


def send(ctx: Context, op: Op) -> None:
    """Send a read-only snapshot (any other subvolume: EPERM); `result` is how many bytes that made.

    Into memory: send writes with kernel_write(), which refuses /dev/null (it has a plain `write`).
    """
    memory = os.memfd_create("powercut-send")
    try:
        with ctx.open(op.text("path"), os.O_RDONLY) as subvolume:
            arguments = bytearray(_SEND_ARGS.pack(memory, 0, 0, 0, 0, 0))
            ctx.begin(subvolume.inode)
            fcntl.ioctl(subvolume.fd, _BTRFS_IOC_SEND, arguments)
            ctx.end(os.fstat(memory).st_size)
    finally:
        os.close(memory)


def defrag(ctx: Context, op: Op) -> None:
    """Rewrite a file in larger extents, compressed if asked to."""
    kind = _COMPRESSION[op.text("compress")]
    flags = _DEFRAG_START_IO | (_DEFRAG_COMPRESS if kind else 0)
    with ctx.open(op.text("path"), os.O_RDWR) as file:
        ctx.begin(file.inode)
        fcntl.ioctl(file.fd, _BTRFS_IOC_DEFRAG_RANGE, _DEFRAG_ARGS.pack(0, (1 << 64) - 1, flags, 0, kind))
        ctx.end()


ACTIONS: dict[str, Action] = {
    "balance": balance,
    "balance_ctl": balance_ctl,
    "scrub": scrub,
    "quota": quota,
    "resize": resize,
    "send": send,
    "defrag": defrag,
}
