"""Times of files: not older than the last durable change, not from the time after the crash.

The kernel gives times of the granularity of its clock tick, so a time may lie a tick before the op that
set it (ktime_get_coarse_real_ts64; CONFIG_HZ is 100 at least). fsync keeps the times, fdatasync need
not (fsync(2)). Stores through a mapping set them with the first store to a clean page only, so they
raise no floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fuzzer.state.history import Event
from fuzzer.state.tree import Node
from oracles.case import Case, Rule
from oracles.verdict import Violation
from oracles.versions import FileVersions, Source

_SLACK_NS = 250_000_000
"""Ticks of a guest whose processor was not run for a while come late."""

_MAX_DRIFT_NS = 5_000_000
"""More says that the wall clock was set while the workload ran."""

_SETS_MTIME = frozenset({"write", "dwrite", "truncate", "otrunc"})


def check_times(case: Case) -> Iterator[Violation]:
    """Promise: fsync keeps mtime and ctime (source `times`)."""
    history = case.versions.history
    if not history.realtime_ns or history.realtime_drift_ns > _MAX_DRIFT_NS:
        case.tally.skip("the wall clock was set, or is not known")
        return
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if node.kind != "file" or file is None or file.born is None:
            continue
        case.tally.judged += 1
        changes = list(_content_changes(file))
        yield from _check(case, path, node, "mtime", node.mtime_ns, changes)
        changes += _attribute_changes(file)
        yield from _check(case, path, node, "ctime", node.ctime_ns, changes)


def _content_changes(file: FileVersions) -> Iterator[Event]:
    """The ops that surely set the mtime, and with it the ctime."""
    for version in file.data:
        event = version.event
        wrote = version.source is not Source.WRITE or event.result > 0
        if version.sure and wrote and event.op.name in _SETS_MTIME:
            yield event


def _attribute_changes(file: FileVersions) -> list[Event]:
    """The ops that surely set the ctime alone."""
    values = (*file.modes, *(v for versions in file.xattrs.values() for v in versions))
    return [v.event for v in values if v.event.succeeded and v.event is not file.born]


def _check(
    case: Case, path: str, node: Node, name: str, time_ns: int, changes: Iterable[Event]
) -> Iterator[Violation]:
    ahead_ns = case.versions.history.realtime_ns
    born = case.versions.files[node.inode].born
    assert born is not None
    durable = [
        (event, sync)
        for event in changes
        if (sync := case.floors.metadata_sync(node.inode, event)) is not None
    ]
    newest, sync = max(durable, key=lambda pair: pair[0].begin_ns, default=(born, 0))
    if time_ns < newest.begin_ns + ahead_ns - _SLACK_NS:
        kind, promised = f"old-{name}", f"its {name} is that of `{newest.op.brief}`, or later"
        if sync:
            promised += f", by {case.sync_label(sync)}"
    elif name == "mtime" and time_ns > _latest_ns(case) + ahead_ns + _SLACK_NS:
        kind, promised = "mtime-from-nowhere", "its mtime is from before the crash"
    else:
        return
    off_ms = (time_ns - newest.begin_ns - ahead_ns) / 1e6
    yield Violation(
        rule="times",
        kind=kind,
        subject=path,
        promised=promised,
        found=f"it is {off_ms:.0f} ms from the begin of that op",
        source=case.profile.source("times"),
        sync=sync,
        inode=node.inode,
        op=newest.id,
    )


def _latest_ns(case: Case) -> int:
    """When the last op can have worked. A ctime may be younger: log replay that changes the names of a
    file sets it (btrfs_unlink_inode)."""
    return case.floors.cut.invoked_before_ns


RULES = (Rule("times", check_times),)
