"""Changes: the namespace ops that are part of an inode's own history, itself or as a directory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from fuzzer.state.history import Event


def find_changes(events: Iterable[Event], raced: Collection[int]) -> dict[int, list[Event]]:
    """Per inode: the ops that succeeded and certainly changed it.

    `events` are the namespace ops in order of their start, `raced` the ids of those whose inodes may not
    be the ones they looked up. A rename to a name its file already has succeeds and does nothing
    (rename(2)).
    """
    changes: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        told = event.id not in raced
        if not event.succeeded or (event.op.name == "rename" and (not told or event.subject == event.other)):
            continue
        inodes = {event.directory, event.directory2, *((event.subject, event.other) if told else ())}
        for inode in inodes - {0}:
            changes[inode].append(event)
    return dict(changes)
