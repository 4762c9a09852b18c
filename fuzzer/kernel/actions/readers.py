"""The action `look`: calls that only read, and bring inodes, extents and pages into memory or out of it."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable

from fuzzer.kernel.actions.base import Action, Context
from fuzzer.workload.model import Op

_FS_IOC_FIEMAP = 0xC020660B
_FIEMAP = struct.Struct("=QQIIII")
"""struct fiemap: start, length, flags, mapped extents, room for extents, reserved."""

_FIEMAP_EXTENT_BYTES, _FIEMAP_EXTENTS = 56, 64

_XFS_IOC_BULKSTAT = 0x8040587F
_BULK_REQUEST = struct.Struct("=QIIII40x")
"""struct xfs_bulk_ireq: first inode, flags, room for inodes, how many came, allocation group, reserved."""

_BULKSTAT_BYTES, _BULKSTAT_INODES = 192, 64


def _fiemap(fd: int) -> None:
    head = _FIEMAP.pack(0, (1 << 64) - 1, 0, 0, _FIEMAP_EXTENTS, 0)
    fcntl.ioctl(fd, _FS_IOC_FIEMAP, bytearray(head + bytes(_FIEMAP_EXTENT_BYTES * _FIEMAP_EXTENTS)))


def _bulkstat(fd: int) -> None:
    head = _BULK_REQUEST.pack(0, 0, _BULKSTAT_INODES, 0, 0)
    fcntl.ioctl(fd, _XFS_IOC_BULKSTAT, bytearray(head + bytes(_BULKSTAT_BYTES * _BULKSTAT_INODES)))


def _seek_holes(fd: int) -> None:
    """Step over the file's data and holes; ENXIO is its end."""
    at = 0
    try:
        while True:
            at = os.lseek(fd, os.lseek(fd, at, os.SEEK_DATA), os.SEEK_HOLE)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise


def _list_xattrs(fd: int) -> None:
    for name in os.listxattr(fd):
        os.getxattr(fd, name)


def _read_ahead(fd: int) -> None:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)


def _drop_pages(fd: int) -> None:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


_LOOKS: dict[str, Callable[[int], object]] = {
    "stat": os.fstat,
    "statfs": os.fstatvfs,
    "fiemap": _fiemap,
    "readahead": _read_ahead,
    "fadvise": _drop_pages,
    "seek_hole": _seek_holes,
    "listxattr": _list_xattrs,
    "bulkstat": _bulkstat,
}


def look(ctx: Context, op: Op) -> None:
    with ctx.open(op.text("path"), os.O_RDONLY) as file:
        ctx.begin(file.inode)
        _LOOKS[op.text("how")](file.fd)
        ctx.end()


ACTIONS: dict[str, Action] = {"look": look}
