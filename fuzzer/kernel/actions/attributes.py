"""Actions on attributes: chmod, chown, utimes, chattr, extsize, setxattr, removexattr, acl."""

from __future__ import annotations

import fcntl
import os
import struct
import sys

from fuzzer.kernel import libc
from fuzzer.kernel.actions.base import Action, Context
from fuzzer.state.utimes_value import utimes_ns
from fuzzer.state.xattr_value import xattr_value
from fuzzer.workload.model import Op

_FLAGS = {
    "nocow": 0x800000,
    "compress": 0x4,
    "append": libc.FS_APPEND_FL,
    "immutable": libc.FS_IMMUTABLE_FL,
}
"""FS_NOCOW_FL and the others of linux/fs.h."""

_FLAGS_BYTES = 4

_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
_FSXATTR = struct.Struct("=5I8x")
"""struct fsxattr: xflags, extsize, nextents, projid, cowextsize."""

_XFLAG_EXTSIZE = 0x800

_ACL_HEAD, _ACL_ENTRY = (2).to_bytes(4, "little"), struct.Struct("<HHI")
"""struct posix_acl_xattr_header and _entry of linux/posix_acl_xattr.h: tag, rights, who. The tags are
those of the owner, a user, the group, the mask and others."""
_ACL_OPEN = {"default": os.O_DIRECTORY, "access": 0}
_ALL_RIGHTS, _NOBODY = 7, (1 << 32) - 1


def chmod(ctx: Context, op: Op) -> None:
    with ctx.open(op.text("path"), os.O_RDONLY) as file:
        ctx.begin(file.inode)
        os.fchmod(file.fd, op.number("mode"))
        ctx.end()


def chown(ctx: Context, op: Op) -> None:
    with ctx.open(op.text("path"), os.O_RDONLY) as file:
        ctx.begin(file.inode)
        os.fchown(file.fd, op.number("uid"), op.number("gid"))
        ctx.end()


def utimes(ctx: Context, op: Op) -> None:
    time_ns = utimes_ns(ctx.op_id)
    with ctx.open(op.text("path"), os.O_RDONLY) as file:
        ctx.begin(file.inode)
        os.utime(file.fd, ns=(time_ns, time_ns))
        ctx.end()


def chattr(ctx: Context, op: Op) -> None:
    """Change one flag of those that are there (FS_IOC_GETFLAGS); two such changes may undo each other."""
    flag, argument = _FLAGS[op.text("flag")], bytearray(_FLAGS_BYTES)
    with ctx.open(op.text("path"), os.O_RDONLY) as file:
        fcntl.ioctl(file.fd, libc.FS_IOC_GETFLAGS, argument)
        flags = int.from_bytes(argument, sys.byteorder)
        flags = flags | flag if op.text("to") == "on" else flags & ~flag
        ctx.begin(file.inode)
        fcntl.ioctl(file.fd, libc.FS_IOC_SETFLAGS, flags.to_bytes(_FLAGS_BYTES, sys.byteorder))
        ctx.end()


def extsize(ctx: Context, op: Op) -> None:
    """EINVAL for a file that has extents already (xfs_ioctl_setattr_check_extsize)."""
    with ctx.open(op.text("path"), os.O_RDWR) as file:
        argument = bytearray(_FSXATTR.size)
        fcntl.ioctl(file.fd, _FS_IOC_FSGETXATTR, argument)
        flags, _, extents, project, cow = _FSXATTR.unpack(argument)
        ctx.begin(file.inode)
        new = _FSXATTR.pack(flags | _XFLAG_EXTSIZE, op.number("size"), extents, project, cow)
        fcntl.ioctl(file.fd, _FS_IOC_FSSETXATTR, new)
        ctx.end()


def acl(ctx: Context, op: Op) -> None:
    """Set or remove an ACL; ENOTDIR for the default one of something else than a directory.

    Everybody has all rights in it, so that modes of what is made there are those asked for (acl(5)).
    """
    name = "system.posix_acl_" + op.text("kind")
    entries = ((1, _NOBODY), (2, op.number("uid")), (4, _NOBODY), (0x10, _NOBODY), (0x20, _NOBODY))
    value = _ACL_HEAD + b"".join(_ACL_ENTRY.pack(tag, _ALL_RIGHTS, who) for tag, who in entries)
    with ctx.open(op.text("path"), os.O_RDONLY | _ACL_OPEN[op.text("kind")]) as file:
        ctx.begin(file.inode)
        if op.text("to") == "on":
            os.setxattr(file.fd, name, value)
        else:
            os.removexattr(file.fd, name)
        ctx.end()


def setxattr(ctx: Context, op: Op) -> None:
    name, value = "user." + op.text("name"), xattr_value(ctx.op_id, op.number("size"))
    with ctx.open(op.text("path"), os.O_RDONLY) as file:
        ctx.begin(file.inode)
        os.setxattr(file.fd, name, value)
        ctx.end()


def removexattr(ctx: Context, op: Op) -> None:
    name = "user." + op.text("name")
    with ctx.open(op.text("path"), os.O_RDONLY) as file:
        ctx.begin(file.inode)
        os.removexattr(file.fd, name)
        ctx.end()


ACTIONS: dict[str, Action] = {
    "chmod": chmod,
    "chown": chown,
    "utimes": utimes,
    "chattr": chattr,
    "extsize": extsize,
    "acl": acl,
    "setxattr": setxattr,
    "removexattr": removexattr,
}
