"""Floors: what the sync calls that had returned before the crash made durable.

A sync call covers what had *returned before it was invoked*. An op that overlaps it may be in or out.
What is covered by which call is the contract of the file system; where maintainers have said that
something is not promised (or merely happens to work), it is left out here, so it raises no floor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from fuzzer.state.history import FOREVER, Event
from fuzzer.writelog.crash import LIVE, Cut
from oracles.versions import NameVersion, Versions

_EVERYTHING_NS = FOREVER


@dataclass(slots=True)
class Floors:
    """Which effects are durable at one cut.

    Times are the invocation of the youngest covering call (0: none): everything that returned before
    is durable. `names` holds ids of durable namespace ops and the id of the sync call that made each
    so; `ranges` lists (start, end, time, id) per inode for calls that cover a part of a file.
    """

    versions: Versions
    cut: Cut
    everything: tuple[int, int] = (0, 0)
    data: dict[int, tuple[int, int]] = field(default_factory=dict)
    metadata: dict[int, tuple[int, int]] = field(default_factory=dict)
    ranges: dict[int, list[tuple[int, int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    own: set[int] = field(default_factory=set)
    """Ids of O_SYNC/O_DSYNC writes (and mwrite with msync) that returned: durable by themselves."""
    names: dict[int, int] = field(default_factory=dict)

    def visible(self, event: Event) -> bool:
        """True if the op may show in this state."""
        return event.begin_ns < self.cut.invoked_before_ns

    def data_sync(self, inode: int, event: Event) -> int | None:
        """Id of the sync call that made the op's effect on the whole file's data durable, or None."""
        if event.id in self.own:
            return event.id
        return _covered(event, self.everything, self.data.get(inode, (0, 0)))

    def metadata_sync(self, inode: int, event: Event) -> int | None:
        """Id of the sync call that made an attribute change of `inode` durable, or None."""
        return _covered(event, self.everything, self.metadata.get(inode, (0, 0)))

    def durable_name(self, version: NameVersion) -> bool:
        return version.event.id in self.names


def _covered(event: Event, *floors: tuple[int, int]) -> int | None:
    for time, sync in floors:
        if event.succeeded and event.end_ns < time:
            return sync
    return None


def compute_floors(versions: Versions, cut: Cut) -> Floors:
    """Floors of one crash point; with the `LIVE` cut everything that returned is durable."""
    floors = Floors(versions, cut)
    if cut == LIVE:
        floors.everything = (_EVERYTHING_NS, 0)
        floors.names = {e.id: 0 for e in versions.name_events if e.returned}
        return floors
    for event in versions.history.events:
        if event.succeeded and event.end_ns < cut.returned_before_ns and event.op.is_durability_point:
            _add_sync(floors, event)
    _add_names(floors)
    return floors


def _add_sync(floors: Floors, event: Event) -> None:
    name, inode, floor = event.op.name, event.subject, (event.begin_ns, event.id)
    if name in ("sync", "syncfs"):
        floors.everything = max(floors.everything, floor)
    elif name == "msync":
        start = event.op.number("off")
        floors.ranges[inode].append((start, start + event.op.number("len"), *floor))
    elif name in ("fsync", "fdatasync"):
        floors.data[inode] = max(floors.data.get(inode, (0, 0)), floor)
        if name == "fsync":
            floors.metadata[inode] = max(floors.metadata.get(inode, (0, 0)), floor)
    else:
        floors.own.add(event.id)


def _add_names(floors: Floors) -> None:
    """Mark the namespace ops that are durable."""
    for event in floors.versions.name_events:
        if not event.returned:
            continue
        sync = _name_sync(floors, event)
        if sync is not None:
            floors.names[event.id] = sync
    for inode, sync in _reached(floors):
        _add_birth(floors, inode, sync)
    for event in floors.versions.name_events:
        if event.id in floors.names:
            for directory in {event.directory, event.directory2} - {0}:
                _add_birth(floors, directory, floors.names[event.id])


def _name_sync(floors: Floors, event: Event) -> int | None:
    """Id of the sync call that made a namespace op durable, or None.

    A directory renamed and then fsynced itself keeps existing, but its new name is only promised by
    its new parent. RENAME_EXCHANGE followed by fsync of one side is both-or-none (fstests btrfs/341),
    so only sync covers it. fsync of the directory a file was moved *out* of promises that the file is
    not lost, not where it is (discussion of fstests generic/335).
    """
    covered = _covered(event, floors.everything)
    if covered is not None:
        return covered
    exchange = event.op.name == "rename" and event.op.text("flags") == "exchange"
    if exchange:
        return None
    parent = event.directory2 if event.op.name == "rename" else event.directory
    covered = _covered(event, floors.metadata.get(parent, (0, 0)))
    if covered is not None:
        return covered
    if event.id in floors.versions.raced or _is_directory_move(floors, event):
        return None
    return _covered(event, floors.metadata.get(event.subject, (0, 0)))


def _is_directory_move(floors: Floors, event: Event) -> bool:
    born = floors.versions.file(event.subject).born
    return event.op.name == "rename" and born is not None and born.op.name == "mkdir"


def _reached(floors: Floors) -> Iterable[tuple[int, int]]:
    """Inodes that must exist because their data was synced: (inode, sync id)."""
    for inode, (_, sync) in floors.data.items():
        yield inode, sync
    for event_id in floors.own:
        yield floors.versions.history.by_id[event_id].subject, event_id
    for inode, ranges in floors.ranges.items():
        yield inode, ranges[-1][3]


def _add_birth(floors: Floors, inode: int, sync: int) -> None:
    """What made `inode` is durable if it had returned before the sync call; so are its ancestors."""
    begin = floors.versions.history.by_id[sync].begin_ns if sync else FOREVER
    while True:
        born = floors.versions.file(inode).born
        if born is None or born.end_ns >= begin or born.id in floors.names:
            return
        floors.names[born.id] = sync
        inode = born.directory
