"""Writes of all kinds. Each is one system call: `result` says how much of it came about.

Stamps are made before `begin`, so that the interval holds the system call and little else.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from mmap import PAGESIZE

from fuzzer.kernel import libc
from fuzzer.kernel.actions.base import OPENED_FLAGS, Action, Context
from fuzzer.state.stamps import encode, file_tag
from fuzzer.workload.model import Op
from fuzzer.workload.ops import DIRECT_UNIT_BYTES

_SYNC_FLAGS = {**OPENED_FLAGS, "rwf_dsync": 0}
_RWF_FLAGS = {
    "none": 0,
    "rwf_dsync": os.RWF_DSYNC,
    "nowait": os.RWF_NOWAIT,
    "dontcache": 0x80,
    "atomic": 0x40,
}
"""RWF_* of linux/fs.h, those of `sync` and of `rwf`."""

_F_SETPIPE_SZ, _PIPE_BYTES = 1031, 1 << 20


def write(ctx: Context, op: Op) -> None:
    offset = op.number("off")
    with ctx.open(op.text("path"), os.O_RDWR | _SYNC_FLAGS[op.text("sync")]) as file:
        data = encode(ctx.op_id, file_tag(file.inode), offset, op.number("len"))
        ctx.begin(file.inode)
        ctx.end(os.pwritev(file.fd, _pieces(memoryview(data), op.number("buffers")), offset, _rwf(op)))


def _rwf(op: Op) -> int:
    return _RWF_FLAGS.get(op.text("sync"), 0) | _RWF_FLAGS[op.text("rwf")]


def _pieces(data: memoryview, count: int) -> Sequence[memoryview]:
    """`data` in at most `count` parts of whole device blocks, but for its end."""
    blocks = -(-len(data) // DIRECT_UNIT_BYTES)
    size = -(-blocks // count) * DIRECT_UNIT_BYTES
    return [data[start : start + size] for start in range(0, len(data), size)]


def append(ctx: Context, op: Op) -> None:
    """`result` is where it began: the write moves the descriptor to its end. As that is not known before,
    the stamps are those of offset 0. After a short write the place is not told: EIO."""
    length = op.number("len")
    flags = os.O_RDWR | os.O_APPEND | _SYNC_FLAGS[op.text("sync")]
    with ctx.open(op.text("path"), flags) as file:
        data = encode(ctx.op_id, file_tag(file.inode), 0, length)
        ctx.begin(file.inode)
        wrote = os.pwritev(file.fd, [data], -1, _RWF_FLAGS.get(op.text("sync"), 0))
        end = os.lseek(file.fd, 0, os.SEEK_CUR)
        if wrote < length:
            raise OSError(errno.EIO, "short write")
        ctx.end(end - length)


def splice(ctx: Context, op: Op) -> None:
    """splice(2) out of a pipe that was filled before; `result` is how much went into the file."""
    offset = op.number("off")
    with ctx.open(op.text("path"), os.O_RDWR) as file:
        data = encode(ctx.op_id, file_tag(file.inode), offset, op.number("len"))
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(writer, _F_SETPIPE_SZ, _PIPE_BYTES)
            held = os.write(writer, data)
            ctx.begin(file.inode)
            ctx.end(os.splice(reader, file.fd, held, offset_dst=offset))
        finally:
            os.close(reader)
            os.close(writer)


def fault_write(ctx: Context, op: Op) -> None:
    """Write from a mapping that reaches beyond the end of its memory file: a short count, or EFAULT.

    The fault is met by the kernel's copy, not by us: a store of ours there would be a SIGBUS (mmap(2)).
    """
    offset, length, good = op.number("off"), op.number("len"), op.number("good")
    readable = -(-good // PAGESIZE) * PAGESIZE
    with ctx.open(op.text("path"), os.O_RDWR) as file:
        memory = ctx.memory_file()
        os.ftruncate(memory, readable)
        os.pwrite(memory, encode(ctx.op_id, file_tag(file.inode), offset, good), readable - good)
        address = libc.map_shared(memory, readable + length, libc.PROT_READ, 0)
        try:
            ctx.begin(file.inode)
            ctx.end(libc.pwrite_from(file.fd, address + readable - good, length, offset))
        finally:
            libc.unmap(address, readable + length)


def dwrite(ctx: Context, op: Op) -> None:
    offset, length = op.number("off"), op.number("len")
    flags = os.O_RDWR | os.O_DIRECT | _SYNC_FLAGS[op.text("sync")]
    with ctx.open(op.text("path"), flags) as file, ctx.direct_buffer(length) as buffer:
        buffer[:] = encode(ctx.op_id, file_tag(file.inode), offset, length)
        ctx.begin(file.inode)
        ctx.end(os.pwritev(file.fd, _pieces(buffer, op.number("buffers")), offset, _rwf(op)))


def awrite(ctx: Context, op: Op) -> None:
    """Direct writes that are all under way at once: all of it, or an error if any of them had one.

    EIO if another part was written: any may have been then.
    """
    offset, length = op.number("off"), op.number("len")
    flags = os.O_RDWR | os.O_DIRECT | _SYNC_FLAGS[op.text("sync")]
    with ctx.open(op.text("path"), flags) as file, ctx.direct_buffer(length) as buffer:
        requests = ctx.async_writes()
        buffer[:] = encode(ctx.op_id, file_tag(file.inode), offset, length)
        parts = _pieces(buffer, op.number("parts"))
        ctx.begin(file.inode)
        results = requests.write(file.fd, parts, offset, _rwf(op))
        if max(results) > 0 and sum(results) != length:
            raise OSError(errno.EIO, f"parts ended with {results}")
        if min(results) < 0:
            raise OSError(-min(results), os.strerror(-min(results)))
        ctx.end(length)


def mapped_write(ctx: Context, op: Op) -> None:
    """`result` is how much was written; where the mapping has no file below, that ends it: EFAULT if it
    begins there."""
    source, offset, length = op.number("src"), op.number("off"), op.number("len")
    flags = os.O_RDWR | (os.O_DIRECT if op.text("direct") == "yes" else 0)
    start = source - source % PAGESIZE
    size = source - start + length
    with ctx.open(op.text("path"), flags) as file:
        address = libc.map_shared(file.fd, size, libc.PROT_READ, start)
        try:
            ctx.begin(file.inode, file.inode)
            ctx.end(libc.pwrite_from(file.fd, address + source - start, length, offset))
        finally:
            libc.unmap(address, size)


ACTIONS: dict[str, Action] = {
    "write": write,
    "append": append,
    "splice": splice,
    "fault_write": fault_write,
    "dwrite": dwrite,
    "awrite": awrite,
    "mapped_write": mapped_write,
}
