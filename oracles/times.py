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
from fuzzer.state.utimes_value import utimes_ns
from fuzzer.workload.ops import Role
from oracles.case import Case, Rule
from oracles.file_versions import FileVersions, Source
from oracles.verdict import Violation

_SLACK_NS = 250_000_000
"""Ticks of a guest whose processor was not run for a while come late."""

_MAX_DRIFT_NS = 5_000_000
"""More says that the wall clock was set while the workload ran."""

_SETS_MTIME = frozenset({"write", "append", "dwrite", "awrite", "truncate", "otrunc"})


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
        if file.dated:
            yield from _check_dated(case, path, node, file, changes)
        else:
            yield from _check(case, path, node, "mtime", node.mtime_ns, changes)
        changes += _attribute_changes(file)
        yield from _check(case, path, node, "ctime", node.ctime_ns, changes)


def _content_changes(file: FileVersions) -> Iterator[Event]:
    """The ops that surely set the mtime, and with it the ctime."""
    for version in file.data:
        event = version.event
        wrote = version.source is not Source.WRITE or event.op.name == "append" or event.result > 0
        if version.sure and wrote and event.op.name in _SETS_MTIME:
            yield event


def _attribute_changes(file: FileVersions) -> list[Event]:
    """The ops that surely set the ctime alone."""
    named = (*file.xattrs.values(), *file.acls.values())
    values = (*file.modes, *file.owners, *(v for versions in named for v in versions))
    events = [*(v.event for v in values), *file.dated]
    return [event for event in events if event.succeeded and event is not file.born]


def _check_dated(
    case: Case, path: str, node: Node, file: FileVersions, changes: list[Event]
) -> Iterator[Violation]:
    """The mtime of a file that utimes ops have set to times of their own, long ago.

    It is the time of one of them, not over before the newest durable change; or a time of the clock,
    if something else may have set it since.
    """
    setters = [*changes, *(event for event in file.dated if event.succeeded)]
    newest, sync = _newest(case, node.inode, setters)
    makers = [e for e in file.dated if case.floors.visible(e) and utimes_ns(e.id) == node.mtime_ns]
    since = [e for e in makers if newest is None or e.end_ns >= newest.begin_ns]
    if since:
        return
    if not makers and (newest not in file.dated or _may_be_touched(case, node.inode, newest)):
        yield from _check(case, path, node, "mtime", node.mtime_ns, changes)
        return
    yield Violation(
        rule="times",
        kind="old-mtime",
        subject=path,
        promised=f"its mtime is that of `{newest.op.brief}`, or later, by {case.sync_label(sync)}"
        if newest
        else "",
        found=f"it is that of `{makers[0].op.brief}`" if makers else "it is another one",
        source=case.profile.source("times"),
        sync=sync,
        inode=node.inode,
        op=newest.id if newest else 0,
    )


def _may_be_touched(case: Case, inode: int, since: Event | None) -> bool:
    """True if an op that was not over before `since` may have set the mtime to the time of the clock."""
    begin_ns = since.begin_ns if since else 0
    return any(
        inode in (event.subject, event.other if event.op.name == "exchange_range" else 0)
        and event.op.spec.role is Role.DATA
        and event.end_ns >= begin_ns
        and case.floors.visible(event)
        for event in case.versions.history.events
    )


def _newest(case: Case, inode: int, changes: Iterable[Event]) -> tuple[Event | None, int]:
    """The youngest durable one of some changes, and the id of the sync call that made it so."""
    durable = [
        (event, sync) for event in changes if (sync := case.floors.time_sync(inode, event)) is not None
    ]
    return max(durable, key=lambda pair: pair[0].begin_ns, default=(None, 0))


def _check(
    case: Case, path: str, node: Node, name: str, time_ns: int, changes: Iterable[Event]
) -> Iterator[Violation]:
    ahead_ns = case.versions.history.realtime_ns
    born = case.versions.files[node.inode].born
    assert born is not None
    newest, sync = _newest(case, node.inode, changes)
    newest = newest or born
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
