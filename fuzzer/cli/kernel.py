"""`powercut kernel`: other kernels, and among them those whose known bugs can be switched on."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from fuzzer.campaign.hunt import Trial
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.score import score_seed, score_together
from fuzzer.campaign.scoreboard import ORIGINS, SEED, format_scores
from fuzzer.cli.options import FILESYSTEMS, Duration, directory_option, json_option
from fuzzer.errors import ExitCode, InputError
from fuzzer.kernel.children import interrupted_by_signals
from fuzzer.target.build import KNOWN_BUGS, VARIANTS, disk_bytes, patches
from fuzzer.target.build import build as build_kernel
from fuzzer.target.fetch import PACKAGES
from fuzzer.target.fetch import fetch as fetch_kernel
from fuzzer.target.kernels import Kernel, find_kernel, known_kernels
from fuzzer.target.machine import open_guest
from fuzzer.target.targets import target_of


@click.group("kernel")
def kernel_group() -> None:
    """Boot other kernels, and build one whose known bugs can be switched on."""


@kernel_group.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Kernels that were built or fetched, and the installed user-mode-linux."""
    for kernel in known_kernels():
        click.echo(json.dumps(asdict(kernel)) if as_json else _line(kernel))


def _line(kernel: Kernel) -> str:
    bugs = f"  bugs: {', '.join(kernel.bugs)}" if kernel.bugs else ""
    return f"{kernel.name:24} {kernel.kind:5} {kernel.release}{bugs}"


@kernel_group.command("build")
@click.option("--variant", type=click.Choice(list(VARIANTS)), default="plain", show_default=True)
@click.option("--jobs", type=click.IntRange(1, 256), default=os.cpu_count() or 1, show_default=True)
@json_option
def build_command(variant: str, jobs: int, as_json: bool) -> None:
    """Build the kernel `known-bugs` from Debian's source package and the patches in corpus/.

    Other variants are called `known-bugs-VARIANT`. That of user-mode-linux, with one CPU, runs workloads
    many times faster than QEMU without KVM does. Needs Debian, and root where packages are missing; takes
    minutes and about 2 GB in the cache.
    """
    _report(build_kernel(variant, jobs=jobs, say=_say), as_json)


@kernel_group.command("fetch")
@click.argument("package", type=click.Choice(list(PACKAGES)))
@json_option
def fetch_command(package: str, as_json: bool) -> None:
    """Fetch one of Debian's own kernels by its package, without installing it."""
    _report(fetch_kernel(package, say=_say), as_json)


def _report(kernel: Kernel, as_json: bool) -> None:
    size = disk_bytes()
    if as_json:
        click.echo(json.dumps(asdict(kernel) | {"disk_bytes": size}))
    else:
        click.echo(f"{_line(kernel)}\n{kernel.seconds:.0f} s; the cache takes {size / 1e9:.1f} GB", err=True)


def _say(text: str) -> None:
    click.echo(text, err=True)


@kernel_group.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("kernel")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--bug", "bugs", multiple=True, metavar="NAME[=VALUE]", help="Switch on; may be repeated.")
@click.option("--cpus", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--memory", type=click.IntRange(256), default=3072, show_default=True, help="MiB.")
@click.option("--time", "timeout_s", type=Duration(), default="1h", show_default=True)
@directory_option
@click.pass_context
def run_command(
    ctx: click.Context,
    kernel: str,
    command: tuple[str, ...],
    bugs: tuple[str, ...],
    cpus: int,
    memory: int,
    timeout_s: float,
    directory: Path,
) -> None:
    """Boot KERNEL (a name of the list, or a bzImage) and run COMMAND in it, here and as root.

    The guest sees this machine's files but can write only to --dir. Afterwards the counters of the
    known bugs are told. Example: powercut kernel run known-bugs --bug page-release-vs-fast-fsync --
    powercut run corpus/btrfs/page-release-vs-fast-fsync.workload --repeat 10
    """
    plan = find_kernel(kernel).plan(cpus=cpus, memory_mib=memory)
    switches = {name: value or "1" for name, _, value in (bug.partition("=") for bug in bugs)}
    directory.mkdir(parents=True, exist_ok=True)
    with interrupted_by_signals(), open_guest(plan, exchange=directory) as guest:
        result = guest.run(command, timeout_s=timeout_s, cwd=Path.cwd(), switches=switches)
    click.echo(result.stdout, nl=False)
    click.echo(result.stderr, nl=False, err=True)
    for name in switches:
        if name in result.hits:
            _say(f"{name}: {result.hits[name]} hits")
    ctx.exit(result.status if result.status >= 0 else ExitCode.INFRASTRUCTURE)


@kernel_group.command("score")
@click.argument("kernel", default=KNOWN_BUGS)
@click.option("--bug", "bugs", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option(
    "--from",
    "origins",
    type=click.Choice(ORIGINS),
    multiple=True,
    default=(SEED,),
    show_default=True,
    help="Where workloads come from; may be repeated.",
)
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="How often to look.")
@click.option("--time-per-bug", "time_s", type=Duration(), default="30m", show_default=True, help="A round.")
@click.option("--enough", type=click.IntRange(1), default=1, show_default=True, help="Runs with findings.")
@click.option("--off-time", "off_s", type=Duration(), default="5m", show_default=True, help="With it off.")
@click.option(
    "--minimize", "minimize_s", type=Duration(), default="0s", show_default=True, help="The first finding."
)
@directory_option
@json_option
def score_command(
    kernel: str,
    bugs: tuple[str, ...],
    origins: tuple[str, ...],
    rounds: int,
    time_s: float,
    enough: int,
    off_s: float,
    minimize_s: float,
    directory: Path,
    as_json: bool,
) -> None:
    """Which of its known bugs are found, how fast, and what is said with them off.

    Workloads are the bug's own entry of the corpus (seed), new ones with corpus entries and their
    mutations among them (mixed), or new ones alone (generation). With the latter two all bugs of a file
    system are on at first, and what is found is switched off. Of a bug's own workload a round without a
    finding is the last. Findings are saved in --dir. A table in Markdown on standard output, or with
    --json a line for each bug and round.
    """
    found = find_kernel(kernel)
    unknown = set(bugs) - set(found.bugs)
    if unknown:
        raise InputError(f"{found.name} has no bug {min(unknown)}", hint=f"it has {', '.join(found.bugs)}")
    target = target_of(found)
    directory.mkdir(parents=True, exist_ok=True)
    scores = []
    with open_lane("auto") as lane, interrupted_by_signals():
        for wanted in _trials(bugs or found.bugs, origins, time_s, enough, minimize_s):
            told = (
                score_seed(lane, target, wanted, rounds, off_s, directory=directory, say=_say)
                if wanted.origin == SEED
                else score_together(lane, target, wanted, rounds, directory=directory, say=_say)
            )
            for one in told:
                scores.append(one)
                if as_json:
                    click.echo(json.dumps(asdict(one)))
    if not as_json:
        click.echo(format_scores(scores))


def _trials(
    bugs: Sequence[str], origins: Sequence[str], time_s: float, enough: int, minimize_s: float
) -> Iterator[Trial]:
    """A trial for each bug and its own workload; for others, one for all bugs of a file system."""
    fs_of = {bug: patch.fs for patch in patches() for bug in patch.bugs}
    for origin, fs in itertools.product(origins, FILESYSTEMS):
        mine = tuple(bug for bug in bugs if fs_of[bug] == fs)
        groups = [(bug,) for bug in mine] if origin == SEED else [mine] if mine else []
        for group in groups:
            yield Trial(bugs=group, fs=fs, origin=origin, time_s=time_s, enough=enough, minimize_s=minimize_s)
