"""Mode and extended attributes: a value they had, not older than what was made durable."""

from __future__ import annotations

import re
from collections.abc import Iterator

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
        versions = [v for v in file.modes if case.floors.visible(v.event)]
        newest, sync = _newest_durable(case, file, versions)
        if newest is None and file.born is None:
            # the root, or a directory whose birth is not told
            case.tally.skip("nobody knows what mode it began with")
            continue
        case.tally.judged += 1
        floor = newest.event.begin_ns if newest else 0
        if any(v.value == node.mode and v.event.end_ns >= floor for v in versions):
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


def check_xattrs(case: Case) -> Iterator[Violation]:
    """Promise: fsync keeps the user xattrs, and their removal (source `xattr`)."""
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if file is None or case.versions.is_opaque(node.inode):
            continue
        present = {n.removeprefix("user."): value for n, value in node.xattrs if n.startswith("user.")}
        for name in {*present, *file.xattrs}:
            case.tally.judged += 1
            yield from _check_xattr(case, path, file, name, present.get(name))


def _check_xattr(
    case: Case, path: str, file: FileVersions, name: str, value: bytes | None
) -> Iterator[Violation]:
    versions = [v for v in file.xattrs.get(name, ()) if case.floors.visible(v.event)]
    newest, sync = _newest_durable(case, file, versions)
    floor = newest.event.begin_ns if newest else 0
    if newest is None and value is None:
        return
    if any(_may_show(case, v, value) and v.event.end_ns >= floor for v in versions):
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
