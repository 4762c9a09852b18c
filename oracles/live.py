"""Reads of the running file system: what they return was there at some time while they ran.

"After a write() to a regular file has successfully returned, any successful read() from each byte
position in the file that was modified by that write() shall return the data specified by the write()
for that position until such byte positions are again modified" (POSIX, write). For files on Linux that
holds whatever the read goes through: a direct read writes back what is dirty in the cache first
(iomap_dio_rw, btrfs_direct_read), and stores through a shared mapping are in the cache (mmap(2)).

Words are judged one by one, so what overlaps a read may be in or out page by page: Linux promises no
more. Direct writes that overlap stores through a mapping promise nothing (open(2), NOTES).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fuzzer.state.history import Event
from fuzzer.state.stamps import FOREIGN, ZERO, Run
from oracles.case import Tally
from oracles.data import Origins, edges_of, may_be_undone_by_mapping, split
from oracles.file_versions import FileVersions
from oracles.floors import failed_syncs
from oracles.verdict import Violation
from oracles.versions import Versions

_SOURCE = "POSIX write(2): a read that follows a write returns its data; open(2) NOTES for O_DIRECT"
_SOURCE_FOREIGN = "stale or foreign data in a file is a bug everywhere (fstests generic/042, generic/536)"

_DAMAGE = {errno.EIO: "EIO", errno.EUCLEAN: "EUCLEAN"}
"""Errors that say the file system is damaged; others (ENOMEM, EINVAL) are an answer."""


def check_reads(versions: Versions, tally: Tally) -> Iterator[Violation]:
    """Promise: a read that follows a write, by whoever and through whatever, returns its data."""
    origins = Origins(versions)
    returned: dict[int, _Returned] = {}
    failed = failed_syncs(versions.history)
    for event in versions.history.events:
        if event.op.name != "read" or not event.returned:
            continue
        if event.errno in _DAMAGE:
            tally.judged += 1
            yield _violation(event, "read-error", "every file can be read", _DAMAGE[event.errno])
        if event.failed or event.result < 0:
            continue
        tally.judged += 1
        file = versions.files.get(event.subject)
        if file is None or (event.result and not event.seen):
            tally.skip("what it returned was not recorded, or nothing is known of the file")
            continue
        if any(shift.begin_ns <= event.end_ns for shift in file.shifted):
            tally.skip("collapse or insert may have moved the words")
            yield from _check_foreign(versions, event)
            continue
        yield from _check_foreign(versions, event)
        calls = (*failed.get(event.subject, ()), *failed.get(0, ()))
        spoiled_ns = max((call.end_ns for call in calls), default=0)
        if file.inode not in returned:
            returned[file.inode] = _Returned(file)
        yield from _check_words(origins, returned[file.inode], event, spoiled_ns)
        yield from _check_end(returned[file.inode], event)


def _is_foreign(versions: Versions, run: Run) -> bool:
    return run.op == FOREIGN or (run.op != ZERO and run.op not in versions.history.by_id)


def _check_foreign(versions: Versions, event: Event) -> Iterator[Violation]:
    for run in event.seen:
        if _is_foreign(versions, run):
            found = f"words no op of the workload wrote, at {run.start}..{run.end}"
            promised = "every word was written by the workload or is zero"
            violation = _violation(event, "foreign-data", promised, found, run.start)
            yield replace(violation, source=_SOURCE_FOREIGN)
            return


class _Returned:
    """What had certainly been done to one file by some time, ready for thousands of questions."""

    def __init__(self, file: FileVersions) -> None:
        self.file = file
        self.edges = edges_of(file)
        sure = [v for v in file.data if v.sure and not may_be_undone_by_mapping(file, v.event)]
        self._data = _table([(v.start, v.end, v.event.begin_ns, v.event.end_ns) for v in sure], 4)
        sizes = [(v.value, v.raises, v.sure, v.event.begin_ns, v.event.end_ns) for v in file.sizes]
        self._sizes = _table(sizes, 5)

    def floor(self, piece: Run, before_ns: int) -> int:
        """Begin of the youngest op that wrote all of the piece and had returned before; 0: none."""
        start, end, begin_ns, end_ns = self._data.T
        wrote = (start <= piece.start) & (end >= piece.end) & (end_ns < before_ns)
        return int(begin_ns[wrote].max(initial=0))

    def may_end_at(self, size: int, read: Event) -> bool:
        """True if the file may have been no longer than `size` while `read` ran."""
        value, raises, *_ = self._sizes.T
        return self._may_rule((value <= size) & (raises == 0), value > size, read, born=True)

    def may_reach(self, size: int, read: Event) -> bool:
        """True if the file may have been at least `size` long while `read` ran."""
        value, raises, *_ = self._sizes.T
        return self._may_rule(value >= size, (value < size) & (raises == 0), read, born=False)

    def _may_rule(
        self, givers: NDArray[np.bool_], against: NDArray[np.bool_], read: Event, *, born: bool
    ) -> bool:
        """True if one of `givers` (or, with `born`, the file's birth) may rule the size: invoked by then,
        and not certainly overruled by something that returned before the read began."""
        _, _, sure, begin_ns, end_ns = self._sizes.T
        overruled_ns = begin_ns[against & (sure != 0) & (end_ns < read.begin_ns)].max(initial=-1)
        alive = givers & (begin_ns <= read.end_ns) & (end_ns >= overruled_ns)
        return bool(alive.any()) or (born and overruled_ns < 0)


def _table(rows: Sequence[Sequence[int]], columns: int) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64).reshape(-1, columns)


def _check_words(origins: Origins, returned: _Returned, event: Event, spoiled_ns: int) -> Iterator[Violation]:
    """The first word that is too old, or that nobody put there.

    What was written before a sync call failed, at `spoiled_ns`, may be gone.
    """
    versions, file = origins.versions, returned.file
    for run in event.seen:
        if _is_foreign(versions, run):
            continue
        for piece in split(run, returned.edges):
            written_ns = returned.floor(piece, event.begin_ns)
            floor = written_ns if written_ns >= spoiled_ns else 0
            if origins.explain(file, piece, event.end_ns + 1, floor):
                continue
            found = f"{_describe(versions, piece)} at {piece.start}..{piece.end}"
            if not origins.explain(file, piece, event.end_ns + 1, 0):
                promised = "a word is found only where an op put it, and not before"
                violation = _violation(event, "misplaced-data", promised, found, piece.start)
                yield replace(violation, source=_SOURCE_FOREIGN)
            else:
                kind = "lost-to-zero" if piece.op == ZERO else "old-data"
                newest = next(v.event for v in file.data if v.event.begin_ns == floor)
                promised = f"the data of {_label(newest)}, which had returned, or newer"
                yield _violation(event, kind, promised, found, piece.start)
            return


def _check_end(returned: _Returned, event: Event) -> Iterator[Violation]:
    """A read stops short only at the end of file, and goes no further than that."""
    end = event.op.number("off") + event.result
    if event.result < event.op.number("len") and not returned.may_end_at(end, event):
        yield _violation(
            event, "short-read", "a read returns data up to the end of file", f"the end at {end}"
        )
    if event.result and not returned.may_reach(end, event):
        found = f"data up to {end}"
        yield _violation(event, "read-past-end", "a read returns nothing behind the end of file", found)


def _violation(event: Event, kind: str, promised: str, found: str, offset: int = -1) -> Violation:
    direct = event.op.text("direct") == "yes"
    return Violation(
        rule="read",
        kind=f"{kind}-direct" if direct else kind,
        subject=_label(event),
        promised=promised,
        found=found,
        source=_SOURCE,
        sync=event.id,
        inode=event.subject,
        offset=offset,
    )


def _label(event: Event) -> str:
    return f"`{event.op.brief}` (actor {event.actor}, op {event.sequence})"


def _describe(versions: Versions, piece: Run) -> str:
    if piece.op == ZERO:
        return "zeros"
    moved = f", {piece.shift:+} bytes from where they were written," if piece.shift else ""
    return f"the words of {_label(versions.history.by_id[piece.op])}{moved}"
