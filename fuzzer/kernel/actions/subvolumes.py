"""Actions on btrfs subvolumes: subvol_create, snapshot, subvol_delete."""

from __future__ import annotations

import fcntl
import os
import struct

from fuzzer.kernel.actions.base import Action, Context, Parent
from fuzzer.workload.model import Op

_SUBVOL_CREATE_V2, _SNAP_CREATE_V2 = 0x50009418, 0x50009417
_ARGS_V2 = struct.Struct("=qQQ32x4040s")
"""struct btrfs_ioctl_vol_args_v2 of linux/btrfs.h: fd, transid, flags, unused, name."""

_SNAP_DESTROY = 0x5000940F
_ARGS = struct.Struct("=q4088s")
"""struct btrfs_ioctl_vol_args: fd, name."""

_ACCESS = {"rw": 0, "ro": 1 << 1}
"""BTRFS_SUBVOL_RDONLY."""


def _ioctl(ctx: Context, parent: Parent, command: int, argument: bytes) -> None:
    with ctx.directory(parent) as directory:
        fcntl.ioctl(directory.fd, command, bytearray(argument))


def subvol_create(ctx: Context, op: Op) -> None:
    with ctx.parent(op.text("path")) as parent:
        ctx.begin(directory=parent.inode)
        _ioctl(ctx, parent, _SUBVOL_CREATE_V2, _ARGS_V2.pack(0, 0, 0, os.fsencode(parent.name)))
        ctx.found(ctx.name_of(parent))
        ctx.end()


def snapshot(ctx: Context, op: Op) -> None:
    """EINVAL if the source is no subvolume."""
    with ctx.open(op.text("from"), os.O_RDONLY) as source, ctx.parent(op.text("path")) as parent:
        argument = _ARGS_V2.pack(source.fd, 0, _ACCESS[op.text("access")], os.fsencode(parent.name))
        ctx.begin(other=source.inode, directory=parent.inode)
        _ioctl(ctx, parent, _SNAP_CREATE_V2, argument)
        ctx.found(ctx.name_of(parent), source.inode)
        ctx.end()


def subvol_delete(ctx: Context, op: Op) -> None:
    """Without waiting for a commit: the deletion may be undone until then (btrfs-subvolume(8))."""
    with ctx.parent(op.text("path")) as parent:
        ctx.begin(directory=parent.inode)
        ctx.found(ctx.name_of(parent))
        _ioctl(ctx, parent, _SNAP_DESTROY, _ARGS.pack(0, os.fsencode(parent.name)))
        ctx.end()


ACTIONS: dict[str, Action] = {
    "subvol_create": subvol_create,
    "snapshot": snapshot,
    "subvol_delete": subvol_delete,
}
