"""Actions on names: create, mkdir, symlink, mknod, tmplink, link, rename, unlink, rmdir.

Parents are opened first, so their identity is exact and pinned. What a name stands for is looked up
between `begin` and the call (or the return and `end`): another actor may change the name in between,
so subject and other are what was there at some moment of the op, not surely what the op hit.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import nullcontext, suppress

from fuzzer.kernel import libc
from fuzzer.kernel.actions.base import OPENED_FLAGS, Action, Context, OpenFile
from fuzzer.state.stamps import encode, file_tag
from fuzzer.workload.model import Op

_RENAME_FLAGS = {"none": 0, "noreplace": 1, "exchange": 2, "whiteout": 4}
"""RENAME_NOREPLACE, RENAME_EXCHANGE and RENAME_WHITEOUT of rename(2)."""

_NODES = {"fifo": (stat.S_IFIFO, 0), "null": (stat.S_IFCHR, os.makedev(1, 3)), "socket": (stat.S_IFSOCK, 0)}
"""Type and device of a special file. No device but null: a workload must not reach a real one."""

_CREATE = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW


def create(ctx: Context, op: Op) -> None:
    mode, flags = op.number("mode"), _CREATE | OPENED_FLAGS[op.text("flags")]
    with ctx.parent(op.text("path")) as parent:
        name = os.fsencode(parent.name)
        ctx.begin(directory=parent.inode)
        fd = libc.openat2(parent.fd, name, flags, mode, libc.RESOLVE_NO_SYMLINKS)
        try:
            ctx.found(ctx.inode_of(fd))
            ctx.end()
        finally:
            os.close(fd)


def mkdir(ctx: Context, op: Op) -> None:
    mode = op.number("mode")
    with ctx.parent(op.text("path")) as parent:
        ctx.begin(directory=parent.inode)
        os.mkdir(parent.name, mode, dir_fd=parent.fd)
        ctx.found(ctx.name_of(parent))
        ctx.end()


def symlink(ctx: Context, op: Op) -> None:
    target = op.text("target")
    with ctx.parent(op.text("path")) as parent:
        ctx.begin(directory=parent.inode)
        os.symlink(target, parent.name, dir_fd=parent.fd)
        ctx.found(ctx.name_of(parent))
        ctx.end()


def mknod(ctx: Context, op: Op) -> None:
    kind, device = _NODES[op.text("kind")]
    with ctx.parent(op.text("path")) as parent:
        ctx.begin(directory=parent.inode)
        os.mknod(parent.name, kind | op.number("mode"), device, dir_fd=parent.fd)
        ctx.found(ctx.name_of(parent))
        ctx.end()


def tmplink(ctx: Context, op: Op) -> None:
    """A file that has all its first content when it gets its name. After a short write
    there is nothing to link: EIO."""
    offset, length = op.number("off"), op.number("len")
    with ctx.parent(op.text("path")) as parent:
        flags = os.O_TMPFILE | os.O_RDWR
        with OpenFile(
            libc.openat2(parent.fd, b".", flags, op.number("mode"), libc.RESOLVE_NO_SYMLINKS), ctx.identity
        ) as file:
            data = encode(ctx.op_id, file_tag(file.inode), offset, length)
            ctx.begin(file.inode, directory=parent.inode)
            if os.pwrite(file.fd, data, offset) < length:
                raise OSError(errno.EIO, "short write")
            if op.text("fsync") == "yes":
                os.fsync(file.fd)
            libc.linkat(file.fd, b"", parent.fd, os.fsencode(parent.name), libc.AT_EMPTY_PATH)
            ctx.end()


def link(ctx: Context, op: Op) -> None:
    # The source is named by descriptor, so the subject is exact whoever renames meanwhile.
    with ctx.open(op.text("from"), os.O_PATH) as source, ctx.parent(op.text("to")) as parent:
        name = os.fsencode(parent.name)
        ctx.begin(source.inode, directory=parent.inode)
        libc.linkat(source.fd, b"", parent.fd, name, libc.AT_EMPTY_PATH)
        ctx.end()


def rename(ctx: Context, op: Op) -> None:
    flags = _RENAME_FLAGS[op.text("flags")]
    with ctx.parent(op.text("from")) as old, ctx.parent(op.text("to")) as new:
        ctx.begin(directory=old.inode, directory2=new.inode)
        ctx.found(ctx.name_of(old), ctx.name_of(new))
        libc.renameat2(old.fd, old.name, new.fd, new.name, flags)
        ctx.end()


def unlink(ctx: Context, op: Op) -> None:
    """With `fsync` the op is over when the file, which may have no name any more, was synced."""
    synced = ctx.open(op.text("path"), os.O_RDONLY) if op.text("fsync") == "yes" else nullcontext()
    with synced as file, ctx.parent(op.text("path")) as parent:
        ctx.begin(directory=parent.inode)
        ctx.found(ctx.name_of(parent))
        os.unlink(parent.name, dir_fd=parent.fd)
        if file is not None:
            with suppress(OSError):  # The name is gone all the same.
                os.fsync(file.fd)
        ctx.end()


def rmdir(ctx: Context, op: Op) -> None:
    with ctx.parent(op.text("path")) as parent:
        ctx.begin(directory=parent.inode)
        ctx.found(ctx.name_of(parent))
        os.rmdir(parent.name, dir_fd=parent.fd)
        ctx.end()


ACTIONS: dict[str, Action] = {
    "create": create,
    "mkdir": mkdir,
    "symlink": symlink,
    "mknod": mknod,
    "tmplink": tmplink,
    "link": link,
    "rename": rename,
    "unlink": unlink,
    "rmdir": rmdir,
}
