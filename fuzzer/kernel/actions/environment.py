"""Actions on the surroundings: memory, knobs, caches, the label; and on time: sleep, spin, barrier."""

from __future__ import annotations

import fcntl
import os
import time

from fuzzer.kernel import libc
from fuzzer.kernel.actions.base import Action, Context
from fuzzer.kernel.control import trim_fd
from fuzzer.workload.model import Op

_FS_IOC_SETFSLABEL = 0x41009432
"""_IOW(0x94, 50, char[256]) of linux/fs.h."""

_LABEL_BYTES = 256


def drop_caches(ctx: Context, op: Op) -> None:
    _write_vm(ctx, "drop_caches", op.text("level"))


def compact(ctx: Context, op: Op) -> None:
    """Compact memory: folios of the page cache migrate, dirty ones and those under writeback included."""
    _write_vm(ctx, "compact_memory", "1")


def knob(ctx: Context, op: Op) -> None:
    """Set a knob of the whole machine. `run_workload` sets it back, whatever becomes of the actor."""
    _write_vm(ctx, op.text("name"), str(op.number("value")))


def _write_vm(ctx: Context, name: str, text: str) -> None:
    fd = os.open(f"/proc/sys/vm/{name}", os.O_WRONLY)
    try:
        ctx.begin()
        os.write(fd, text.encode())
        ctx.end()
    finally:
        os.close(fd)


def evict(ctx: Context, op: Op) -> None:
    """Do what can be done to have an inode leave memory: drop its clean pages, then unused dentries and
    inodes. There is no call for one inode, so the second half is machine-wide; a dirty inode stays."""
    with ctx.open(op.text("path"), os.O_RDONLY) as file:
        inode = file.inode
        os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)
    fd = os.open("/proc/sys/vm/drop_caches", os.O_WRONLY)
    try:
        ctx.begin(inode)
        os.write(fd, b"2")
        ctx.end()
    finally:
        os.close(fd)


def fstrim(ctx: Context, op: Op) -> None:
    """Discard what is free. EOPNOTSUPP on a device that takes no discards, as that of the FUSE recorder."""
    ctx.begin(ctx.root)
    trim_fd(ctx.mount_fd)
    ctx.end()


def label(ctx: Context, op: Op) -> None:
    """Give the file system a label that names this op; xfs has room for twelve characters."""
    text = f"op{ctx.op_id % 10**9}".encode()
    ctx.begin(ctx.root)
    fcntl.ioctl(ctx.mount_fd, _FS_IOC_SETFSLABEL, text.ljust(_LABEL_BYTES, b"\0"))
    ctx.end()


def remount(ctx: Context, op: Op) -> None:
    """EINVAL for an option the file system does not have."""
    option = op.text("option")
    ctx.begin(ctx.root)
    libc.reconfigure(ctx.mount_fd, "" if option == "none" else option)
    ctx.end()


def reclaim(ctx: Context, op: Op) -> None:
    assert ctx.cgroup is not None
    ctx.begin()
    ctx.end(ctx.cgroup.reclaim(op.number("bytes")))


def squeeze(ctx: Context, op: Op) -> None:
    assert ctx.cgroup is not None
    ctx.begin()
    ctx.cgroup.squeeze(op.number("limit"), op.number("hold_ms") / 1000)
    ctx.end()


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
    "compact": compact,
    "evict": evict,
    "knob": knob,
    "fstrim": fstrim,
    "label": label,
    "remount": remount,
    "sleep": sleep,
    "spin": spin,
    "barrier": barrier,
}
