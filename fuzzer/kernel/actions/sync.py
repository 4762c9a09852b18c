"""Actions that make durable: fsync, fdatasync, msync, sync_file_range, sync, syncfs, freeze, remount_ro."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from mmap import PAGESIZE

from fuzzer.kernel import libc
from fuzzer.kernel.actions.base import Action, Context
from fuzzer.workload.model import Op

_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
"""SYNC_FILE_RANGE_* of sync_file_range(2)."""


def fsync(ctx: Context, op: Op) -> None:
    with ctx.open(op.text("path"), os.O_RDONLY, follow=op.text("follow") == "yes") as file:
        ctx.begin(file.inode)
        os.fsync(file.fd)
        ctx.end()


def fdatasync(ctx: Context, op: Op) -> None:
    with ctx.open(op.text("path"), os.O_RDONLY) as file:
        ctx.begin(file.inode)
        os.fdatasync(file.fd)
        ctx.end()


def msync(ctx: Context, op: Op) -> None:
    """Map the range and sync the mapping. Nothing is touched, so it may go beyond the end of file."""
    offset = op.number("off")
    start = offset - offset % PAGESIZE
    size = offset - start + op.number("len")
    with ctx.open(op.text("path"), os.O_RDWR) as file:
        address = libc.map_shared(file.fd, size, libc.PROT_READ | libc.PROT_WRITE, start)
        try:
            ctx.begin(file.inode)
            libc.msync(address, size, libc.MS_SYNC)
            ctx.end()
        finally:
            libc.unmap(address, size)


def sync_file_range(ctx: Context, op: Op) -> None:
    with ctx.open(op.text("path"), os.O_RDONLY) as file:
        ctx.begin(file.inode)
        flags = _WAIT_BEFORE | _WRITE | _WAIT_AFTER
        libc.sync_file_range(file.fd, op.number("off"), op.number("len"), flags)
        ctx.end()


def sync(ctx: Context, op: Op) -> None:
    """sync(2). It writes out every file system of the machine, not only the workload's."""
    ctx.begin(ctx.root)
    os.sync()
    ctx.end()


def syncfs(ctx: Context, op: Op) -> None:
    ctx.begin(ctx.root)
    libc.syncfs(ctx.mount_fd)
    ctx.end()


def freeze(ctx: Context, op: Op) -> None:
    """Freeze the file system, hold it, thaw it. The op is over when it is frozen.

    An actor that is killed meanwhile leaves it frozen: `run_workload` thaws it then.
    """
    ctx.begin(ctx.root)
    libc.freeze(ctx.mount_fd)
    try:
        ctx.end()
        time.sleep(op.number("hold_ms") / 1000)
    finally:
        libc.thaw(ctx.mount_fd)


def remount_ro(ctx: Context, op: Op) -> None:
    """Remount read-only, hold it, remount read-write. The op is over when it is read-only.

    An actor that is killed meanwhile leaves it so: `run_workload` makes it writable then.
    """
    ctx.begin(ctx.root)
    libc.reconfigure(ctx.mount_fd, "ro")
    try:
        ctx.end()
        time.sleep(op.number("hold_ms") / 1000)
    finally:
        # Refused if it had to stop meanwhile, of which its own words are in the kernel's log.
        with suppress(OSError):
            libc.reconfigure(ctx.mount_fd, "rw")


ACTIONS: dict[str, Action] = {
    "fsync": fsync,
    "fdatasync": fdatasync,
    "msync": msync,
    "sync_file_range": sync_file_range,
    "sync": sync,
    "syncfs": syncfs,
    "freeze": freeze,
    "remount_ro": remount_ro,
}
