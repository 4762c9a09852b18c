"""Changes: the namespace ops that are part of an inode's own history, itself or as a directory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from fuzzer.state.history import Event


def logs_itself(event: Event) -> bool:
    """True for a change of names that has an fsync in it, before or after."""
    return event.op.name in ("tmplink", "unlink") and event.op.text("fsync") == "yes"


def find_changes(events: Iterable[Event], raced: Collection[int]) -> dict[int, list[Event]]:
    """Per inode: the ops that succeeded and certainly changed it.

    `events` are the namespace ops in order of their start, `raced` the ids of those whose inodes may not
    be the ones they looked up. A rename to a name its file already has succeeds and does nothing
    (rename(2)). An exchange changes the directories: xfs logs the two inodes only if one is a directory
    that gets another parent (xfs_dir_exchange_children in fs/xfs/libxfs/xfs_dir2.c).
    """
    changes: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        told = event.id not in raced
        if not event.succeeded or (event.op.name == "rename" and (not told or event.subject == event.other)):
            continue
        exchange = event.op.name == "rename" and event.op.text("flags") == "exchange"
        own = (event.subject, event.other) if told and not exchange else ()
        inodes = {event.directory, event.directory2, *own}
        for inode in inodes - {0}:
            changes[inode].append(event)
    return dict(changes)
