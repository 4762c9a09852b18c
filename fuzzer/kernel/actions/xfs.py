"""Actions on a whole xfs: growfs."""

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


def _device_bytes(fd: int) -> int:
    device = os.fstat(fd).st_dev
    size = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/size").read_text()
    return int(size) * SECTOR_BYTES


ACTIONS: dict[str, Action] = {"growfs": growfs}
