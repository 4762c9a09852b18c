"""ACLs: kept like any extended attribute, and as old or new as one.

Which ACL it is tells the user it names; the rights in it follow chmod (acl(5)). What a directory's default
ACL gave to a file is a change of its own on xfs (xfs_generic_create), so it is known of nothing that was
made in one whether it began with an ACL.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fuzzer.state.history import Event
from oracles.attributes import begin_of, newest_durable, visible_values
from oracles.case import Case, Rule
from oracles.file_versions import FileVersions, ValueVersion
from oracles.verdict import Violation

_PREFIX = "system.posix_acl_"
_HEAD_BYTES, _ENTRY, _USER_TAG = 4, struct.Struct("<HHI"), 0x02
"""struct posix_acl_xattr_header and _entry of linux/posix_acl_xattr.h, and ACL_USER."""

_NOBODY = -1
"""The user of an ACL that names none."""

_Found = tuple[str, FileVersions, str, int | None]
"""Path, file, kind of ACL, and the user it names (None: there is no such ACL)."""


def check_acls(case: Case) -> Iterator[Violation]:
    """Promise: fsync keeps the ACLs, and their removal (source `xattr`)."""
    for path, file, kind, found in _acls(case):
        case.tally.judged += 1
        newest, sync = newest_durable(case, file, visible_values(case, file.acls.get(kind, [])))
        if (newest is None and _may_be_first(case, file, found)) or _makers(case, file, kind, found, newest):
            continue
        label = f"`{newest.event.op.brief}`, by {case.sync_label(sync)}" if newest else "an op"
        yield Violation(
            rule="xattr",
            kind=_kind(newest, found),
            subject=f"{_PREFIX}{kind} of {path}",
            promised=f"as left by {label}",
            found="absent" if found is None else f"one for user {found}",
            source=case.source("xattr", sync),
            sync=sync,
            inode=file.inode,
            op=newest.event.id if newest else 0,
        )


def acl_makers(case: Case) -> Iterator[list[Event]]:
    """For every ACL that some op must have set, the ops that may have.

    That there is none says nothing: to remove what is not there is a success that changes nothing.
    """
    for _, file, kind, found in _acls(case):
        newest, _ = newest_durable(case, file, visible_values(case, file.acls.get(kind, [])))
        if found is not None and (newest is not None or not _may_be_first(case, file, found)):
            yield _makers(case, file, kind, found, newest)


def _acls(case: Case) -> Iterator[_Found]:
    """Every ACL that is there or ever was."""
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if file is None or case.versions.is_opaque(node.inode):
            continue
        present = {n.removeprefix(_PREFIX): value for n, value in node.xattrs if n.startswith(_PREFIX)}
        for kind in {*present, *file.acls}:
            yield path, file, kind, _user(present[kind]) if kind in present else None


def _user(value: bytes) -> int:
    entries = value[_HEAD_BYTES : len(value) - (len(value) - _HEAD_BYTES) % _ENTRY.size]
    return next((who for tag, _, who in _ENTRY.iter_unpack(entries) if tag == _USER_TAG), _NOBODY)


def _may_be_first(case: Case, file: FileVersions, found: int | None) -> bool:
    """True if the file may have had this since it was made."""
    if found is None:
        return True
    if file.inode == case.versions.history.root:
        return False
    defaults = (v for other in case.versions.files.values() for v in other.acls.get("default", ()))
    return any(v.value == found for v in visible_values(case, list(defaults)))


def _makers(
    case: Case, file: FileVersions, kind: str, found: int | None, newest: ValueVersion | None
) -> list[Event]:
    visible = visible_values(case, file.acls.get(kind, []))
    return [v.event for v in visible if _may_leave(case, v, found) and v.event.end_ns >= begin_of(newest)]


def _may_leave(case: Case, version: ValueVersion, found: int | None) -> bool:
    """True if the op may have left the ACL so, finished or half done."""
    if found is None and version.value is not None and not case.profile.atomic_xattr_replace:
        return case.floors.metadata_sync(version.event.subject, version.event) is None
    return version.value == found


def _kind(newest: ValueVersion | None, found: int | None) -> str:
    if newest is None:
        return "xattr-from-nowhere"
    if found is None:
        return "missing-xattr"
    return "resurrected-xattr" if newest.value is None else "old-xattr"


RULES = (Rule("acls", check_acls),)
