"""`powercut triage`: look at findings and see them again."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import click

from fuzzer.campaign.finding import (
    MINIMIZED,
    STATUSES,
    Saved,
    load_facts,
    load_finding,
    standing,
    write_facts,
    write_tree,
)
from fuzzer.campaign.index import SORTS, Filter, open_index
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.run import attempts, has_state, recheck
from fuzzer.campaign.session import prepare
from fuzzer.cli.options import FILESYSTEMS, directory_option, json_option, target_option
from fuzzer.cli.there import run_there
from fuzzer.errors import ExitCode
from fuzzer.kernel.probe import require
from fuzzer.target.build import VARIANTS
from fuzzer.target.targets import Target
from fuzzer.triage.bisect import Question, bisect_script
from fuzzer.triage.campaignreport import html_campaign
from fuzzer.triage.catalog import CRASHES, entries, with_table
from fuzzer.triage.dossier import load_device_log, load_dossier, load_smallest
from fuzzer.triage.export import EXPORTERS, export
from fuzzer.triage.known import load_known
from fuzzer.triage.logview import describe_log
from fuzzer.triage.refile import refile
from fuzzer.triage.report import html_report, mail_report
from fuzzer.triage.sequential import Rate
from fuzzer.triage.show import describe
from fuzzer.triage.timeline import build_timeline, render_timeline
from fuzzer.triage.treediff import describe_diff, diff_tree
from fuzzer.triage.web import LOOPBACK, serve
from fuzzer.writelog.points import parse_plan


@click.group("triage")
def triage_group() -> None:
    """Look at the findings of a campaign."""


@triage_group.command("list")
@click.option("--status", type=click.Choice(STATUSES), default=None, help="Only those shown so.")
@click.option("--fs", type=click.Choice(FILESYSTEMS), default=None, help="Only of this file system.")
@click.option("--bucket", default="", metavar="TEXT", help="Only of buckets with TEXT in their name.")
@click.option("--known/--new", "known", default=None, help="Only those of known bugs or marked / all others.")
@click.option("--sort", type=click.Choice(tuple(SORTS)), default="age", show_default=True, help="Order.")
@directory_option
@json_option
def list_command(
    status: str | None,
    fs: str | None,
    bucket: str,
    known: bool | None,
    sort: str,
    directory: Path,
    as_json: bool,
) -> None:
    """List findings, oldest first: what it is, how often it was seen, its bucket, and what went wrong.

    What it is: `known 0001`, told by crashes/known.toml; what you marked it as; or new. With --json `status`
    is the mark alone.

    Example: powercut triage list --new --fs btrfs --sort rate
    """
    with open_index(directory) as index:
        rows = index.list_findings(Filter(status or "", fs or "", bucket, known), sort)
    known_bugs = {bug.id: bug.summary for bug in load_known()}
    for row in rows:
        if as_json:
            click.echo(json.dumps(row))
        else:
            k, n = row["reproduced"]
            shown, title = standing(row["status"], row["known"]), known_bugs.get(row["known"], row["title"])
            click.echo(f"{row['id']}  {shown}  {k}/{n}  {row['bucket']}  {title}")
    if not rows:
        click.echo("no findings", err=True)


@triage_group.command("show")
@click.argument("finding")
@click.option("--timeline", is_flag=True, help="Who did what when, one lane per actor and the device.")
@click.option("--log", "device_log", is_flag=True, help="What was written around the promise, decoded.")
@directory_option
@json_option
def show_command(finding: str, timeline: bool, device_log: bool, directory: Path, as_json: bool) -> None:
    """Show one finding: what was promised, what came back, and the workload.

    Example: powercut triage show btrfs-data-1c7e --timeline
    """
    place = find_finding(directory, finding)
    if as_json:
        facts = load_facts(place)
        more = {"violations": list(facts.violations), "facts": dict(facts.facts), "reason": facts.reason}
        click.echo(json.dumps(facts.summary() | more))
        return
    if not (timeline or device_log):
        lines = list(describe(load_finding(place), load_device_log(place)))
    else:
        dossier, lines = load_dossier(place), []
        width = shutil.get_terminal_size((110, 24)).columns
        lines += render_timeline(build_timeline(dossier), width) if timeline else ()
        lines += describe_log(dossier) if device_log else ()
    for line in lines:
        click.echo(line)


@triage_group.command("diff")
@click.argument("finding")
@directory_option
@json_option
def diff_command(finding: str, directory: Path, as_json: bool) -> None:
    """Compare what had to be there after the crash with what recovery showed.

    Example: powercut triage diff btrfs-data-1c7e
    """
    dossier = load_dossier(find_finding(directory, finding))
    if as_json:
        for row in diff_tree(dossier):
            click.echo(json.dumps(asdict(row)))
        return
    for line in describe_diff(dossier):
        click.echo(line)


@triage_group.command("mark")
@click.argument("finding")
@click.argument("status", type=click.Choice(STATUSES))
@click.option("--reason", default="", metavar="TEXT", help="Why; shown with the finding.")
@directory_option
def mark_command(finding: str, status: str, reason: str, directory: Path) -> None:
    """Say what a finding is. It is kept with the finding.

    Example: powercut triage mark btrfs-data-1c7e duplicate --reason "same as btrfs-data-77aa"
    """
    with open_index(directory) as index:
        place = index.find(finding)
        marked = replace(load_facts(place), status=status, reason=reason)
        write_facts(place, marked)
        index.put_finding(marked)
    click.echo(f"{marked.id}: {marked.status}")


@triage_group.command("refile")
@click.argument("findings", nargs=-1, metavar="[FINDING]...")
@directory_option
@json_option
def refile_command(findings: tuple[str, ...], directory: Path, as_json: bool) -> None:
    """File findings anew (all, if none is named) by the known bugs of this version.

    For findings older than a row of crashes/known.toml: their buckets would not match what is found today.

    Example: powercut triage refile
    """
    known = load_known()
    with open_index(directory) as index:
        named = findings or tuple(str(row["id"]) for row in index.list_findings(Filter()))
        for place in map(index.find, named):
            before = load_facts(place)
            after = refile(load_dossier(place), known)
            if after == before:
                continue
            write_facts(place, after)
            index.put_finding(after)
            change = {"id": after.id, "before": before.bucket, "after": after.bucket}
            text = "{id}: {before} is now {after}".format(**change)
            click.echo(json.dumps(change) if as_json else text)


@triage_group.command("report")
@click.argument("finding", default="")
@click.option("--mail", is_flag=True, help="Print a mail of at most 60 lines instead.")
@directory_option
@json_option
def report_command(finding: str, mail: bool, directory: Path, as_json: bool) -> None:
    """Write a page about a finding (report.html beside it), or about the campaign if none is named.

    Of a minimized finding the minimized run is reported.

    Example: powercut triage report btrfs-data-1c7e --mail
    """
    if mail and not finding:
        raise click.UsageError("--mail is about one finding: name it")
    if mail:
        text = mail_report(load_smallest(find_finding(directory, finding)))
        click.echo(json.dumps({"mail": text}) if as_json else text, nl=as_json)
        return
    if finding:
        place = find_finding(directory, finding)
        text = html_report(load_smallest(place))
    else:
        place = directory
        with open_index(directory) as index:
            text = html_campaign(index)
    path = place / "report.html"
    path.write_text(text)
    click.echo(json.dumps({"report": str(path)}) if as_json else str(path))


@triage_group.command("export")
@click.argument("finding")
@click.option("--format", "format_name", type=click.Choice(tuple(EXPORTERS)), required=True)
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="Directory; that of the finding."
)
@directory_option
@json_option
def export_command(
    finding: str, format_name: str, output: Path | None, directory: Path, as_json: bool
) -> None:
    """Write a reproducer that needs no powercut: a shell script, a C program or a test for xfstests.

    Of a minimized finding the minimized run is taken.

    Example: powercut triage export btrfs-data-1c7e --format sh
    """
    place = find_finding(directory, finding)
    files = export(load_smallest(place), format_name)
    target = output or place
    target.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = target / name
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
        click.echo(json.dumps({"exported": str(path)}) if as_json else str(path))


@triage_group.command("bisect")
@click.argument("finding")
@directory_option
@json_option
def bisect_command(finding: str, directory: Path, as_json: bool) -> None:
    """Write a script for `git bisect run` that builds a kernel, boots it in QEMU and looks for the finding.

    Example: powercut triage bisect btrfs-data-1c7e
    """
    place = find_finding(directory, finding).resolve()
    small, whole = place / MINIMIZED, load_facts(place)
    facts = load_facts(small) if (small / "finding.json").exists() else whole
    workload = place / "minimized.workload"
    path, config = place / "bisect.sh", place / "bisect.config"
    config.write_text(VARIANTS["plain"].settings())
    text = bisect_script(
        Question(
            finding=whole.id,
            bucket=whole.bucket,
            fs=whole.fs,
            rate=Rate(*facts.reproduced),
            points=whole.points or "fsync",
            contract=whole.contract,
            workload=workload if workload.exists() else place / "repro.workload",
            config=config,
            powercut=Path(sys.argv[0]).resolve(),
            script=path,
        )
    )
    path.write_text(text)
    path.chmod(0o755)
    click.echo(json.dumps({"script": str(path)}) if as_json else str(path))


@triage_group.command("index")
@click.argument("crashes", default=CRASHES, type=click.Path(exists=True, file_okay=False, path_type=Path))
def index_command(crashes: Path) -> None:
    """Make the table in README.md of a directory of reviewed findings anew (by default this checkout's).

    Example: powercut triage index crashes
    """
    path = crashes / "README.md"
    found = list(entries(crashes, load_known()))
    path.write_text(with_table(path.read_text(), found))
    click.echo(f"{path}: {len(found)} findings")


@triage_group.command("web")
@click.option("--port", type=click.IntRange(1, 65535), default=8001, show_default=True, help="Port.")
@directory_option
def web_command(port: int, directory: Path) -> None:
    """Browse the campaign's database at http://127.0.0.1:PORT, for reading only (needs powercut[web]).

    Example: powercut triage web --port 9000
    """
    with open_index(directory):
        pass  # What is on disk and not in the database yet is entered.
    click.echo(f"http://{LOOPBACK}:{port}/campaign/findings", err=True)
    serve(directory, port)


@triage_group.command("repro")
@click.argument("finding")
@click.option("--times", type=click.IntRange(0, 100_000), default=10, show_default=True, help="Runs.")
@target_option
@directory_option
@json_option
@click.pass_context
def repro_command(
    ctx: click.Context, finding: str, times: int, target: Target | None, directory: Path, as_json: bool
) -> None:
    """See a finding again: recover its recorded crash state, then run its workload --times times.

    Exit status 1 if either shows it. Example: powercut triage repro btrfs-data-1c7e --times 20
    """
    if target is not None:
        words = ("triage", "repro", finding, "--times", str(times), *(("--json",) if as_json else ()))
        ctx.exit(run_there(target, words, directory))
    saved = load_finding(find_finding(directory, finding))
    facts, workload = saved.finding, saved.workload
    recorder = facts.recorder or "auto"
    prepare((workload.fs,), recorder)
    require(*sorted(workload.capabilities))
    hits = 0
    with open_lane(recorder) as lane:
        again = recheck(lane, saved)
        if again is not None and again.recovery.tree is not None:
            write_tree(saved.directory, again.recovery.tree)
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


def find_finding(directory: Path, finding: str) -> Path:
    """The directory of the finding whose id begins so."""
    with open_index(directory) as index:
        return index.find(finding)


def _state_line(saved: Saved, forbidden: bool) -> str:
    if not has_state(saved):
        return "recorded crash state: none was kept"
    return f"recorded crash state: {'forbidden again' if forbidden else 'allowed on this kernel'}"


def _remember(directory: Path, saved: Saved, hits: int, times: int) -> None:
    finding = replace(load_facts(saved.directory), reproduced=(hits, times))
    write_facts(saved.directory, finding)
    with open_index(directory) as index:
        index.put_finding(finding)
