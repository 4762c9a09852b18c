"""`powercut fuzz`: start or resume a campaign."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path

import click

from fuzzer.campaign.corpus import load_corpus
from fuzzer.campaign.coverage import describe_coverage
from fuzzer.campaign.fuzz import Totals, fuzz
from fuzzer.campaign.index import Index, open_index
from fuzzer.campaign.monitor import Monitor, count_findings
from fuzzer.campaign.outcomes import by_op, never_succeeded
from fuzzer.campaign.session import default_jobs, origin, prepare
from fuzzer.campaign.source import Generated
from fuzzer.campaign.worker import FuzzOptions
from fuzzer.cli.options import (
    Duration,
    canary_option,
    directory_option,
    fs_option,
    json_option,
    make_plan,
    plan_options,
    profile_option,
    recorder_option,
    target_option,
)
from fuzzer.errors import ExitCode
from fuzzer.target.targets import Target
from fuzzer.workload.generate import find_mix
from fuzzer.workload.mixes import ANY, MIXES
from fuzzer.writelog.points import Plan, Points

_SEEDS_SHOWN = 10
"""Corpus entries named at the end, those most was found with first."""


@click.command("fuzz")
@fs_option
@click.option("--time", "seconds", type=Duration(), default="10m", show_default=True, help="How long.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=None,
    help="Workers; by default three per two CPUs, in guests one per CPU.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=None, help="Seed of the workloads (kept by the campaign)."
)
@click.option(
    "--corpus-share",
    type=click.IntRange(0, 100),
    default=25,
    show_default=True,
    help="Percent of workloads that are corpus entries or mutations of them.",
)
@click.option("--no-corpus", is_flag=True, help="Only generated workloads: a share of 0.")
@click.option(
    "--mix",
    type=click.Choice(tuple(MIXES)),
    default=ANY.name,
    show_default=True,
    help="What kind of workloads to generate (none of them from the corpus).",
)
@click.option(
    "--feedback/--no-feedback",
    default=None,
    help="Bring pairs of ops together that did not overlap so far. On, unless --seed asks for workloads "
    "that can be repeated: what overlaps is a matter of timing.",
)
@click.option("--no-delay", is_flag=True, help="Hold no I/O back: leave out new `delay:` lines.")
@plan_options(None)
@recorder_option
@target_option
@canary_option
@profile_option
@directory_option
@json_option
@click.pass_context
def fuzz_command(
    ctx: click.Context,
    filesystems: tuple[str, ...],
    seconds: float,
    jobs: int | None,
    seed: int | None,
    corpus_share: int,
    no_corpus: bool,
    mix: str,
    feedback: bool | None,
    no_delay: bool,
    points: str | None,
    states: int | None,
    recorder: str,
    target: Target | None,
    canary: str,
    profile: str,
    directory: Path,
    as_json: bool,
) -> None:
    """Fuzz btrfs and xfs on loop devices; starts or resumes the campaign in --dir.

    Without --points, the power is cut after every sync call, and for one workload in ten also in sampled
    subset, torn and recovery states. Exit status 1 if anything was found that is not a known bug
    (crashes/known.toml).

    Example: powercut fuzz --fs btrfs --time 60s
    """
    chosen = filesystems or MIXES[mix].filesystems
    for fs in chosen:
        find_mix(mix, fs)
    monitor = Monitor(as_json)
    for line in prepare(chosen, recorder, target):
        monitor.say(f"left over from a killed run: {line}")
    with open_index(directory, create=True) as index:
        share = 0 if no_corpus or mix != ANY.name else corpus_share
        corpus, steered = load_corpus() if share else (), seed is None if feedback is None else feedback
        source = Generated(_seed(index, seed), chosen, corpus, share, not no_delay, mix, steered)
        options = FuzzOptions(
            directory=directory,
            filesystems=chosen,
            source=source,
            first=int(index.setting("next", "0")),
            jobs=jobs or default_jobs(target),
            deadline=time.monotonic() + seconds,
            recorder=recorder,
            plan=_plan(points, states),
            canary=canary,
            seen=frozenset(index.members("overlaps")),
            origin=origin(points=points or str(Plan()), canary=canary, recorder=recorder, contract=profile),
            target=target,
        )
        monitor.say(_first_line(options, source))
        totals = fuzz(options, index, monitor)
        monitor.say(describe_coverage(totals.covered, options.seen))
    summarize(monitor, totals, directory, as_json)
    ctx.exit(ExitCode.FINDING if totals.findings > totals.known else ExitCode.NOTHING_FOUND)


def _seed(index: Index, given: int | None) -> int:
    """A campaign keeps its seed; a new one given starts its sequence of workloads from the beginning."""
    kept = int(index.setting("seed", str(secrets.randbits(32) if given is None else given)))
    if given is not None and given != kept:
        index.change_setting("seed", str(given))
        index.change_setting("next", "0")
        return given
    return kept


def _plan(points: str | None, states: int | None) -> Plan | None:
    """The plan asked for; None leaves it to the campaign."""
    return None if points is None and states is None else make_plan(points or str(Points.FSYNC), states)


def _first_line(options: FuzzOptions, source: Generated) -> str:
    """The command that repeats this run."""
    fs = " ".join(f"--fs {name}" for name in options.filesystems)
    more = f" --canary {options.canary}" if options.canary else ""
    more += f" --target {options.target.name}" if options.target else ""
    more += f" --corpus-share {source.share}" if source.mix == ANY.name else f" --mix {source.mix}"
    more += " --feedback" if source.feedback else " --no-feedback"
    more += "" if source.delays else " --no-delay"
    if options.plan is not None:
        more += f" --points {options.plan}"
        more += f" --states {options.plan.states}" if options.plan.states else ""
    return (
        f"powercut fuzz {fs} --seed {source.seed} --recorder {options.recorder}"
        f"{more} (from workload {options.first}, {options.jobs} workers, {_kernel(options)})"
    )


def _kernel(options: FuzzOptions) -> str:
    target = options.target
    return f"kernel {target.kernel.name} in a guest" if target else f"kernel {options.origin.kernel}"


def summarize(monitor: Monitor, totals: Totals, directory: Path, as_json: bool) -> None:
    """The end of a campaign's session: counts, buckets, and the line of the contract."""
    counts = totals.counts
    numbers = {name: counts.get(name, 0) for name in ("workloads", "crash_states", "unique_states")}
    monitor.say(
        f"{numbers['workloads']} workloads, {numbers['crash_states']} crash states "
        f"({numbers['unique_states']} unique) in {totals.seconds:.0f} s; "
        f"{totals.tally.words()}; "
        f"{count_findings(totals.findings, totals.known)}"
    )
    for bucket, hits in totals.hits.most_common():
        monitor.say(f"{hits:6} x {bucket}")
    for seed, hits in totals.descends.most_common(_SEEDS_SHOWN):
        monitor.say(f"{hits:6} descend from {seed}")
    if totals.skipped:
        needs = ", ".join(f"{count} need {name}" for name, count in totals.skipped.most_common())
        monitor.say(f"workloads left out: {needs} (powercut doctor)")
    vain = never_succeeded(totals.outcomes)
    if vain:
        monitor.say(f"never succeeded: {vain}")
    if totals.findings:
        monitor.say(f"look at them: powercut triage list --dir {directory}")
    if as_json:
        summary = {
            "event": "summary",
            **numbers,
            "findings": totals.findings,
            "known": totals.known,
            **totals.tally.to_json(),
            "descends": dict(sorted(totals.descends.items())),
            "ops": by_op(totals.outcomes),
            "coverage": {group: len(seen) for group, seen in totals.covered.items()},
        }
        click.echo(json.dumps(summary | {"seconds": round(totals.seconds, 1), "dir": str(directory)}))
