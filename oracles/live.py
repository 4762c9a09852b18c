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
from collections.abc import Iterator
from dataclasses import replace

from fuzzer.state.history import Event
from fuzzer.state.stamps import FOREIGN, ZERO, Run
from oracles.case import Tally
from oracles.data import Origins, edges_of, floor_when, split
from oracles.floors import failed_syncs
from oracles.verdict import Violation
from oracles.versions import FileVersions, SizeVersion, Versions

_SOURCE = "POSIX write(2): a read that follows a write returns its data; open(2) NOTES for O_DIRECT"
_SOURCE_FOREIGN = "stale or foreign data in a file is a bug everywhere (fstests generic/042, generic/536)"

_DAMAGE = {errno.EIO: "EIO", errno.EUCLEAN: "EUCLEAN"}
"""Errors that say the file system is damaged; others (ENOMEM, EINVAL) are an answer."""


def check_reads(versions: Versions, tally: Tally) -> Iterator[Violation]:
    """Promise: a read that follows a write, by whoever and through whatever, returns its data."""
    origins = Origins(versions)
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
        spoiled_ns = max(failed.get(event.subject, 0), failed.get(0, 0))
        yield from _check_words(origins, file, event, spoiled_ns)
        yield from _check_end(file, event)


def _is_foreign(versions: Versions, run: Run) -> bool:
    return run.op == FOREIGN or (run.op != ZERO and run.op not in versions.history.by_id)


def _check_foreign(versions: Versions, event: Event) -> Iterator[Violation]:
    for run in event.seen:
        if _is_foreign(versions, run):
            found = f"words no op of the workload wrote, at {run.start}..{run.end}"
            promised = "every word was written by the workload or is zero"
            yield replace(_violation(event, "foreign-data", promised, found), source=_SOURCE_FOREIGN)
            return


def _check_words(origins: Origins, file: FileVersions, event: Event, spoiled_ns: int) -> Iterator[Violation]:
    """The first word that is too old, or that nobody put there.

    What was written before a sync call failed, at `spoiled_ns`, may be gone.
    """
    edges, versions = edges_of(file), origins.versions
    for run in event.seen:
        if _is_foreign(versions, run):
            continue
        for piece in split(run, edges):
            written_ns = floor_when(file, piece, event.begin_ns)
            floor = written_ns if written_ns >= spoiled_ns else 0
            if origins.explain(file, piece, event.end_ns + 1, floor):
                continue
            found = f"{_describe(versions, piece)} at {piece.start}..{piece.end}"
            if not origins.explain(file, piece, event.end_ns + 1, 0):
                promised = "a word is found only where an op put it, and not before"
                yield replace(_violation(event, "misplaced-data", promised, found), source=_SOURCE_FOREIGN)
            else:
                kind = "lost-to-zero" if piece.op == ZERO else "old-data"
                newest = next(v.event for v in file.data if v.event.begin_ns == floor)
                promised = f"the data of {_label(newest)}, which had returned, or newer"
                yield _violation(event, kind, promised, found)
            return


def _check_end(file: FileVersions, event: Event) -> Iterator[Violation]:
    """A read stops short only at the end of file, and goes no further than that."""
    end = event.op.number("off") + event.result
    wanted = event.result == event.op.number("len")
    grown = [v for v in file.sizes if v.value > end]
    cut = [v for v in file.sizes if v.value <= end and not v.raises]
    if not wanted and not _may_have_been([*cut, None], grown, event):
        yield _violation(
            event, "short-read", "a read returns data up to the end of file", f"the end at {end}"
        )
    reaching = [v for v in file.sizes if v.value >= end]
    below = [v for v in file.sizes if v.value < end and not v.raises]
    if event.result and not _may_have_been([*reaching], below, event):
        found = f"data up to {end}"
        yield _violation(event, "read-past-end", "a read returns nothing behind the end of file", found)


def _may_have_been(givers: list[SizeVersion | None], against: list[SizeVersion], event: Event) -> bool:
    """True if a giver (None: the file's birth) may have ruled the size while the read ran: it was
    invoked by then, and nothing that returned before the read has certainly overruled it since."""
    overruled_ns = max(
        (v.event.begin_ns for v in against if v.sure and v.event.end_ns < event.begin_ns), default=-1
    )
    return any(
        overruled_ns <= (giver.event.end_ns if giver else -1)
        and (giver is None or giver.event.begin_ns <= event.end_ns)
        for giver in givers
    )


def _violation(event: Event, kind: str, promised: str, found: str) -> Violation:
    direct = event.op.text("direct") == "yes"
    return Violation(
        rule="read",
        kind=f"{kind}-direct" if direct else kind,
        subject=_label(event),
        promised=promised,
        found=found,
        source=_SOURCE,
        sync=event.id,
    )


def _label(event: Event) -> str:
    return f"`{event.op.brief}` (actor {event.actor}, op {event.sequence})"


def _describe(versions: Versions, piece: Run) -> str:
    if piece.op == ZERO:
        return "zeros"
    moved = f", {piece.shift:+} bytes from where they were written," if piece.shift else ""
    return f"the words of {_label(versions.history.by_id[piece.op])}{moved}"
