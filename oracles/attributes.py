"""Mode, owner and extended attributes: a value they had, not older than what was made durable."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fuzzer.state.history import Event
from fuzzer.state.tree import Node
from fuzzer.state.xattr_value import xattr_value
from oracles.case import Case, Rule
from oracles.file_versions import ACL_RIGHTS, FileVersions, ValueVersion, owner
from oracles.verdict import Violation

_MARK = re.compile(rb"op=(\d+);")

_KEPT_BY_CHOWN = ~(stat.S_ISUID | stat.S_ISGID)
"""chown(2) clears the set-id bits, root's too (ATTR_KILL_SUID in chown_common)."""


def newest_durable(
    case: Case, file: FileVersions, versions: list[ValueVersion]
) -> tuple[ValueVersion | None, int]:
    """The youngest durable version and the id of the sync call that made it so."""
    durable = [
        (v, sync)
        for v in versions
        if v.event.succeeded and (sync := case.floors.metadata_sync(file.inode, v.event)) is not None
    ]
    return max(durable, key=lambda pair: pair[0].event.begin_ns, default=(None, 0))


@dataclass(frozen=True, slots=True)
class _Plain:
    """An attribute that is one number, always there: what is known of it, what a node shows, in words."""

    name: str
    versions: Callable[[FileVersions], list[ValueVersion]]
    found: Callable[[Node], int]
    words: Callable[[int], str]


_MODE = _Plain("mode", lambda file: file.modes, lambda node: node.mode, lambda mode: f"mode {mode:o}")
_OWNER = _Plain(
    "owner",
    lambda file: file.owners,
    lambda node: owner(node.uid, node.gid),
    lambda both: f"owner {both >> 32}:{both & 0xFFFFFFFF}",
)


def check_mode(case: Case) -> Iterator[Violation]:
    """Promise: fsync keeps the mode (source `mode`); before that it is one of those it had."""
    yield from _check_plain(case, _MODE)


def check_owner(case: Case) -> Iterator[Violation]:
    """Promise: fsync keeps user and group (source `owner`), which one op sets both at once."""
    if case.versions.inherits_group:
        case.tally.skip("a directory may have given its group to new files")
        return
    yield from _check_plain(case, _OWNER)


def mode_makers(case: Case) -> Iterator[list[Event]]:
    """For every inode whose mode some op must have set, the ops that may have."""
    yield from _plain_makers(case, _MODE)


def owner_makers(case: Case) -> Iterator[list[Event]]:
    """The same for user and group."""
    if not case.versions.inherits_group:
        yield from _plain_makers(case, _OWNER)


def _check_plain(case: Case, what: _Plain) -> Iterator[Violation]:
    for path, node, file in _with_versions(case, what):
        newest, sync = newest_durable(case, file, visible_values(case, what.versions(file)))
        if newest is None and file.born is None:
            # the root, or a directory whose birth is not told
            case.tally.skip(f"nobody knows what {what.name} it began with")
            continue
        case.tally.judged += 1
        if _makers(case, what, file, node, newest):
            continue
        promised = f"{what.words(newest.value or 0)} by {case.sync_label(sync)}" if newest else ""
        yield Violation(
            rule=what.name,
            kind=f"old-{what.name}" if newest else f"{what.name}-from-nowhere",
            subject=path,
            promised=promised or f"the {what.name} an op gave it",
            found=what.words(what.found(node)),
            source=case.source(what.name, sync),
            sync=sync,
            inode=file.inode,
            op=newest.event.id if newest else 0,
        )


def _plain_makers(case: Case, what: _Plain) -> Iterator[list[Event]]:
    for _, node, file in _with_versions(case, what):
        newest, _ = newest_durable(case, file, visible_values(case, what.versions(file)))
        if newest or file.born:
            yield _makers(case, what, file, node, newest)


def _with_versions(case: Case, what: _Plain) -> Iterator[tuple[str, Node, FileVersions]]:
    """Every inode of the tree about which something is known."""
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if file is not None and what.versions(file):
            yield path, node, file


def _makers(
    case: Case, what: _Plain, file: FileVersions, node: Node, newest: ValueVersion | None
) -> list[Event]:
    found, visible = what.found(node), visible_values(case, what.versions(file))
    kept = _KEPT_BY_CHOWN if what is _MODE and _has_chown(case, file) else ~0
    told = (
        ACL_RIGHTS if what is _MODE and file.acls.get("access") else ~0
    )  # An ACL says nothing of the other bits.
    return [
        v.event
        for v in visible
        if v.value is not None
        and found & told in (v.value & told, v.value & kept & told)
        and _is_as_late(file, v, newest)
    ]


def _is_as_late(file: FileVersions, version: ValueVersion, newest: ValueVersion | None) -> bool:
    """True if the version may have come after the youngest durable one, or is it.

    What an inode began with came before all else, even if the call that made it had not returned yet
    when somebody who had found it by its name changed it.
    """
    if newest and version.event is file.born is not newest.event:
        return False
    return version.event.end_ns >= begin_of(newest)


def _has_chown(case: Case, file: FileVersions) -> bool:
    return any(v.event is not file.born for v in visible_values(case, file.owners))


def visible_values(case: Case, versions: list[ValueVersion]) -> list[ValueVersion]:
    return [v for v in versions if case.floors.visible(v.event)]


def begin_of(newest: ValueVersion | None) -> int:
    return newest.event.begin_ns if newest else 0


def check_xattrs(case: Case) -> Iterator[Violation]:
    """Promise: fsync keeps the user xattrs, and their removal (source `xattr`)."""
    for path, file, name, value in _xattrs(case):
        case.tally.judged += 1
        yield from _check_xattr(case, path, file, name, value)


def xattr_makers(case: Case) -> Iterator[list[Event]]:
    """For every xattr that some op must have set or removed, the ops that may have."""
    for _, file, name, value in _xattrs(case):
        newest, _ = newest_durable(case, file, visible_values(case, file.xattrs.get(name, [])))
        if newest or value is not None:
            yield _xattr_makers(case, file, name, value, newest)


def _xattrs(case: Case) -> Iterator[tuple[str, FileVersions, str, bytes | None]]:
    """(path, file, name, value or None) of every xattr that is there or ever was."""
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if file is None or case.versions.is_opaque(node.inode):
            continue
        present = {n.removeprefix("user."): value for n, value in node.xattrs if n.startswith("user.")}
        for name in {*present, *file.xattrs}:
            yield path, file, name, present.get(name)


def _xattr_makers(
    case: Case, file: FileVersions, name: str, value: bytes | None, newest: ValueVersion | None
) -> list[Event]:
    visible = visible_values(case, file.xattrs.get(name, []))
    return [v.event for v in visible if _may_show(case, v, value) and v.event.end_ns >= begin_of(newest)]


def _check_xattr(
    case: Case, path: str, file: FileVersions, name: str, value: bytes | None
) -> Iterator[Violation]:
    newest, sync = newest_durable(case, file, visible_values(case, file.xattrs.get(name, [])))
    if newest is None and value is None:
        return
    if _xattr_makers(case, file, name, value, newest):
        return
    promised = (
        f"as left by `{newest.event.op.name}`, by {case.sync_label(sync)}" if newest else "a value an op set"
    )
    yield Violation(
        rule="xattr",
        kind=_kind(newest, value),
        subject=f"user.{name} of {path}",
        promised=promised,
        found="absent" if value is None else f"{len(value)} bytes {value[:24]!r}",
        source=case.source("xattr", sync),
        sync=sync,
        inode=file.inode,
        op=newest.event.id if newest else 0,
    )


def _may_show(case: Case, version: ValueVersion, value: bytes | None) -> bool:
    """True if the version's op may have left the attribute so, finished or half done."""
    if value is None and version.value is not None and not case.profile.atomic_xattr_replace:
        return case.floors.metadata_sync(version.event.subject, version.event) is None
    return _holds(version, value)


def _holds(version: ValueVersion, value: bytes | None) -> bool:
    """True if the version's op set exactly these bytes (or removed the attribute)."""
    if value is None or version.value is None:
        return value is None and version.value is None
    op = version.event
    return value == xattr_value(op.id, op.op.number("size"))


def _kind(newest: ValueVersion | None, value: bytes | None) -> str:
    if newest is None:
        return "xattr-from-nowhere"
    if value is None:
        return "missing-xattr"
    if newest.value is None:
        return "resurrected-xattr"
    return "old-xattr" if _MARK.match(value) else "corrupt-xattr"


RULES = (Rule("mode", check_mode), Rule("owner", check_owner), Rule("xattr", check_xattrs))
