"""Removal: which ops may have taken a name from an inode, and when it may have had none left."""

from __future__ import annotations

from fuzzer.state.history import Event
from oracles.versions import UNKNOWN, NameKey, Versions, touched_names


def may_be_nameless(versions: Versions, inode: int, when_ns: int) -> bool:
    """True if the inode may have had no name left at some time before `when_ns`."""
    removals = [
        event
        for event in versions.name_events
        if event.begin_ns < when_ns and may_remove(versions, event, inode)
    ]
    if not removals:
        return False
    first = min(event.begin_ns for event in removals)
    names = sum(
        1
        for event in versions.name_events
        if event.subject == inode and event.op.name != "rename" and event.end_ns < first
    )
    return len(removals) >= names


def may_remove(versions: Versions, event: Event, inode: int) -> bool:
    """True if the op may have taken a name from `inode` without giving it another."""
    if event.op.name in ("unlink", "rmdir"):
        removed, key = event.subject, touched_names(event)[0]
    elif event.op.name == "rename" and event.op.text("flags") == "none":
        removed, key = event.other, touched_names(event)[1]
    else:
        return False
    if removed and event.id not in versions.raced:
        return removed == inode and not (event.op.name == "rename" and event.subject == inode)
    return _may_have_named(versions, key, inode, event)


def _may_have_named(versions: Versions, key: NameKey, inode: int, event: Event) -> bool:
    """True if the name may have stood for `inode` while the op ran."""
    before = [v for v in versions.names[key] if v.event is not event and v.event.begin_ns <= event.end_ns]
    floor = max((v.event.begin_ns for v in before if v.sure and v.event.end_ns < event.begin_ns), default=0)
    return any(v.inode in (inode, UNKNOWN) and v.event.end_ns >= floor for v in before)
