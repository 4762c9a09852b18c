"""Dossier: a finding with all that is known of it, loaded once for whoever shows it to people."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzzer.campaign.finding import MINIMIZED, Saved, load_facts, load_finding, load_run_log, load_tree
from fuzzer.state.history import FOREVER, Event
from fuzzer.state.inode import inode_number
from fuzzer.state.stamps import file_tag
from fuzzer.state.tree import Tree
from fuzzer.workload.text import format_op
from fuzzer.writelog.crash import LIVE, Cut, cut_of
from fuzzer.writelog.decode import Decoded, Names, decode_entry
from fuzzer.writelog.fate import Fate, entry_fates
from fuzzer.writelog.joined import RunLog
from fuzzer.writelog.model import SYNC_MARK_PREFIX, Entry
from fuzzer.writelog.superblock import btrfs_commits
from oracles.races import build_versions
from oracles.versions import Versions


@dataclass(frozen=True, slots=True)
class Request:
    """An entry of the device log, decoded: when it was done (see `Dossier.requests`) and its fate."""

    entry: Entry
    done_ns: int
    decoded: Decoded
    fate: Fate


@dataclass(frozen=True, slots=True)
class Dossier:
    """`log` and `tree` are None where they were not kept; `cut` where it cannot be told without the log."""

    saved: Saved
    log: RunLog | None
    tree: Tree | None
    versions: Versions = field(init=False)
    cut: Cut | None = field(init=False)
    requests: tuple[Request, ...] = field(init=False)
    """All entries after mkfs. Without times in the log, one is said to be done at the mark behind it."""

    def __post_init__(self) -> None:
        saved, log = self.saved, self.log
        versions = build_versions(saved.history, btrfs_commits(log) if log else None)
        cut: Cut | None = LIVE
        if saved.state is not None:
            cut = cut_of(log.entries, saved.state, saved.history) if log else None
        object.__setattr__(self, "versions", versions)
        object.__setattr__(self, "cut", cut)
        object.__setattr__(self, "requests", tuple(_requests(saved, log, versions)))

    @property
    def sync(self) -> Event | None:
        """The call that made the promise that gives the finding its title; None if it was no single one."""
        return self._event("sync")

    @property
    def op(self) -> Event | None:
        """The op whose effect is missing; None if that is not known."""
        return self._event("op")

    def _event(self, role: str) -> Event | None:
        violations = self.saved.finding.violations
        return self.saved.history.by_id.get(int(violations[0][role])) if violations else None

    @property
    def crash_ns(self) -> int | None:
        """The last moment power may have been cut at, or the end of the run. None: not cut, or not known."""
        if self.saved.state is None or self.cut is None:
            return None
        if self.cut.returned_before_ns == FOREVER:
            events = self.saved.history.events
            return max((e.end_ns if e.returned else e.begin_ns for e in events), default=0)
        return self.cut.returned_before_ns - 1


def _requests(saved: Saved, log: RunLog | None, versions: Versions) -> Iterator[Request]:
    if log is None:
        return
    entries, names = log.entries[log.start :], _names(versions)
    fates = entry_fates(log.entries, log.start, saved.state)
    for entry, done_ns in zip(entries, _times(entries, saved), strict=True):
        decoded = decode_entry(saved.workload.fs, entry, log.payload(entry), names)
        yield Request(entry, done_ns, decoded, fates[entry.index])


def load_dossier(directory: Path) -> Dossier:
    """Read a finding with its log and its tree. InputError names the file that is wrong."""
    return Dossier(load_finding(directory), load_device_log(directory), load_tree(directory))


def load_smallest(directory: Path) -> Dossier:
    """The minimized run of a finding, under the finding's own name; the finding itself if there is none."""
    minimized = directory / MINIMIZED
    if not (minimized / "finding.json").exists():
        return load_dossier(directory)
    small, whole = load_dossier(minimized), load_facts(directory)
    called = {key: getattr(whole, key) for key in ("id", "status", "reason", "command", "created", "ops")}
    finding = replace(small.saved.finding, **called)
    return Dossier(replace(small.saved, finding=finding), small.log, small.tree)


def load_device_log(directory: Path) -> RunLog | None:
    """The log of a finding, in memory; None if it was not kept."""
    with tempfile.TemporaryDirectory() as scratch:
        return load_run_log(directory, Path(scratch))


def _names(versions: Versions) -> Names:
    events = versions.history.events
    files = [inode for inode in versions.files if not versions.is_opaque(inode)]
    return Names(
        versions.history.known_ids(),
        {file_tag(inode): short_name(versions, inode) for inode in files},
        {event.id: say_op(event) for event in events},
        {inode_number(inode): short_name(versions, inode) for inode in files},
    )


def short_name(versions: Versions, inode: int) -> str:
    """`a|b`: the names an inode had."""
    return versions.label(inode).rsplit(" (inode", 1)[0]


def say_op(event: Event) -> str:
    """`write a 0 4K (actor 1, op 2)`."""
    return f"`{format_op(event.op)}` (actor {event.actor}, op {event.sequence})"


def _times(entries: tuple[Entry, ...], saved: Saved) -> Iterator[int]:
    if any(entry.done_ns for entry in entries):
        yield from (entry.done_ns for entry in entries)
        return
    last_ns = max((e.end_ns for e in saved.history.events if e.returned), default=0)
    marked: list[int] = []
    for entry in reversed(entries):
        if entry.mark.startswith(SYNC_MARK_PREFIX):
            last_ns = int(entry.mark.split(":")[2])
        marked.append(last_ns)
    yield from reversed(marked)
