"""Facts from logs without times (device-mapper): what stands between the marks of sync calls."""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.state.history import Event
from fuzzer.workload.model import actor_of
from fuzzer.writelog.joined import RunLog
from fuzzer.writelog.model import SYNC_MARK_PREFIX, Flag


def marked_facts(sync: Event, log: RunLog) -> Iterator[tuple[str, str]]:
    """`data`: `unflushed`, if the device saw no flush and no forced write during the call.

    None stands between its mark, which is put when it has returned, and the one its actor put before. A
    flush of somebody else may: then there is no such fact.
    """
    since: list[Flag] = []
    for entry in log.entries[log.start :]:
        if not entry.mark.startswith(SYNC_MARK_PREFIX):
            since.append(entry.flags)
            continue
        op = int(entry.mark.split(":")[1])
        if op == sync.id:
            if not any(flags & (Flag.FLUSH | Flag.FUA) for flags in since):
                yield "data", "unflushed"
            return
        if actor_of(op) == sync.actor:
            since.clear()
