"""Facts about a name that is not bound as promised: what was done to it, and what was synced since."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from fuzzer.state.history import Event
from fuzzer.writelog.crash import Cut
from oracles import Violation
from oracles.changes import logs_itself
from oracles.versions import NameKey, Versions, overlaps, touched_names


def name_facts(violation: Violation, versions: Versions, cut: Cut) -> Iterator[tuple[str, str]]:
    """`promised`, `shown`, `last`: how the name got the binding it should have, the one it has, and the
    one it had last before the crash. `left`: how the promised file left the name again.

    `*-since`: which sync calls came after that last change. `parent-logged`: the name's directory was
    fsynced between the last whole commit and the promised change, or a file that had lost a name there
    (`yes`), or a file renamed in it was, which logs it too, after the change began (`sibling`). `synced`:
    the call that promised was of the file itself (`self`), of one that was renamed and had this name
    before (`former`), or of another (`other`). `renamed-beside`: an fsync of a file that had lost a name in
    the same directory, which logs that, overlapped a rename of the promised file there.
    """
    key = _key(violation, versions)
    found = [v.event for v in versions.names.get(key, ()) if v.event.begin_ns < cut.invoked_before_ns]
    if not found:
        return
    by_id = {event.id: event for event in found}
    promised, shown, last = by_id.get(violation.op), by_id.get(violation.seen), found[-1]
    if promised is not None:
        yield "promised", _role(promised, key)
        following = next((e for e in found if e.begin_ns > promised.begin_ns), None)
        yield "left", _role(following, key) if following else "not"
        yield "parent-logged", _parent_logged(promised, key[0], versions)
        yield "renamed-beside", "yes" if _renamed_beside(promised.subject, key[0], versions) else "no"
        yield "synced", _synced(promised, found, versions.history.by_id.get(violation.sync))
    if shown is not None:
        yield "shown", _role(shown, key)
    yield "last", _role(last, key)
    yield from _since_facts(last, versions, cut)
    yield "parent", "moved" if _parent_moved(key[0], versions, cut) else "stayed"


def unlinked_facts(violation: Violation, versions: Versions, cut: Cut) -> Iterator[tuple[str, str]]:
    """`unlinked`: the file of the violation was unlinked and then fsynced, and its directory had been
    `logged` before in the same transaction, or is `fresh` (else there is no such fact)."""
    promised = versions.history.by_id.get(violation.op)
    inode = violation.inode if not violation.name else promised.subject if promised else 0
    before = (e for e in versions.name_events if e.succeeded and e.begin_ns < cut.invoked_before_ns)
    synced = (e for e in before if e.op.name == "unlink" and e.subject == inode and logs_itself(e))
    for event in islice(synced, 1):
        yield "unlinked", "logged" if _directory_logged(event, versions) else "fresh"


def _directory_logged(unlink: Event, versions: Versions) -> bool:
    """Whether an fsync of the directory or of a file that got or lost a name there, which logs it as well,
    ran between the last whole commit and the unlink."""
    events = [e for e in versions.history.events if e.succeeded and e.begin_ns < unlink.end_ns]
    commits = (e.begin_ns for e in events if e.op.name in ("sync", "syncfs") and e.end_ns < unlink.begin_ns)
    since = max(commits, default=0)
    changed = {e.subject for e in versions.name_events if unlink.directory in (e.directory, e.directory2)} - {
        unlink.subject
    }
    logged = {unlink.directory, *changed}
    calls = (e for e in events if e.op.name == "fsync" and e.end_ns >= since)
    return any(call.subject in logged for call in calls)


def _key(violation: Violation, versions: Versions) -> NameKey:
    """The name a violation is about: of an inode that no name leads to, the one it was made with."""
    born = versions.history.by_id.get(violation.op)
    if violation.name or born is None:
        return violation.inode, violation.name
    return touched_names(born)[-1]


def _synced(promised: Event, found: list[Event], sync: Event | None) -> str:
    """Whose sync call promised what `promised` did to the name that `found` changed."""
    if sync is not None and sync.subject == promised.subject:
        return "self"
    left = {e.subject for e in found if e.op.name == "rename" and e.begin_ns < promised.begin_ns}
    return "former" if sync is not None and sync.subject in left else "other"


def _role(event: Event, key: NameKey) -> str:
    """What the op did to the name."""
    name = event.op.name
    if name != "rename":
        return {"unlink": "removed", "rmdir": "removed"}.get(name, "made")
    if event.op.text("flags") == "exchange":
        return "exchanged"
    if touched_names(event)[1] != key:
        return "moved-away"
    return "moved-over" if event.other and event.other != event.subject else "moved-to"


def _since_facts(last: Event, versions: Versions, cut: Cut) -> Iterator[tuple[str, str]]:
    """Was there a sync call after the name's last change, be it under way at the crash, and one that had
    returned of the file that was replaced by it or whose name was removed?"""
    syncs = [e for e in versions.history.events if e.op.is_durability_point and last.begin_ns <= e.end_ns]
    begun = any(e.begin_ns < cut.invoked_before_ns for e in syncs)
    calls = [e for e in syncs if e.succeeded and e.end_ns < cut.returned_before_ns]
    whole = any(e.op.name in ("sync", "syncfs") and e.begin_ns >= last.end_ns for e in calls)
    yield "commit-since", "yes" if whole else "no"
    yield "sync-since", "yes" if begun else "no"
    gone = last.other if last.op.name == "rename" else last.subject
    yield "gone-synced-since", "yes" if gone and any(e.subject == gone for e in calls) else "no"
    later = [event for event in calls if event.begin_ns >= last.begin_ns]
    kept = last.subject if last.op.name == "rename" else 0
    yield "new-synced-since", "yes" if kept and any(e.subject == kept for e in later) else "no"


def _renamed_beside(inode: int, directory: int, versions: Versions) -> bool:
    events = [event for event in versions.history.events if event.succeeded]
    unlinked = {e.subject for e in events if e.op.name == "unlink" and e.directory == directory}
    syncs = [e for e in events if e.op.name == "fsync" and e.subject in unlinked - {inode}]
    renames = [e for e in events if e.op.name == "rename" and e.subject == inode]
    return any(
        overlaps(rename, sync)
        for rename in renames
        if directory in (rename.directory, rename.directory2)
        for sync in syncs
    )


def _parent_logged(change: Event, directory: int, versions: Versions) -> str:
    """Whether an fsync may have logged the directory in the transaction the change is part of: one of its
    own, or of a file that had lost a name there, or `sibling`."""
    events = [e for e in versions.history.events if e.succeeded]
    calls = [e for e in events if e.op.name in ("sync", "syncfs") and e.end_ns < change.begin_ns]
    since = max((e.begin_ns for e in calls), default=0)
    syncs = [e for e in events if (e.op.name == "fsync" or logs_itself(e)) and e.end_ns >= since]
    earlier = [e for e in events if e.begin_ns < change.end_ns and e.id != change.id]
    removed = {e.subject: e.begin_ns for e in earlier if e.op.name == "unlink" and e.directory == directory}
    before = [e for e in syncs if e in earlier]
    if any(e.subject == directory or removed.get(e.subject, e.end_ns) <= e.begin_ns for e in before):
        return "yes"
    moved = {
        e.subject: e.begin_ns
        for e in earlier
        if e.op.name == "rename" and directory in (e.directory, e.directory2)
    }
    beside = [e for e in syncs if e.subject != change.subject and e.end_ns >= change.begin_ns]
    return "sibling" if any(moved.get(e.subject, e.end_ns) < e.begin_ns for e in beside) else "no"


def _parent_moved(directory: int, versions: Versions, cut: Cut) -> bool:
    """True if the directory was renamed since the last whole commit before the cut."""
    events = versions.history.events
    commits = (
        e.begin_ns
        for e in events
        if e.op.name in ("sync", "syncfs") and e.succeeded and e.end_ns < cut.returned_before_ns
    )
    since = max(commits, default=0)
    return any(
        e.op.name == "rename"
        and e.subject == directory
        and e.end_ns >= since
        and e.begin_ns < cut.invoked_before_ns
        and not e.failed
        for e in events
    )


def named_since(sync: Event, versions: Versions, cut: Cut) -> str:
    """Whether the inode that was synced got another name between the call and the crash."""
    named = any(
        e.op.name in ("rename", "link")
        and e.subject == sync.subject
        and sync.end_ns <= e.begin_ns < cut.invoked_before_ns
        and not e.failed
        for e in versions.history.events
    )
    return "yes" if named else "no"


def relatives(inode: int, versions: Versions) -> frozenset[int]:
    """The inode and what one fsync may log with it (fs/btrfs/tree-log.c): every directory it was ever in,
    however deep, everything that was ever in it, and inodes it shared a name with."""
    above: dict[int, set[int]] = {}
    below: dict[int, set[int]] = {}
    beside: dict[int, set[int]] = {}
    for (directory, _), found in versions.names.items():
        here = {version.inode for version in found if version.inode > 0}
        below.setdefault(directory, set()).update(here)
        for one in here:
            above.setdefault(one, set()).add(directory)
            beside.setdefault(one, set()).update(here)
    return frozenset(_reach(inode, above) | _reach(inode, below) | _reach(inode, beside))


def _reach(start: int, edges: dict[int, set[int]]) -> set[int]:
    seen, pending = {start}, [start]
    while pending:
        for inode in edges.get(pending.pop(), set()) - seen:
            seen.add(inode)
            pending.append(inode)
    return seen
