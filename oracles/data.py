"""File data: every word was written there, and is not older than what was made durable.

For a byte range, the *floor* is the start of the youngest durable op that certainly wrote all of it.
A word is allowed if the op it names was not already over when the floor's op began: then it may be
the floor's own word or a later one, or the two overlapped and either may have won. Each word is
judged for itself, so a multi-page write that overlapped the sync call may be in or out page by page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fuzzer.state.history import FOREVER, Event
from fuzzer.state.stamps import FOREIGN, ZERO, Run, file_tag
from oracles.case import Case, Rule
from oracles.verdict import Violation
from oracles.versions import END_OF_FILE, DataVersion, FileVersions, Source, Versions, overlaps

_MAX_CLONE_DEPTH = 6
"""Clones of clones are followed this far; deeper ones are believed."""

_SOURCE_FOREIGN = "stale or foreign data in a file is a bug everywhere (fstests generic/042, generic/536)"


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a run that lies in or out of every version as a whole."""

    start: int
    end: int
    run: Run


class _FileFloors:
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
    for version in file.data:
        event = version.event
        if not version.sure or _may_be_undone_by_mapping(file, event):
            continue
        sync = case.floors.data_sync(file.inode, event)
        if sync is not None:
            yield version.start, version.end, event.begin_ns, sync
            continue
        if version.end >= END_OF_FILE or case.floors.spoiled(file.inode, event):
            # A truncate is no data of the range: there is nothing behind the end of file to write.
            continue
        for start, end, time, ranged_sync in case.floors.ranges.get(file.inode, ()):
            low, high = max(start, version.start), min(end, version.end)
            if low < high and event.end_ns < time:
                yield low, high, event.begin_ns, ranged_sync


def _may_be_undone_by_mapping(file: FileVersions, event: Event) -> bool:
    """Direct writes that overlap stores through a mapping of the same file raise no floor.

    The store faults in a whole folio while the direct write is under way, and its writeback puts the
    old rest of the folio back: open(2) NOTES leaves that mix undefined.
    """
    return event.op.name == "dwrite" and any(overlaps(event, store) for store in file.mapped)


def check_data(case: Case) -> Iterator[Violation]:
    """Promise: data durable at the crash is read back, or what a later op wrote (source `data`)."""
    for path, node in case.tree.paths():
        if node.kind != "file":
            continue
        file = case.versions.files.get(node.inode)
        if file is None:
            continue
        case.tally.judged += 1
        if any(case.floors.visible(event) for event in file.shifted):
            case.tally.no_promise += 1
            yield from _check_shifted(case, path, file, node.runs)
        else:
            yield from _check_file(case, path, file, node.runs)


def _check_file(case: Case, path: str, file: FileVersions, runs: tuple[Run, ...]) -> Iterator[Violation]:
    floors = _FileFloors(case, file)
    edges = sorted(floors.edges() | {edge for v in file.data for edge in (v.start, v.end)})
    bad: list[Violation] = []
    for run in runs:
        if run.op == FOREIGN:
            bad.append(_foreign(path, run))
            continue
        for piece in _cut(run, edges):
            violation = _check_piece(case, path, file, floors, piece)
            if violation:
                bad.append(violation)
    if bad:
        yield from _one_per_kind(bad)


def _cut(run: Run, edges: list[int]) -> Iterator[_Piece]:
    start = run.start
    for edge in edges:
        if start < edge < run.end:
            yield _Piece(start, edge, run)
            start = edge
    yield _Piece(start, run.end, run)


def _check_piece(
    case: Case, path: str, file: FileVersions, floors: _FileFloors, piece: _Piece
) -> Violation | None:
    ends = list(_possible(case, file, piece, case.floors.cut.invoked_before_ns, 0))
    floor, sync = floors.floor(piece.start, piece.end)
    if any(end >= floor for end in ends):
        return None
    where = f"{path} bytes {piece.start}..{piece.end}"
    if not ends:
        return _misplaced(case, where, piece.run)
    return Violation(
        rule="data",
        kind="lost-to-zero" if piece.run.op == ZERO else "old-data",
        subject=where,
        promised=f"data durable by {case.sync_label(sync)}",
        found=_describe(case, piece.run),
        source=case.profile.source("data"),
        sync=sync,
    )


def _possible(case: Case, file: FileVersions, piece: _Piece, before_ns: int, depth: int) -> Iterator[int]:
    """Return times of every op that may have put these words there before `before_ns`."""
    run = piece.run
    if run.op == ZERO:
        yield 0
    for version in file.data:
        if version.start > piece.start or version.end < piece.end or version.event.begin_ns >= before_ns:
            continue
        if _may_be_from(case, file, version, piece, depth):
            yield version.event.end_ns


def _may_be_from(case: Case, file: FileVersions, version: DataVersion, piece: _Piece, depth: int) -> bool:
    if version.source is Source.ZERO:
        return piece.run.op == ZERO
    if version.source is Source.WRITE:
        return _is_own(version.event, file, piece.run)
    return _may_come_from(case, version, piece, depth)


def _is_own(event: Event, file: FileVersions, run: Run) -> bool:
    return event.id == run.op and run.shift == 0 and run.tag == file_tag(file.inode)


def _may_come_from(case: Case, version: DataVersion, piece: _Piece, depth: int) -> bool:
    """True if the source of a clone may have held these words while the clone ran."""
    clone = version.event
    source = case.versions.files.get(clone.other)
    if source is None or source.shifted or depth >= _MAX_CLONE_DEPTH:
        return True
    distance = clone.op.number("off") - clone.op.number("src")
    run = piece.run
    moved = Run(piece.start - distance, piece.end - distance, run.op, run.tag, run.shift - distance)
    if run.op == ZERO:
        moved = Run(moved.start, moved.end, ZERO)
    edges = sorted({edge for v in source.data for edge in (v.start, v.end)})
    return all(
        any(
            end >= _floor_when(source, part, clone.begin_ns)
            for end in _possible(case, source, part, clone.end_ns, depth + 1)
        )
        for part in _cut(moved, edges)
    )


def _floor_when(file: FileVersions, piece: _Piece, time_ns: int) -> int:
    """Begin of the youngest op that certainly wrote all of the piece and had returned by `time_ns`."""
    return max(
        (
            v.event.begin_ns
            for v in file.data
            if v.sure
            and v.start <= piece.start
            and v.end >= piece.end
            and v.event.end_ns < time_ns
            and not _may_be_undone_by_mapping(file, v.event)
        ),
        default=0,
    )


def _check_shifted(case: Case, path: str, file: FileVersions, runs: tuple[Run, ...]) -> Iterator[Violation]:
    """After collapse or insert offsets no longer tell: only ask that the words are this file's own."""
    tags = {file_tag(inode) for inode in _sources(case.versions, file.inode, frozenset())}
    bad = [
        _foreign(path, run)
        if run.op == FOREIGN
        else _misplaced(case, f"{path} bytes {run.start}..{run.end}", run)
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


def _foreign(path: str, run: Run) -> Violation:
    return Violation(
        rule="data",
        kind="foreign-data",
        subject=f"{path} bytes {run.start}..{run.end}",
        promised="every word was written by the workload or is zero",
        found="words no op of the workload wrote",
        source=_SOURCE_FOREIGN,
    )


def _misplaced(case: Case, where: str, run: Run) -> Violation:
    return Violation(
        rule="data",
        kind="misplaced-data",
        subject=where,
        promised="a word is found only where an op put it",
        found=_describe(case, run),
        source=_SOURCE_FOREIGN,
    )


def _describe(case: Case, run: Run) -> str:
    if run.op == ZERO:
        return "zeros"
    event = case.versions.history.by_id.get(run.op)
    words = " ".join([event.op.name, *(str(v) for _, v in event.op.args if v != "none")]) if event else "?"
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
