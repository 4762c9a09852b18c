"""`powercut sweep`: run all short sequential workloads, or a sample of them."""

from __future__ import annotations

import math
from pathlib import Path

import click

from fuzzer.campaign.examine import QUICK
from fuzzer.campaign.fuzz import fuzz
from fuzzer.campaign.index import open_index
from fuzzer.campaign.monitor import Monitor
from fuzzer.campaign.session import default_jobs, origin, prepare
from fuzzer.campaign.source import Swept
from fuzzer.campaign.worker import FuzzOptions
from fuzzer.cli.fuzz import summarize
from fuzzer.cli.options import (
    FILESYSTEMS,
    canary_option,
    directory_option,
    fs_option,
    json_option,
    profile_option,
    recorder_option,
    target_option,
)
from fuzzer.errors import ExitCode
from fuzzer.target.targets import Target
from fuzzer.workload.sweep import LENGTHS
from fuzzer.writelog.points import Plan


@click.command("sweep")
@fs_option
@click.option(
    "--length", type=click.IntRange(LENGTHS[0], LENGTHS[-1]), default=1, show_default=True, help="Core ops."
)
@click.option("--sample", type=click.IntRange(1), default=None, help="Only this many, drawn, of each --fs.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the sample.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=None,
    help="Workers; by default three per two CPUs, in guests one per CPU.",
)
@recorder_option
@target_option
@canary_option
@profile_option
@directory_option
@json_option
@click.pass_context
def sweep_command(
    ctx: click.Context,
    filesystems: tuple[str, ...],
    length: int,
    sample: int | None,
    seed: int,
    jobs: int | None,
    recorder: str,
    target: Target | None,
    canary: str,
    profile: str,
    directory: Path,
    as_json: bool,
) -> None:
    """Run every sequential workload of one core op and one sync call, or draw from those of two.

    The same command in the same --dir goes on where it was stopped. Exit status 1 if anything was found
    that is not a known bug (crashes/known.toml).
    Example: powercut sweep --length 2 --sample 2000
    """
    chosen = filesystems or FILESYSTEMS
    monitor = Monitor(as_json)
    for line in prepare(chosen, recorder, target):
        monitor.say(f"left over from a killed run: {line}")
    source = Swept(chosen, length, sample, seed)
    with open_index(directory, create=True) as index:
        position = f"next of length {length}, sample {sample}, seed {seed}, {' '.join(chosen)}"
        options = FuzzOptions(
            directory=directory,
            filesystems=chosen,
            source=source,
            first=int(index.setting(position, "0")),
            jobs=jobs or default_jobs(target),
            deadline=math.inf,
            recorder=recorder,
            plan=Plan(),
            canary=canary,
            origin=origin(points=str(Plan()), canary=canary, recorder=recorder, contract=profile),
            care=QUICK,
            target=target,
        )
        for fs, size in source.sizes.items():
            monitor.say(f"{fs}: {size} workloads of length {length}, of which {sample or 'all'} are run")
        totals = fuzz(options, index, monitor, position)
    summarize(monitor, totals, directory, as_json)
    ctx.exit(ExitCode.FINDING if totals.findings > totals.known else ExitCode.NOTHING_FOUND)
