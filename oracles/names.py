"""Names: each is bound to something it was bound to, not older than what was made durable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fuzzer.state.history import Event
from fuzzer.state.inode import format_inode
from oracles.bindings import may_bind
from oracles.case import Case, Rule
from oracles.moments import may_be_removed
from oracles.profile import EVERYTHING
from oracles.verdict import Violation
from oracles.versions import UNKNOWN, NameKey, NameVersion, leaves_whiteout

BEFORE = -1
"""End of the state before the history, in which no name existed."""

_KINDS = {
    "mkdir": "dir",
    "subvol_create": "dir",
    "snapshot": "dir",
    "symlink": "symlink",
    "create": "file",
    "tmplink": "file",
    "mknod": "other",
}


def check_names(case: Case) -> Iterator[Violation]:
    """Promise: a name durable at the crash is there, or what a later op made of it (source `name`)."""
    present = case.tree.entries
    for key in {*case.versions.names, *present}:
        if case.versions.is_opaque(key[0]):
            case.tally.skip("a directory nobody looked into")
            continue
        case.tally.judged += 1
        yield from _check_name(case, key, present.get(key, 0))


def _check_name(case: Case, key: NameKey, found: int) -> Iterator[Violation]:
    seen = look(case, key, found)
    if seen.by:
        return
    yield Violation(
        rule="names",
        kind=_kind(found, seen.newest, bool(seen.givers) or found == 0),
        subject=called(case, key),
        promised=_promise(case, seen.newest, seen.sync),
        found=f"it names {_what(case, found)}",
        source=case.profile.source(
            "sync" if seen.newest is None else _promise_kind(case, key, seen.newest, seen.sync)
        ),
        sync=seen.sync,
        inode=key[0],
        name=key[1],
        op=seen.newest.event.id if seen.newest else 0,
        seen=seen.givers[-1].id if seen.givers else 0,
    )


@dataclass(frozen=True, slots=True)
class Look:
    """What explains a name: `by` are [begin, end] of the ops that may have left it so, `givers`, as far as
    they are not older than `newest`, what a call `sync` made durable of it."""

    by: tuple[tuple[int, int], ...]
    newest: NameVersion | None
    sync: int
    givers: tuple[Event, ...]
    """In order of their start."""


def look(case: Case, key: NameKey, found: int) -> Look:
    versions = [v for v in case.versions.names.get(key, ()) if case.floors.visible(v.event)]
    durable = [
        (v, sync) for v in versions if v.sure and (sync := case.floors.name_sync(key, v, found)) is not None
    ]
    newest, sync = max(durable, key=lambda pair: pair[0].event.begin_ns, default=(None, 0))
    givers = tuple(v.event for v in versions if _explains(case, key, v, found))
    late = [e for e in givers if newest is None or not case.versions.precedes(e, newest.event)]
    by = [(event.begin_ns, event.end_ns) for event in late]
    if found == 0 and newest is None:
        by.append((BEFORE, BEFORE))
    return Look(tuple(by), newest, sync, givers)


def name_makers(case: Case) -> Iterator[list[Event]]:
    """For every name that some op must have made what it is, the ops that may have."""
    present = case.tree.entries
    for key in {*case.versions.names, *present}:
        seen = look(case, key, present.get(key, 0))
        if not case.versions.is_opaque(key[0]) and (seen.newest or key in present):
            newest = seen.newest
            yield [e for e in seen.givers if newest is None or not case.versions.precedes(e, newest.event)]


def _explains(case: Case, key: NameKey, version: NameVersion, found: int) -> bool:
    """True if the op may have left the name bound to `found`.

    On btrfs an exchange of which one side was persisted leaves nothing at that side's old name, if the
    inode that came there was itself never made durable; so does a rename with a whiteout.
    """
    if may_bind(case.versions, key, version, found):
        return True
    if case.profile.atomic_moves or found:
        return False
    if leaves_whiteout(version.event, key):
        return (version.event.id, key) not in case.floors.names
    exchange = version.event.op.name == "rename" and version.event.op.text("flags") == "exchange"
    return exchange and version.inode not in case.floors.existing


def _kind(found: int, newest: NameVersion | None, known: bool) -> str:
    if newest is None or (found and not known):
        return "name-from-nowhere"
    if found == 0:
        return "missing-name"
    return "resurrected-name" if newest.inode == 0 else "old-binding"


def called(case: Case, key: NameKey) -> str:
    return f"name {key[1]} in {case.versions.label(key[0])}"


def _promise(case: Case, newest: NameVersion | None, sync: int) -> str:
    if newest is None:
        return "no op ever made this binding"
    bound = _what(case, newest.inode)
    return f"`{newest.event.op.brief}` bound it to {bound}, made durable by {case.sync_label(sync)}"


def _promise_kind(case: Case, key: NameKey, newest: NameVersion, sync: int) -> str:
    reason = case.floors.reasons.get((newest.event.id, key))
    if reason is not None:
        return reason
    event = case.versions.history.by_id.get(sync)
    if event is None or event.op.name in EVERYTHING:
        return "sync"
    born = case.versions.file(event.subject).born
    return "directory" if born is None or _KINDS[born.op.name] == "dir" else "name"


def _what(case: Case, inode: int) -> str:
    if inode == 0:
        return "nothing"
    return "an inode that could not be told" if inode == UNKNOWN else case.versions.label(inode)


def check_not_lost(case: Case) -> Iterator[Violation]:
    """Promise: an inode made durable keeps a name unless an op that removes names was started."""
    present = set(case.tree.entries.values())
    for inode, sync in case.floors.existing.items():
        case.tally.judged += 1
        before_ns = case.floors.cut.invoked_before_ns
        if inode in present or may_be_removed(case.versions, case.profile, inode, before_ns):
            continue
        yield Violation(
            rule="names",
            kind="lost-inode",
            subject=case.versions.label(inode),
            promised=f"it exists under some name, made durable by {case.sync_label(sync)}",
            found=f"no name leads to inode {format_inode(inode)}",
            source=case.profile.source("not-lost"),
            sync=sync,
            inode=inode,
            op=born.id if (born := case.versions.file(inode).born) else 0,
        )


def check_kinds(case: Case) -> Iterator[Violation]:
    """Promise: an inode is what it was made as; a symlink keeps its target (fstests generic/348)."""
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if file is None or file.born is None:
            continue
        case.tally.judged += 1
        born = file.born
        if node.kind != _KINDS[born.op.name]:
            yield _wrong(case, path, "wrong-type", f"made by {born.op.name}", f"it is a {node.kind}")
        elif born.op.name == "symlink" and node.target != born.op.text("target"):
            yield _wrong(
                case, path, "wrong-target", f"target {born.op.text('target')}", f"target {node.target!r}"
            )


def _wrong(case: Case, path: str, kind: str, promised: str, found: str) -> Violation:
    return Violation(
        rule="names",
        kind=kind,
        subject=path,
        promised=promised,
        found=found,
        source=case.profile.source("name"),
    )


RULES = (
    Rule("names", check_names),
    Rule("not-lost", check_not_lost),
    Rule("kinds", check_kinds),
)
