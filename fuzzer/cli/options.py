"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fuzzer.writelog.canary import CANARIES
from fuzzer.writelog.crash import Points

F = TypeVar("F", bound=Callable[..., Any])

FILESYSTEMS = ("btrfs", "xfs")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """`90`, `60s`, `10m`, `2h`, `1d`: seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
        if not match:
            self.fail(f"{value!r} is not a duration; write 60s, 10m, 2h or 1d", param, ctx)
        return float(match[1]) * _UNITS_S[match[2]]


def directory_option(function: F) -> F:
    """`--dir DIR`: the campaign directory."""
    return click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("powercut-run"),
        show_default=True,
        help="Campaign directory.",
    )(function)


def json_option(function: F) -> F:
    """`--json`: JSON lines on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="JSON lines on standard output.")(function)


def fs_option(function: F) -> F:
    """`--fs`, any number of times; all file systems if never given."""
    return click.option(
        "--fs",
        "filesystems",
        type=click.Choice(FILESYSTEMS),
        multiple=True,
        help="File system; may be repeated.",
    )(function)


def points_option(function: F) -> F:
    """`--points`: where to cut the power."""
    return click.option(
        "--points",
        type=click.Choice([str(p) for p in Points]),
        default=str(Points.FSYNC),
        show_default=True,
        help="Where to cut the power: after every sync call, flush, forced write, or every write.",
    )(function)


def recorder_option(function: F) -> F:
    """`--recorder`."""
    return click.option(
        "--recorder",
        type=click.Choice(["auto", "dm", "fuse"]),
        default="auto",
        show_default=True,
        help="How writes are recorded; auto takes dm-log-writes where the kernel has it.",
    )(function)


def canary_option(function: F) -> F:
    """`--canary NAME`, or `list`."""
    return click.option(
        "--canary",
        default="",
        metavar="NAME|list",
        callback=_check_canary,
        help="Plant a bug that must be found; `list` names them.",
    )(function)


def _check_canary(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value == "list":
        click.echo("\n".join(CANARIES))
        ctx.exit(0)
    if value and value not in CANARIES:
        raise click.BadParameter(f"{value!r} is none of {', '.join(CANARIES)}", ctx, param)
    return value
