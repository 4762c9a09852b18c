"""Fate: what a power cut did to each entry of a log."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from fuzzer.writelog.crash import CrashState, Kept, OpenEntries
from fuzzer.writelog.model import Entry


class Fate(StrEnum):
    """The word people see behind an entry."""

    DURABLE = "durable"
    SURVIVED = "survived"
    TORN = "torn"
    LOST = "lost"
    AFTER = "after the cut"
    NONE = ""


def entry_fates(entries: Sequence[Entry], start: int, state: CrashState | None) -> dict[int, Fate]:
    """Per index from `start` on: what became of the entry at the (first) cut of `state`.

    Without a cut (None) everything survived. Damage that was planted is not counted in.
    """
    if state is None:
        return {e.index: Fate.SURVIVED if e.length else Fate.NONE for e in entries[start:]}
    going_by = OpenEntries()
    for entry in entries[start : state.point]:
        going_by.advance(entry)
    at_stake = {entry.index for entry in going_by.may_be_lost}
    kept = set(state.kept) if not isinstance(state.kept, Kept) else set()
    kept |= at_stake if state.kept is Kept.EVERYTHING else set()
    torn = {one.entry for one in state.torn}

    def fate(entry: Entry) -> Fate:
        if entry.index >= state.point:
            return Fate.AFTER
        if not entry.length:
            return Fate.NONE
        if entry.index not in at_stake:
            return Fate.DURABLE
        if entry.index in torn:
            return Fate.TORN
        return Fate.SURVIVED if entry.index in kept else Fate.LOST

    return {entry.index: fate(entry) for entry in entries[start:]}
