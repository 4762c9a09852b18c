"""The corpus of documented races that comes with a checkout: reading it, and what its entries must have.

An entry is a workload file `corpus/<group>/<name>.workload`; the group is the file system it is for, or
`generic`. Its slug is `<group>/<name>`. Names are unique over all groups: switches of known-bug kernels
are called by them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import fuzzer
from fuzzer.errors import InputError
from fuzzer.workload.model import Workload
from fuzzer.workload.options import FILE_SYSTEMS
from fuzzer.workload.text import format as format_workload
from fuzzer.workload.text import parse_bytes
from oracles import RULES

GENERIC = "generic"
"""The group of entries for every file system."""

EXPECTED = frozenset(rule.name for rule in RULES) | {"read", "hang", "guest-lost", "silence"}
"""What an entry may be seen as: a promise an oracle sees broken (of a running file system: read), a
machine that stops, or nothing."""

_DIRECTORY = Path(fuzzer.__file__).parent.parent / "corpus"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_COMMIT = re.compile(r"Linux commits? ((?:[0-9a-f]{12})(?:(?:,| and) [0-9a-f]{12})*)(?![0-9a-f])")
_ID = re.compile(r"[0-9a-f]{12}")
_OTHER_SOURCE = re.compile(
    r"fstests (generic|btrfs|xfs)/\d{3}|linux-(btrfs|xfs|fsdevel), \w+ \d{4}|CrashMonkey|man page"
)
_KERNELS = re.compile(r"none|all|unknown|(to |from )?\d+\.\d+( to \d+\.\d+)?")
_SURE = re.compile(
    r"rediscovered [1-9]\d*/[1-9]\d*(\W.*)?|not yet(\W.*)?|cannot here: .+|silent in [1-9]\d* runs(\W.*)?"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One documented race."""

    slug: str
    path: Path
    workload: Workload

    @property
    def commits(self) -> tuple[str, ...]:
        """The commits of Linux its source names: the fixes."""
        return tuple(_ID.findall(" ".join(_COMMIT.findall(self.workload.source))))


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something an entry lacks, or has too much of."""

    path: Path
    message: str
    hint: str = ""


def corpus_paths(directory: Path = _DIRECTORY) -> tuple[Path, ...]:
    """The files of all entries; none where powercut is installed without its checkout."""
    return tuple(sorted(directory.glob("*/*.workload")))


def read_entry(path: Path) -> Entry:
    """One entry; InputError with its place if it is no workload."""
    return Entry(f"{path.parent.name}/{path.stem}", path, parse_bytes(path.read_bytes(), str(path)))


def load_entries(names: Sequence[str] = ()) -> tuple[Entry, ...]:
    """The entries with these names or slugs, or all; InputError for a name nobody has."""
    if not names:
        return tuple(map(read_entry, corpus_paths()))
    return tuple(read_entry(workload_of(name)) for name in names)


def load_corpus() -> tuple[Workload, ...]:
    """The workloads of all entries, each saying that it descends from itself."""
    return tuple(replace(entry.workload, descends=entry.slug) for entry in load_entries())


def workload_of(bug: str) -> Path:
    """The file of the workload that has this name or slug; InputError if there is none."""
    for path in corpus_paths():
        if bug in (path.stem, f"{path.parent.name}/{path.stem}"):
            return path
    raise InputError(f"there is no workload {bug} in {_DIRECTORY}", hint="run powercut from a checkout")


def lint(paths: Sequence[Path]) -> Iterator[Complaint]:
    """What is wrong with these entries, each for itself and then among each other."""
    entries = []
    for path in paths:
        try:
            entries.append(read_entry(path))
        except InputError as error:
            yield Complaint(path, str(error).removeprefix(f"{path}:"), error.hint)
    for entry in entries:
        yield from (Complaint(entry.path, *words) for words in _own_defects(entry))
    yield from _duplicates(entries)


def _own_defects(entry: Entry) -> Iterator[tuple[str, str]]:
    workload = entry.workload
    if format_workload(workload) != entry.path.read_text():
        yield "not as powercut would write it", f"powercut corpus lint --fix {entry.path}"
    if not _NAME.fullmatch(entry.path.stem):
        yield "the file's name is not lower-case words with dashes", "such as page-release-vs-fsync.workload"
    group = entry.path.parent.name
    if group != (workload.fs or GENERIC):
        known = ", ".join((*FILE_SYSTEMS, GENERIC))
        yield f"fs: {workload.fs or '(any)'} in the directory {group}", f"one directory each: {known}"
    for key in ("title", "why", "source", "kernels", "expect", "sure"):
        if not getattr(workload, key):
            yield f"no {key}", f"{key}: …"
    if workload.descends:
        yield "descends is for mutations", "an entry's origin is its source"
    yield from _header_defects(entry)


def _header_defects(entry: Entry) -> Iterator[tuple[str, str]]:
    workload = entry.workload
    if workload.why and len(workload.why.split("\n")) < 2:
        yield "why is one line", "what races with what, in your own words, takes two at least"
    if workload.source and not entry.commits and not _OTHER_SOURCE.search(workload.source):
        yield "source names no fix", "Linux commit 0123456789ab, its title; or fstests generic/000"
    if workload.kernels and not _KERNELS.fullmatch(workload.kernels):
        yield f"kernels: {workload.kernels!r}", "to 5.8, 5.10 to 6.4, from 6.1, 6.4, all, none or unknown"
    for word in workload.expect:
        if word not in EXPECTED:
            yield f"expect: {word!r} is none of what can be seen", f"known: {', '.join(sorted(EXPECTED))}"
    if workload.sure and not _SURE.fullmatch(workload.sure):
        yield f"sure: {workload.sure!r}", "rediscovered K/N, not yet, cannot here: why, silent in N runs"


def _duplicates(entries: Sequence[Entry]) -> Iterator[Complaint]:
    """Entries that share what each should have for itself; the later one is told."""
    seen: dict[tuple[str, object], str] = {}
    for entry in entries:
        workload = entry.workload
        own: list[tuple[str, object]] = [
            ("name", entry.path.stem),
            ("title", workload.title),
            ("ops", (workload.setup, workload.actors, workload.mkfs, workload.mount)),
            *(("fix", commit) for commit in entry.commits),
        ]
        for key in own:
            if key in seen:
                yield Complaint(entry.path, f"the same {key[0]} as {seen[key]}")
            seen.setdefault(key, entry.slug)
