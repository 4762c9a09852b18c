"""Files that were unlinked and then fsynced: without a name, nothing but their removal is left to keep."""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.state.history import Event
from fuzzer.writelog.crash import Cut
from oracles.changes import logs_itself
from oracles.versions import UNKNOWN, Versions


def unlinked_for_good(versions: Versions, cut: Cut) -> Iterator[Event]:
    """The unlinks, with an fsync of the file in them, that surely took its only name and returned in time.

    Where some op gave a name to an inode that could not be told, any inode may have one more.
    """
    if versions.named_ns.get(UNKNOWN):
        return
    for event in versions.name_events:
        removes = event.op.name == "unlink" and logs_itself(event) and event.id not in versions.raced
        in_time = event.succeeded and event.end_ns < cut.returned_before_ns
        if removes and in_time and len(versions.named_ns.get(event.subject, ())) == 1:
            yield event
