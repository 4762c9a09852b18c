"""Actions on attributes: chmod, setxattr, removexattr."""

from __future__ import annotations

import os

from fuzzer.kernel.actions.base import Action, Context
from fuzzer.state.xattr_value import xattr_value
from fuzzer.workload.model import Op


def chmod(ctx: Context, op: Op) -> None:
    with ctx.open(op.text("path"), os.O_RDONLY) as file:
        ctx.begin(file.inode)
        os.fchmod(file.fd, op.number("mode"))
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


ACTIONS: dict[str, Action] = {"chmod": chmod, "setxattr": setxattr, "removexattr": removexattr}
