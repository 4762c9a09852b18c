"""Mode and extended attributes: a value they had, not older than what was made durable."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fuzzer.state.history import Event
from fuzzer.state.tree import Node
from fuzzer.state.xattr_value import xattr_value
from oracles.case import Case, Rule
from oracles.verdict import Violation
from oracles.versions import FileVersions, ValueVersion

_MARK = re.compile(rb"op=(\d+);")


def _newest_durable(
    case: Case, file: FileVersions, versions: list[ValueVersion]
) -> tuple[ValueVersion | None, int]:
    """The youngest durable version and the id of the sync call that made it so."""
    durable = [
        (v, sync)
        for v in versions
        if v.event.succeeded and (sync := case.floors.metadata_sync(file.inode, v.event)) is not None
    ]
    return max(durable, key=lambda pair: pair[0].event.begin_ns, default=(None, 0))


def check_mode(case: Case) -> Iterator[Violation]:
    """Promise: fsync keeps the mode (source `mode`); before that it is one of those it had."""
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if file is None or not file.modes:
            continue
        newest, sync = _newest_durable(case, file, _visible(case, file.modes))
        if newest is None and file.born is None:
            # the root, or a directory whose birth is not told
            case.tally.skip("nobody knows what mode it began with")
            continue
        case.tally.judged += 1
        if _mode_makers(case, file, node, newest):
            continue
        promised = f"mode {newest.value:o} by {case.sync_label(sync)}" if newest else "a mode an op gave it"
        yield Violation(
            rule="mode",
            kind="old-mode" if newest else "mode-from-nowhere",
            subject=path,
            promised=promised,
            found=f"mode {node.mode:o}",
            source=case.source("mode", sync),
            sync=sync,
            inode=file.inode,
            op=newest.event.id if newest else 0,
        )


def mode_makers(case: Case) -> Iterator[list[Event]]:
    """For every inode whose mode some op must have set, the ops that may have."""
    for _, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if file is not None and file.modes:
            newest, _ = _newest_durable(case, file, _visible(case, file.modes))
            if newest or file.born:
                yield _mode_makers(case, file, node, newest)


def _mode_makers(case: Case, file: FileVersions, node: Node, newest: ValueVersion | None) -> list[Event]:
    visible = _visible(case, file.modes)
    return [v.event for v in visible if v.value == node.mode and v.event.end_ns >= _floor(newest)]


def _visible(case: Case, versions: list[ValueVersion]) -> list[ValueVersion]:
    return [v for v in versions if case.floors.visible(v.event)]


def _floor(newest: ValueVersion | None) -> int:
    return newest.event.begin_ns if newest else 0


def check_xattrs(case: Case) -> Iterator[Violation]:
    """Promise: fsync keeps the user xattrs, and their removal (source `xattr`)."""
    for path, file, name, value in _xattrs(case):
        case.tally.judged += 1
        yield from _check_xattr(case, path, file, name, value)


def xattr_makers(case: Case) -> Iterator[list[Event]]:
    """For every xattr that some op must have set or removed, the ops that may have."""
    for _, file, name, value in _xattrs(case):
        newest, _ = _newest_durable(case, file, _visible(case, file.xattrs.get(name, [])))
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
    visible = _visible(case, file.xattrs.get(name, []))
    return [v.event for v in visible if _may_show(case, v, value) and v.event.end_ns >= _floor(newest)]


def _check_xattr(
    case: Case, path: str, file: FileVersions, name: str, value: bytes | None
) -> Iterator[Violation]:
    newest, sync = _newest_durable(case, file, _visible(case, file.xattrs.get(name, [])))
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


RULES = (Rule("mode", check_mode), Rule("xattr", check_xattrs))
