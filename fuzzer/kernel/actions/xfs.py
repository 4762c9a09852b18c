"""Actions only xfs has: growfs, and the exchange of two ranges."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from fuzzer.kernel.actions.base import Action, Context
from fuzzer.workload.model import Op
from fuzzer.writelog.model import SECTOR_BYTES

_XFS_IOC_FSGEOMETRY, _GEOMETRY_BYTES = 0x8100587E, 256
_GEOMETRY = struct.Struct("=I24xIQ")
"""struct xfs_fsop_geom (fs/xfs/libxfs/xfs_fs.h): blocksize, imaxpct, datablocks."""

_XFS_IOC_FSGROWFSDATA, _GROW = 0x4010586E, struct.Struct("=QI4x")
"""struct xfs_growfs_data: newblocks, imaxpct."""


_XFS_IOC_EXCHANGE_RANGE, _EXCHANGE = 0x40285881, struct.Struct("=i4xQQQQ")
"""struct xfs_exchange_range: file1_fd, file1_offset, file2_offset, length, flags."""


def growfs(ctx: Context, op: Op) -> None:
    """Add blocks at the end. ENOSPC, without asking the kernel, where the device ends: it would read
    there, and log that it cannot (xfs_growfs_data_private)."""
    geometry = bytearray(_GEOMETRY_BYTES)
    fcntl.ioctl(ctx.mount_fd, _XFS_IOC_FSGEOMETRY, geometry)
    block_bytes, imaxpct, blocks = _GEOMETRY.unpack_from(geometry)
    blocks += op.number("blocks")
    if blocks * block_bytes > _device_bytes(ctx.mount_fd):
        raise OSError(errno.ENOSPC, "the device ends here")
    ctx.begin(ctx.root)
    fcntl.ioctl(ctx.mount_fd, _XFS_IOC_FSGROWFSDATA, _GROW.pack(blocks, imaxpct))
    ctx.end()


def exchange_range(ctx: Context, op: Op) -> None:
    """EOPNOTSUPP on a file system that was made without it, EINVAL behind the end of a file."""
    source_offset, length, offset = op.number("src"), op.number("len"), op.number("off")
    with ctx.open(op.text("from"), os.O_RDWR) as source, ctx.open(op.text("to"), os.O_RDWR) as file:
        argument = _EXCHANGE.pack(source.fd, source_offset, offset, length, 0)
        ctx.begin(file.inode, source.inode)
        fcntl.ioctl(file.fd, _XFS_IOC_EXCHANGE_RANGE, argument)
        ctx.end()


def _device_bytes(fd: int) -> int:
    device = os.fstat(fd).st_dev
    size = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/size").read_text()
    return int(size) * SECTOR_BYTES


ACTIONS: dict[str, Action] = {"growfs": growfs, "exchange_range": exchange_range}
