"""The log of a run: what mkfs wrote, then what the workload wrote, as one sequence of entries.

mkfs is recorded once and its result used for many runs; positions in crash states count from the
first entry of mkfs, so that they mean the same in memory and in a saved log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzzer.errors import InputError
from fuzzer.writelog.format import Log, write_log
from fuzzer.writelog.image import BLOCK_BYTES, Image
from fuzzer.writelog.model import MARK_END, MARK_MKFS, Entry, Flag


@dataclass(frozen=True, slots=True)
class RunLog:
    """Entries of one or two logs, re-numbered. `start` is the position after mkfs."""

    entries: tuple[Entry, ...]
    start: int
    _parts: tuple[Log, ...]

    @property
    def sector_bytes(self) -> int:
        """Logical sector of the device."""
        return self._parts[0].sector_bytes

    def payload(self, entry: Entry) -> memoryview:
        """The bytes a write entry wrote."""
        return self._parts[0 if len(self._parts) == 1 or entry.index < self.start else 1].payload(entry)


def join_logs(mkfs: Log, run: Log) -> RunLog:
    """Put the log of a run behind that of the mkfs it started from."""
    before = _without_end(mkfs.entries)
    after = _without_end(run.entries)
    return RunLog((*before, *_renumber(after, len(before))), len(before), (mkfs, run))


def write_joined(path: Path, log: RunLog) -> None:
    """Save the run as one complete log file."""
    if len(log._parts) == 1:
        write_log(path, [(log._parts[0], log.entries)])
    else:
        mkfs, run = log._parts
        write_log(path, [(mkfs, log.entries[: log.start]), (run, log.entries[log.start :])])


def split_log(log: Log) -> RunLog:
    """A saved log as a run: everything up to the mark `mkfs` is the base (nothing, if there is none)."""
    entries = _without_end(log.entries)
    start = next((e.index + 1 for e in entries if e.mark == MARK_MKFS), 0)
    return RunLog(tuple(entries), start, (log,))


def base_image(log: RunLog, size_bytes: int) -> Image:
    """The device as mkfs left it."""
    return full_image(Image(size_bytes), log.entries[: log.start], log.payload)


def full_image(base: Image, entries: Sequence[Entry], payload: Callable[[Entry], memoryview]) -> Image:
    """`base` with everything in `entries` applied in order."""
    image = base.fork()
    for entry in entries:
        if entry.flags & Flag.DISCARD:
            image.discard(entry.offset, entry.length)
        elif entry.is_write:
            image.write(entry.offset, payload(entry))
    return image


def device_bytes(log: RunLog) -> int:
    """Smallest device that holds everything the log writes; InputError if it writes nothing."""
    end = max((e.offset + e.length for e in log.entries), default=0)
    if not end:
        raise InputError("the log writes nothing")
    return -(-end // BLOCK_BYTES) * BLOCK_BYTES


def _without_end(entries: Sequence[Entry]) -> Sequence[Entry]:
    return entries[:-1] if entries and entries[-1].mark == MARK_END else entries


def _renumber(entries: Sequence[Entry], first: int) -> list[Entry]:
    # dataclasses.replace is several times slower, and this runs for every workload
    return [
        Entry(first + i, e.flags, e.offset, e.length, e.data_at, e.mark, e.arrived_ns, e.done_ns)
        for i, e in enumerate(entries)
    ]
