"""`powercut triage`: look at findings and see them again."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from fuzzer.campaign.finding import Saved, load_finding, load_run_log, write_facts
from fuzzer.campaign.index import open_index
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.run import attempts, has_state, recheck
from fuzzer.campaign.session import prepare
from fuzzer.cli.options import directory_option, json_option
from fuzzer.errors import ExitCode
from fuzzer.kernel.probe import require
from fuzzer.triage.known import describe_known
from fuzzer.triage.show import describe
from fuzzer.writelog.points import parse_plan


@click.group("triage")
def triage_group() -> None:
    """Look at the findings of a campaign."""


@triage_group.command("list")
@directory_option
@json_option
def list_command(directory: Path, as_json: bool) -> None:
    """List findings, oldest first.

    Example: powercut triage list --dir powercut-run
    """
    with open_index(directory) as index:
        rows = index.list_findings()
    for row in rows:
        if as_json:
            click.echo(json.dumps(row))
        else:
            k, n = row["reproduced"]
            title = describe_known(row["known"]) if row["known"] else row["title"]
            click.echo(f"{row['id']}  {row['status']}  {k}/{n}  {row['bucket']}  {title}")
    if not rows:
        click.echo("no findings", err=True)


@triage_group.command("show")
@click.argument("finding")
@directory_option
@json_option
def show_command(finding: str, directory: Path, as_json: bool) -> None:
    """Show one finding: what was promised, what came back, and the workload.

    Example: powercut triage show btrfs-data-1c7e
    """
    saved = _load(directory, finding)
    if as_json:
        more = {"violations": list(saved.finding.violations), "facts": dict(saved.finding.facts)}
        click.echo(json.dumps(saved.finding.summary() | more))
        return
    with tempfile.TemporaryDirectory() as scratch:
        log = load_run_log(saved.directory, Path(scratch))
    for line in describe(saved, log):
        click.echo(line)


@triage_group.command("repro")
@click.argument("finding")
@click.option("--times", type=click.IntRange(0, 100_000), default=10, show_default=True, help="Runs.")
@directory_option
@json_option
@click.pass_context
def repro_command(ctx: click.Context, finding: str, times: int, directory: Path, as_json: bool) -> None:
    """See a finding again: recover its recorded crash state, then run its workload --times times.

    Exit status 1 if either shows it. Example: powercut triage repro btrfs-data-1c7e --times 20
    """
    saved = _load(directory, finding)
    facts, workload = saved.finding, saved.workload
    recorder = facts.recorder or "auto"
    prepare((workload.fs,), recorder)
    require(*sorted(workload.capabilities))
    hits = 0
    with open_lane(recorder) as lane:
        again = recheck(lane, saved)
        if not as_json:
            click.echo(_state_line(saved, again is not None))
        for number, attempt in enumerate(
            attempts(lane, workload, times, parse_plan(facts.points), facts.canary, facts.contract), 1
        ):
            hits += facts.bucket in attempt.buckets
            if not as_json:
                click.echo(f"run {number}: {', '.join(attempt.buckets) or 'nothing forbidden'}")
    if times:
        _remember(directory, saved, hits, times)
    result = {"id": facts.id, "recorded_state": again is not None, "reproduced": [hits, times]}
    click.echo(json.dumps(result) if as_json else f"{facts.id}: {hits} of {times} runs")
    ctx.exit(ExitCode.FINDING if hits or again else ExitCode.NOTHING_FOUND)


def _load(directory: Path, finding: str) -> Saved:
    with open_index(directory) as index:
        return load_finding(index.find(finding))


def _state_line(saved: Saved, forbidden: bool) -> str:
    if not has_state(saved):
        return "recorded crash state: none was kept"
    return f"recorded crash state: {'forbidden again' if forbidden else 'allowed on this kernel'}"


def _remember(directory: Path, saved: Saved, hits: int, times: int) -> None:
    finding = replace(saved.finding, reproduced=(hits, times))
    write_facts(saved.directory, finding)
    with open_index(directory) as index:
        index.put_finding(finding)
