"""Facts from logs without times (device-mapper): what stands between the marks of sync calls."""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.state.history import Event
from fuzzer.workload.model import SETUP, actor_of
from fuzzer.writelog.joined import RunLog
from fuzzer.writelog.model import SYNC_MARK_PREFIX, Entry, Flag
from fuzzer.writelog.superblock import BTRFS_SUPER_OFFSET


def marked_facts(sync: Event, log: RunLog) -> Iterator[tuple[str, str]]:
    """`data`: `unflushed`, if the device saw no flush and no forced write during the call."""
    seen = _during(sync, log)
    if seen is not None and not any(entry.flags & (Flag.FLUSH | Flag.FUA) for entry in seen):
        yield "data", "unflushed"


def forced_facts(sync: Event, log: RunLog) -> Iterator[tuple[str, str]]:
    """`device`: `forced-only`, if what the device saw during the call was forced writes, which are durable by
    themselves, no flush and no superblock of btrfs, without which no new metadata is found there."""
    seen = _during(sync, log) or []
    forced = any(entry.is_write and entry.flags & Flag.FUA for entry in seen)
    if forced and not any(entry.is_flush or _is_superblock(entry) for entry in seen):
        yield "device", "forced-only"


def _is_superblock(entry: Entry) -> bool:
    return entry.is_write and entry.offset <= BTRFS_SUPER_OFFSET < entry.offset + entry.length


def _during(sync: Event, log: RunLog) -> list[Entry] | None:
    """What stands between the call's mark, which is put when it has returned, and the one before of its actor
    or of the setup, which has ended before any actor begins. None without a mark.

    It may be somebody else's: that is how there come to be no facts.
    """
    since: list[Entry] = []
    for entry in log.entries[log.start :]:
        if not entry.mark.startswith(SYNC_MARK_PREFIX):
            since.append(entry)
            continue
        op = int(entry.mark.split(":")[1])
        if op == sync.id:
            return since
        if actor_of(op) in (sync.actor, SETUP):
            since.clear()
    return None
