"""Forced writes (FUA) in logs of dm-log-writes: put behind what was written to the same place before them.

The target logs a forced write as soon as it completes, but holds all others back, in the order they were
completed, until the next flush is submitted (`unflushed_blocks` in dm-log-writes.c). So between two flushes
forced writes stand before the others, whichever came first; replayed like that, an older write undoes a
younger one at the same place that was acknowledged as durable. Who knows that one of the others came first
knows it of all that completed before that one.

Our own recorder logs everything in the order of completion, with times; it needs none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from fuzzer.state.history import History
from fuzzer.state.stamps import decode
from fuzzer.writelog.joined import RunLog
from fuzzer.writelog.model import Entry, Flag

Before = Callable[[Entry, Entry], bool]
"""Whether an entry that overlaps a forced write came before that."""


def is_discard(entry: Entry, forced: Entry) -> bool:
    """A block is discarded after the flush that lets go of what is in it (see test_discards.py): between two
    flushes it can only have been free, and then written."""
    return bool(entry.flags & Flag.DISCARD)


def told_by_stamps(log: RunLog, history: History) -> Before:
    """By the ops whose words are written: none of the entry's is as young as those of the forced write.

    Where that has none it is not known, and the log is left as it is.
    """
    known = history.known_ids()

    def newest_ns(entry: Entry, other: Entry) -> int:
        low, high = max(entry.offset, other.offset), min(_end(entry), _end(other))
        data = log.payload(entry)[low - entry.offset : high - entry.offset]
        words = {run.op for run in decode(np.frombuffer(data, np.uint8), 0, known)}
        return max((history.by_id[op].begin_ns for op in words if op in history.by_id), default=-1)

    def before(entry: Entry, forced: Entry) -> bool:
        return is_discard(entry, forced) or newest_ns(entry, forced) < newest_ns(forced, entry)

    return before


def settle(log: RunLog, before: Before) -> RunLog:
    """The log in the order of completion, as far as `before` tells it. Logs with times have that already."""
    found = log.entries[log.start :]
    if any(entry.done_ns for entry in found):
        return log
    ordered = [entry for epoch in _epochs(found) for entry in _settled(epoch, before)]
    renumbered = (replace(entry, index=log.start + n) for n, entry in enumerate(ordered))
    return replace(log, entries=(*log.entries[: log.start], *renumbered))


def _epochs(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Up to and with each flush."""
    epoch: list[Entry] = []
    for entry in entries:
        epoch.append(entry)
        if entry.is_flush:
            yield epoch
            epoch = []
    yield epoch


def _settled(epoch: list[Entry], before: Before) -> list[Entry]:
    for forced in [entry for entry in epoch if entry.is_write and entry.flags & Flag.FUA]:
        at = epoch.index(forced)
        held = [entry for entry in epoch[at:] if _is_held_back(entry)]
        first = [n for n, entry in enumerate(held, 1) if _overlap(entry, forced) and before(entry, forced)]
        if first:
            moved = held[: first[-1]]
            behind = [entry for entry in epoch[at:] if entry not in moved]
            epoch = [*epoch[:at], *moved, *behind]
    return epoch


def _is_held_back(entry: Entry) -> bool:
    return entry.length > 0 and not entry.flags & (Flag.FUA | Flag.FLUSH | Flag.MARK)


def _overlap(one: Entry, other: Entry) -> bool:
    return one.offset < _end(other) and other.offset < _end(one)


def _end(entry: Entry) -> int:
    return entry.offset + entry.length
