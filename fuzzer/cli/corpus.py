"""`powercut corpus`: the documented races that come with powercut."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from fuzzer.campaign.corpus import Entry, corpus_paths, lint, load_entries
from fuzzer.campaign.fuzz import fuzz
from fuzzer.campaign.index import open_index
from fuzzer.campaign.monitor import Monitor
from fuzzer.campaign.outcomes import never_succeeded
from fuzzer.campaign.session import default_jobs, origin, prepare, recorder_for
from fuzzer.campaign.source import Listed
from fuzzer.campaign.worker import FuzzOptions
from fuzzer.cli.corpus_import import import_command
from fuzzer.cli.fuzz import summarize
from fuzzer.cli.options import (
    FILESYSTEMS,
    directory_option,
    fs_option,
    json_option,
    make_plan,
    plan_options,
    recorder_option,
    target_option,
)
from fuzzer.errors import ExitCode
from fuzzer.state.view import MORE_VIEWS
from fuzzer.target.targets import Target
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format as format_workload
from fuzzer.workload.text import parse_bytes
from fuzzer.writelog.points import Points


@click.group("corpus")
def corpus_group() -> None:
    """Documented races, one workload each."""


corpus_group.add_command(import_command)


@corpus_group.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """One line for each entry: what it is for, and how sure it is.

    Example: powercut corpus list --json
    """
    for entry in load_entries():
        workload = entry.workload
        if as_json:
            click.echo(json.dumps(_facts(entry)))
        else:
            expect = " ".join(workload.expect)
            click.echo(f"{entry.slug}: {workload.title} [{workload.kernels}; {expect}; {workload.sure}]")


def _facts(entry: Entry) -> dict[str, object]:
    workload = entry.workload
    facts: dict[str, object] = {"name": entry.slug, "fs": workload.fs, "commits": list(entry.commits)}
    facts |= {key: getattr(workload, key) for key in ("title", "why", "source", "kernels", "sure")}
    return facts | {"expect": list(workload.expect), "requires": sorted(workload.capabilities)}


@corpus_group.command("lint")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--fix", is_flag=True, help="Write the files as powercut would; comments go.")
@json_option
@click.pass_context
def lint_command(ctx: click.Context, files: tuple[Path, ...], fix: bool, as_json: bool) -> None:
    """Check headers, ids, duplicates and format of all entries, or of these.

    Exit status 2 if something is wrong.

    Example: powercut corpus lint
    """
    paths = files or corpus_paths()
    for path in paths if fix else ():
        path.write_text(format_workload(parse_bytes(path.read_bytes(), str(path))))
    complaints = list(lint(paths))
    for complaint in complaints:
        if as_json:
            click.echo(
                json.dumps(
                    {"file": str(complaint.path), "message": complaint.message, "hint": complaint.hint}
                )
            )
        else:
            hint = f" ({complaint.hint})" if complaint.hint else ""
            click.echo(f"{complaint.path}: {complaint.message}{hint}")
    click.echo(f"{len(paths)} entries, {len(complaints)} complaints", err=True)
    ctx.exit(ExitCode.BAD_INPUT if complaints else ExitCode.NOTHING_FOUND)


@corpus_group.command("run")
@click.argument("names", nargs=-1)
@fs_option
@click.option("--repeat", type=click.IntRange(1, 100_000), default=1, show_default=True, help="Runs of each.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=None,
    help="Workers; by default three per two CPUs, in guests one per CPU.",
)
@plan_options(Points.FSYNC)
@recorder_option
@target_option
@directory_option
@json_option
@click.pass_context
def run_command(
    ctx: click.Context,
    names: tuple[str, ...],
    filesystems: tuple[str, ...],
    repeat: int,
    jobs: int | None,
    points: str,
    states: int | None,
    recorder: str,
    target: Target | None,
    directory: Path,
    as_json: bool,
) -> None:
    """Run all entries, or these, on every file system they are for, and say what was seen of each.

    Exit status 1 if anything was found that is not a known bug (crashes/known.toml).

    Example: powercut corpus run --repeat 3 rename-vs-directory-logging
    """
    chosen = filesystems or FILESYSTEMS
    workloads = tuple(_bound(load_entries(names), chosen))
    source, recorder = Listed(workloads, repeat, MORE_VIEWS), recorder_for(recorder, workloads)
    monitor = _Table(as_json, source=source)
    for line in prepare(chosen, recorder, target):
        monitor.say(f"left over from a killed run: {line}")
    plan = make_plan(points, states)
    with open_index(directory, create=True) as index:
        options = FuzzOptions(
            directory=directory,
            filesystems=chosen,
            source=source,
            first=0,
            jobs=min(jobs or default_jobs(target), max(1, source.total)),
            deadline=math.inf,
            recorder=recorder,
            plan=plan,
            canary="",
            origin=origin(points=str(plan), canary="", recorder=recorder),
            target=target,
        )
        totals = fuzz(options, index, monitor, "next of corpus run")
    monitor.summarize()
    summarize(monitor, totals, directory, as_json)
    ctx.exit(ExitCode.FINDING if totals.findings > totals.known else ExitCode.NOTHING_FOUND)


def _bound(entries: Sequence[Entry], filesystems: tuple[str, ...]) -> Iterator[Workload]:
    for entry in entries:
        for fs in filesystems:
            if entry.workload.fs in ("", fs):
                yield replace(entry.workload, fs=fs, descends=entry.slug)


@dataclass(slots=True)
class _Table(Monitor):
    """A monitor that keeps a row for each entry."""

    source: Listed = field(default_factory=lambda: Listed(()))
    ran: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    buckets: dict[str, Counter[str]] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)
    """Entries with findings nobody has an explanation for."""

    def event(self, event: Mapping[str, object]) -> None:
        Monitor.event(self, event)
        kind = event["event"]
        if kind in ("finding", "hit"):
            slug = str(event.get("descends", "?"))
            self.buckets.setdefault(slug, Counter())[str(event["bucket"])] += 1
            if not event["known"]:
                self.new.add(slug)
        elif kind in ("workload", "skipped"):
            workload = self.source.workload(int(str(event["index"])))
            slug = workload.descends
            if kind == "skipped":
                self.skipped[slug] = str(event["missing"])
                return
            self.ran[slug] += 1
            ops = event["ops"]
            assert isinstance(ops, Mapping)
            vain = never_succeeded(ops)
            self.say(
                f"{slug} on {workload.fs}: {sum(ops.values())} ops, {event['crash_states']} crash states, "
                f"{event['seconds']} s" + (f"; never succeeded: {vain}" if vain else "")
            )

    def summarize(self) -> None:
        """Which entries ran, were skipped, and found what."""
        for slug, missing in sorted(self.skipped.items()):
            self.say(f"skipped {slug}: no {missing}")
        for slug, buckets in sorted(self.buckets.items()):
            found = ", ".join(f"{count} x {bucket}" for bucket, count in buckets.most_common())
            self.say(f"{slug}: {found}")
        entries = {workload.descends for workload in self.source.workloads}
        lost = entries - set(self.ran) - set(self.skipped)
        self.say(
            f"{len(entries)} entries: {len(self.ran)} ran, {len(self.skipped)} skipped, {len(lost)} lost; "
            f"{len(self.buckets)} with findings, {len(self.new)} of them with new ones"
        )
