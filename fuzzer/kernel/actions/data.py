"""Actions on data that are no writes: stores, read, truncate, fallocate, clone, copy_range, dedupe.

Stamps are made before `begin`, so that the interval holds the system call and little else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from mmap import PAGESIZE

from fuzzer.kernel import libc
from fuzzer.kernel.actions.base import OPENED_FLAGS, Action, Context, OpenFile
from fuzzer.state.stamps import encode, file_tag
from fuzzer.workload.model import Op
from fuzzer.workload.ops import WORD_BYTES

_MSYNC_FLAGS = {"async": libc.MS_ASYNC, "sync": libc.MS_SYNC}

_KEEP_SIZE, _PUNCH_HOLE, _COLLAPSE, _ZERO, _INSERT, _UNSHARE = 0x01, 0x02, 0x08, 0x10, 0x20, 0x40
_FALLOCATE_FLAGS = {
    "alloc": 0,
    "keep": _KEEP_SIZE,
    "punch": _PUNCH_HOLE | _KEEP_SIZE,
    "zero": _ZERO,
    "zero_keep": _ZERO | _KEEP_SIZE,
    "collapse": _COLLAPSE,
    "insert": _INSERT,
    "unshare": _UNSHARE,
}
"""FALLOC_FL_* of linux/falloc.h."""

_FICLONERANGE = 0x4020940D
_CLONE_RANGE = struct.Struct("=qQQQ")
"""struct file_clone_range: src_fd, src_offset, src_length, dest_offset."""

_FIDEDUPERANGE = 0xC0189436
_DEDUPE_RANGE = struct.Struct("=QQHHI qQQiI")
"""struct file_dedupe_range with one file_dedupe_range_info: src_offset, src_length, dest_count and two
reserved; dest_fd, dest_offset, bytes_deduped, status, reserved."""


def mwrite(ctx: Context, op: Op) -> None:
    """Store stamps through a shared mapping.

    The stores are the kernel's: it reads a memory file into the mapping. Where a truncate of another
    actor takes the page away it then sees EFAULT or a short count, and not a SIGBUS of its process.
    """
    offset, length = op.number("off"), op.number("len")
    with ctx.open(op.text("path"), os.O_RDWR) as file:
        length = _before_end_of_file(file, offset, length)
        memory = ctx.memory_file()
        os.pwrite(memory, encode(ctx.op_id, file_tag(file.inode), offset, length), 0)
        start = offset - offset % PAGESIZE
        size = offset - start + length
        ctx.begin(file.inode)
        address = libc.map_shared(file.fd, size, libc.PROT_READ | libc.PROT_WRITE, start)
        try:
            stored = libc.pread_to(memory, address + offset - start, length, 0)
            if op.text("msync") != "none":
                libc.msync(address, size, _MSYNC_FLAGS[op.text("msync")])
            ctx.end(stored)
        finally:
            libc.unmap(address, size)


def _before_end_of_file(file: OpenFile, offset: int, length: int) -> int:
    """How much of the range can be stored to, in whole words; EFAULT, as a store's, if nothing.

    Memory behind the end of file in its last page can be stored to as well, but is no part of the file.
    """
    available = os.fstat(file.fd).st_size - offset
    available -= available % WORD_BYTES
    if available <= 0:
        raise OSError(errno.EFAULT, "nothing to store to before the end of file")
    return min(length, available)


def read(ctx: Context, op: Op) -> None:
    offset, length = op.number("off"), op.number("len")
    flags = os.O_RDONLY | (os.O_DIRECT if op.text("direct") == "yes" else 0)
    with ctx.open(op.text("path"), flags) as file, ctx.direct_buffer(length) as buffer:
        ctx.begin(file.inode)
        got = os.preadv(file.fd, [buffer], offset)
        ctx.end(got)
        ctx.saw(buffer[:got], offset)


def truncate(ctx: Context, op: Op) -> None:
    with ctx.open(op.text("path"), os.O_RDWR | OPENED_FLAGS[op.text("flags")]) as file:
        ctx.begin(file.inode)
        os.ftruncate(file.fd, op.number("size"))
        ctx.end()


def otrunc(ctx: Context, op: Op) -> None:
    """open(O_TRUNC) of the file that is open already, whoever renames meanwhile."""
    flags = os.O_RDWR | os.O_TRUNC | OPENED_FLAGS[op.text("flags")]
    with ctx.open(op.text("path"), os.O_RDWR) as file:
        ctx.begin(file.inode)
        os.close(os.open(f"/proc/self/fd/{file.fd}", flags))
        ctx.end()


def fallocate(ctx: Context, op: Op) -> None:
    flags, offset, length = _FALLOCATE_FLAGS[op.text("mode")], op.number("off"), op.number("len")
    with ctx.open(op.text("path"), os.O_RDWR) as file:
        ctx.begin(file.inode)
        libc.fallocate(file.fd, flags, offset, length)
        ctx.end()


def clone(ctx: Context, op: Op) -> None:
    source_offset, length, offset = op.number("src"), op.number("len"), op.number("off")
    with ctx.open(op.text("from"), os.O_RDONLY) as source, ctx.open(op.text("to"), os.O_RDWR) as file:
        argument = _CLONE_RANGE.pack(source.fd, source_offset, length, offset)
        ctx.begin(file.inode, source.inode)
        fcntl.ioctl(file.fd, _FICLONERANGE, argument)
        ctx.end()


def copy_range(ctx: Context, op: Op) -> None:
    """copy_file_range(2); `result` is the number of bytes copied."""
    source_offset, length, offset = op.number("src"), op.number("len"), op.number("off")
    with ctx.open(op.text("from"), os.O_RDONLY) as source, ctx.open(op.text("to"), os.O_RDWR) as file:
        ctx.begin(file.inode, source.inode)
        ctx.end(os.copy_file_range(source.fd, file.fd, length, source_offset, offset))


def dedupe(ctx: Context, op: Op) -> None:
    """FIDEDUPERANGE; `result` is the number of bytes shared now.

    Data that differs (FILE_DEDUPE_RANGE_DIFFERS, status 1) is a success with result 0; a negative
    status is the errno of the one destination (ioctl_fideduperange(2)).
    """
    source_offset, length, offset = op.number("src"), op.number("len"), op.number("off")
    with ctx.open(op.text("from"), os.O_RDONLY) as source, ctx.open(op.text("to"), os.O_RDWR) as file:
        argument = bytearray(_DEDUPE_RANGE.pack(source_offset, length, 1, 0, 0, file.fd, offset, 0, 0, 0))
        ctx.begin(file.inode, source.inode)
        fcntl.ioctl(source.fd, _FIDEDUPERANGE, argument)
        *_, shared, status, _ = _DEDUPE_RANGE.unpack(argument)
        if status < 0:
            raise OSError(-status, os.strerror(-status))
        ctx.end(shared if status == 0 else 0)


ACTIONS: dict[str, Action] = {
    "mwrite": mwrite,
    "read": read,
    "truncate": truncate,
    "otrunc": otrunc,
    "fallocate": fallocate,
    "clone": clone,
    "copy_range": copy_range,
    "dedupe": dedupe,
}
