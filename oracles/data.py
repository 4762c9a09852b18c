"""File data: every word was written there, and is not older than what was made durable.

For a byte range, the *floor* is the start of the youngest durable op that certainly wrote all of it.
A word is allowed if the op it names was not already over when the floor's op began: then it may be
the floor's own word or a later one, or the two overlapped and either may have won. Each word is
judged for itself, so a multi-page write that overlapped the sync call may be in or out page by page.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fuzzer.state.history import FOREVER, Event
from fuzzer.state.stamps import FOREIGN, ZERO, Run, file_tag
from oracles.case import Case, Rule
from oracles.file_versions import END_OF_FILE, DataVersion, FileVersions, Source
from oracles.verdict import Violation
from oracles.versions import Versions, overlaps

_MAX_CLONE_DEPTH = 64
"""Clones of clones are followed this far; deeper ones are believed."""

_SOURCE_FOREIGN = "stale or foreign data in a file is a bug everywhere (fstests generic/042, generic/536)"


class FileFloors:
    """The durable ranges of one file at one cut, ready for fast lookup."""

    def __init__(self, case: Case, file: FileVersions) -> None:
        rows = list(_durable_ranges(case, file))
        self._rows: NDArray[np.int64] = np.array(rows, dtype=np.int64).reshape(-1, 4)

    def floor(self, start: int, end: int) -> tuple[int, int]:
        """(begin of the youngest durable op that wrote all of [start, end), the sync's id); (0, 0): none."""
        rows = self._rows[(self._rows[:, 0] <= start) & (self._rows[:, 1] >= end)]
        if not len(rows):
            return 0, 0
        row = rows[np.argmax(rows[:, 2])]
        return int(row[2]), int(row[3])

    def edges(self) -> set[int]:
        return {int(edge) for edge in self._rows[:, :2].ravel()}


def _durable_ranges(case: Case, file: FileVersions) -> Iterator[tuple[int, int, int, int]]:
    """(start, end, begin of the op, sync id) of every range that is durable for certain."""
    limits: dict[int, int] = {}
    for version in file.data:
        if not version.sure or may_be_undone_by_mapping(file, version.event):
            continue
        for start, end, sync in _synced_ranges(case, file, version):
            if sync not in limits:
                limits[sync] = case.versions.cut_during(file, sync)
            if start < limits[sync]:
                yield start, min(end, limits[sync]), version.event.begin_ns, sync
            if end <= limits[sync]:
                break


def _synced_ranges(case: Case, file: FileVersions, version: DataVersion) -> Iterator[tuple[int, int, int]]:
    """(start, end, sync id): what the calls that cover the version made durable of it, all of it first."""
    for sync in case.floors.data_syncs(file.inode, version.event):
        yield version.start, version.end, sync
    if version.end < END_OF_FILE:
        # A truncate is no data of the range: there is nothing behind the end of file to write.
        for start, end, sync in case.floors.range_syncs(file.inode, version.event):
            low, high = max(start, version.start), min(end, version.end)
            if low < high:
                yield low, high, sync


def may_be_undone_by_mapping(file: FileVersions, event: Event) -> bool:
    """Direct writes that overlap stores through a mapping of the same file raise no floor.

    The store faults in a whole folio while the direct write is under way, and its writeback puts the
    old rest of the folio back: open(2) NOTES leaves that mix undefined.
    """
    direct = event.op.name in ("dwrite", "awrite") or (
        event.op.name == "mapped_write" and event.op.text("direct") == "yes"
    )
    return direct and any(overlaps(event, store) for store in file.mapped)


def check_data(case: Case) -> Iterator[Violation]:
    """Promise: data durable at the crash is read back, or what a later op wrote (source `data`)."""
    for path, node in case.tree.files():
        if node.kind != "file" or case.versions.is_opaque(node.inode):
            continue
        # a file nobody is known to have touched (its create was cut short) holds no words at all
        file = case.versions.files.get(node.inode) or FileVersions(node.inode)
        case.tally.judged += 1
        if any(case.floors.visible(event) for event in file.shifted):
            case.tally.skip("collapse or insert may have moved its words")
            yield from _check_shifted(case, path, file, node.runs)
        else:
            yield from _check_file(case, path, file, node.runs)


def _check_file(case: Case, path: str, file: FileVersions, runs: tuple[Run, ...]) -> Iterator[Violation]:
    floors, origins = FileFloors(case, file), Origins(case.versions)
    edges = sorted(floors.edges() | {edge for v in file.data for edge in (v.start, v.end)})
    bad: list[Violation] = []
    for run in runs:
        if run.op == FOREIGN:
            bad.append(_foreign(path, file, run))
            continue
        for piece in split(run, edges):
            violation = check_piece(case, path, file, floors, origins, piece)
            if violation:
                bad.append(violation)
    if bad:
        yield from _one_per_kind(bad)


def edges_of(file: FileVersions) -> list[int]:
    """Where versions begin and end, sorted."""
    return sorted({edge for v in file.data for edge in (v.start, v.end)})


def split(run: Run, edges: list[int]) -> Iterator[Run]:
    """The parts of a run that lie in or out of every version as a whole. `edges` are sorted."""
    start = run.start
    for edge in edges[bisect_right(edges, run.start) : bisect_left(edges, run.end)]:
        yield replace(run, start=start, end=edge)
        start = edge
    yield replace(run, start=start)


def check_piece(
    case: Case, path: str, file: FileVersions, floors: FileFloors, origins: Origins, piece: Run
) -> Violation | None:
    before_ns = case.floors.cut.invoked_before_ns
    floor, sync = floors.floor(piece.start, piece.end)
    # A durable op that changed nothing (it punched a hole, or cloned one) wrote nothing either: it may
    # have begun after the last write before the cut, and what it left is there all the same.
    if origins.explain(file, piece, max(before_ns, floor + 1), floor):
        return None
    where = f"{path} bytes {piece.start}..{piece.end}"
    if not origins.explain(file, piece, before_ns, 0):
        return _misplaced(case, where, file, piece)
    return Violation(
        rule="data",
        kind="lost-to-zero" if piece.op == ZERO else "old-data",
        subject=where,
        promised=f"data durable by {case.sync_label(sync)}",
        found=_describe(case, piece),
        source=case.source("data", sync),
        sync=sync,
        inode=file.inode,
        offset=piece.start,
        op=next((v.event.id for v in file.data if v.event.begin_ns == floor), 0),
        seen=max(piece.op, 0),
    )


class Origins:
    """Which ops may have put words where they are, through any number of clones.

    Files may be cloned into each other in circles. Words cannot come out of a circle alone, so a clone
    that is asked while it is being asked says no, and the question is put again as long as that brings
    out new sources. Answers are remembered: it would take exponentially long otherwise.
    """

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        self._yes: set[tuple[int, int, Run]] = set()
        self._no: set[tuple[int, int, Run]] = set()
        self._asked: set[tuple[int, int, Run]] = set()
        self._edges: dict[int, list[int]] = {}

    def explain(self, file: FileVersions, piece: Run, before_ns: int, floor: int) -> bool:
        """True if an op invoked before `before_ns`, and not over at `floor`, may have put the words there.

        Floor 0 is the time before the first op: then everything was zero.
        """
        while True:
            known = len(self._yes)
            self._asked.clear()
            if self._explain(file, piece, before_ns, floor, 0):
                return True
            if len(self._yes) == known:
                self._no |= self._asked - self._yes
                return False

    def _explain(
        self, file: FileVersions, piece: Run, before_ns: int, floor: int, depth: int, but: int = 0
    ) -> bool:
        """`explain`, by another op than `but`."""
        if piece.op == ZERO and floor == 0:
            return True
        return any(
            version.start <= piece.start
            and version.end >= piece.end
            and floor <= version.event.end_ns
            and version.event.begin_ns < before_ns
            and version.event.id != but
            and self._may_be_from(file, version, piece, depth)
            for version in file.data_like(piece.op)
        )

    def _may_be_from(self, file: FileVersions, version: DataVersion, piece: Run, depth: int) -> bool:
        if version.source is Source.ZERO:
            return True
        if version.source is Source.WRITE:
            return version.shift in (None, piece.shift) and piece.tag == file_tag(file.inode)
        key = (version.event.id, file.inode, piece)
        if key in self._yes:
            return True
        if key in self._no or key in self._asked:
            return False
        self._asked.add(key)
        if self._may_come_from(version.event, piece, depth + 1):
            self._yes.add(key)
            return True
        return False

    def _may_come_from(self, clone: Event, piece: Run, depth: int) -> bool:
        """True if the source of a clone may have held these words while the clone ran."""
        source = self.versions.files.get(clone.other)
        if source is None or source.shifted or depth > _MAX_CLONE_DEPTH:
            return True
        distance = clone.op.number("off") - clone.op.number("src")
        shift = piece.shift - distance if piece.op != ZERO else 0
        moved = replace(piece, start=piece.start - distance, end=piece.end - distance, shift=shift)
        # An exchange changes its source as well: what was there before does not come back by the same op.
        but = clone.id if clone.op.name == "exchange_range" else 0
        return all(
            self._explain(source, part, clone.end_ns, _floor_when(source, part, clone.begin_ns), depth, but)
            for part in split(moved, self._edges_of(source))
        )

    def _edges_of(self, file: FileVersions) -> list[int]:
        if file.inode not in self._edges:
            self._edges[file.inode] = edges_of(file)
        return self._edges[file.inode]


def _floor_when(file: FileVersions, piece: Run, time_ns: int) -> int:
    """Begin of the youngest op that certainly wrote all of the piece and had returned by `time_ns`."""
    return max(
        (
            v.event.begin_ns
            for v in file.data
            if v.sure
            and v.start <= piece.start
            and v.end >= piece.end
            and v.event.end_ns < time_ns
            and not may_be_undone_by_mapping(file, v.event)
        ),
        default=0,
    )


def _check_shifted(case: Case, path: str, file: FileVersions, runs: tuple[Run, ...]) -> Iterator[Violation]:
    """After collapse or insert offsets no longer tell: only ask that the words are this file's own."""
    tags = {file_tag(inode) for inode in _sources(case.versions, file.inode, frozenset())}
    bad = [
        _foreign(path, file, run)
        if run.op == FOREIGN
        else _misplaced(case, f"{path} bytes {run.start}..{run.end}", file, run)
        for run in runs
        if run.op == FOREIGN or (run.op != ZERO and run.tag not in tags)
    ]
    yield from _one_per_kind(bad)


def _sources(versions: Versions, inode: int, seen: frozenset[int]) -> frozenset[int]:
    """`inode` and every file that was, directly or not, cloned into it."""
    seen |= {inode}
    file = versions.files.get(inode)
    for version in file.data if file else ():
        if version.source is Source.CLONE and version.event.other not in seen:
            seen |= _sources(versions, version.event.other, seen)
    return seen


def _foreign(path: str, file: FileVersions, run: Run) -> Violation:
    return Violation(
        rule="data",
        kind="foreign-data",
        subject=f"{path} bytes {run.start}..{run.end}",
        promised="every word was written by the workload or is zero",
        found="words no op of the workload wrote",
        source=_SOURCE_FOREIGN,
        inode=file.inode,
        offset=run.start,
    )


def _misplaced(case: Case, where: str, file: FileVersions, run: Run) -> Violation:
    return Violation(
        rule="data",
        kind="misplaced-data",
        subject=where,
        promised="a word is found only where an op put it",
        found=_describe(case, run),
        source=_SOURCE_FOREIGN,
        inode=file.inode,
        offset=run.start,
        seen=max(run.op, 0),
    )


def _describe(case: Case, run: Run) -> str:
    if run.op == ZERO:
        return "zeros"
    event = case.versions.history.by_id.get(run.op)
    words = event.op.brief if event else "?"
    ended = "in flight" if event is None or event.end_ns == FOREVER else "older"
    moved = f", {run.shift:+} bytes from where it was written" if run.shift else ""
    return f"the words of `{words}` ({ended}){moved}"


def _one_per_kind(found: list[Violation]) -> Iterator[Violation]:
    """A damaged file breaks the same promise in many places; people need the first."""
    seen: set[str] = set()
    for violation in found:
        if violation.kind not in seen:
            seen.add(violation.kind)
            yield violation


RULES = (Rule("data", check_data),)
