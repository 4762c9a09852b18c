"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fuzzer.errors import InputError
from fuzzer.target.targets import HOST, find_target
from fuzzer.workload.ops import SHIFT
from fuzzer.writelog.canary import CANARIES
from fuzzer.writelog.points import SAMPLED_STATES, Plan, Points, parse_plan
from oracles import CONTRACTS, MAX_CONTRACT_BYTES, OWN, parse_contract

F = TypeVar("F", bound=Callable[..., Any])

FILESYSTEMS = ("btrfs", "xfs")
_OWN_POINTS = tuple(mode for mode in Points if mode is not Points.MARK)
"""Our own workloads put no marks of their own."""
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


class Size(click.ParamType[int]):
    """`1000`, `64K`, `512M`, `2G`: bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,15})([KMG]?)", value)
        if not match:
            self.fail(f"{value!r} is not a size; write 512M or 2G", param, ctx)
        return int(match[1]) << SHIFT[match[2]]


class _Modes(click.ParamType[str]):
    """A comma list of `Points`, those in `allowed`."""

    name = "points"

    def __init__(self, allowed: tuple[Points, ...]) -> None:
        self._allowed = allowed

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "[" + "|".join(self._allowed) + "],..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            plan = parse_plan(value)
        except InputError as error:
            self.fail(f"{error}; {error.hint}", param, ctx)
        if not set(plan.modes) <= set(self._allowed):
            self.fail(f"{value!r}: only logs of other programs have marks to cut at", param, ctx)
        return str(plan)


def plan_options(default: str | None, allowed: tuple[Points, ...] = _OWN_POINTS) -> Callable[[F], F]:
    """`--points` and `--states`: which crash states to look at. None: the command has its own default."""

    def decorate(function: F) -> F:
        function = click.option(
            "--states",
            type=click.IntRange(1, 1_000_000),
            default=None,
            help="At most so many crash states per workload; otherwise all, but of subset, torn and recovery "
            f"{SAMPLED_STATES} each.",
        )(function)
        return click.option(
            "--points",
            type=_Modes(allowed),
            default=default,
            show_default=default is not None,
            help="Cut the power after every sync call (fsync), flush, forced write (fua) or write; let any "
            "subset of what was not flushed survive, or torn writes; cut again during recovery.",
        )(function)

    return decorate


def make_plan(points: str, states: int | None) -> Plan:
    """What `plan_options` asked for."""
    return parse_plan(points, states or 0)


def check_options(function: F) -> F:
    """`--check` and `--check-time`."""
    function = click.option(
        "--check-time",
        type=Duration(),
        default="60s",
        show_default=True,
        help="How long CMD may take each time.",
    )(function)
    return click.option(
        "--check",
        default=None,
        metavar="CMD",
        help="Run CMD in every recovered tree: exit status 0 means fine, 1 a finding, anything else that CMD "
        "itself failed. It finds the mount in POWERCUT_MOUNT, the log position of the crash in "
        "POWERCUT_POINT, and in the file POWERCUT_MARKS the marks before it.",
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


def target_option(function: F) -> F:
    """`--target`: where workloads run; the command gets None for this host."""
    return click.option(
        "--target",
        default=HOST,
        show_default=True,
        metavar="host|uml[:KERNEL]|qemu:KERNEL",
        callback=lambda ctx, param, value: find_target(value),
        help="Where workloads run: here, or in guests with another kernel (a name of `kernel list`, or a "
        "bzImage). A guest that dies or hangs is a finding. `,BUG` behind the kernel switches on a known bug "
        "of it.",
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


def profile_option(function: F) -> F:
    """`--profile NAME`, or a TOML file: the contract to judge by, as `oracles.profile_for` takes it."""
    return click.option(
        "--profile",
        default=OWN,
        show_default=True,
        metavar="|".join((*CONTRACTS, "FILE")),
        callback=_read_contract,
        help="Judge by these promises: the file system's own, weaker or other ones, or those of a TOML file.",
    )(function)


def _read_contract(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value in CONTRACTS:
        return value
    try:
        with Path(value).open(encoding="utf-8") as file:
            text = file.read(MAX_CONTRACT_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        message = f"{value!r} is none of {', '.join(CONTRACTS)}, and no file to read: {error}"
        raise click.BadParameter(message, ctx, param) from error
    parse_contract(text, value)
    return text


def _check_canary(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value == "list":
        click.echo("\n".join(CANARIES))
        ctx.exit(0)
    if value and value not in CANARIES:
        raise click.BadParameter(f"{value!r} is none of {', '.join(CANARIES)}", ctx, param)
    return value
