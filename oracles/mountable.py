"""Every legal crash state mounts read-write with default options, and its files can be read."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from oracles.case import Case, Rule
from oracles.verdict import Violation


def check_mount(case: Case) -> Iterator[Violation]:
    """Promise: log replay always succeeds on a legal state (profile source `mount`)."""
    case.tally.judged += 1
    code = case.recovery.mount_errno
    if code:
        yield Violation(
            rule="mountable",
            kind=f"mount-{errno.errorcode.get(code, code)}",
            subject="the file system",
            promised="a crash state mounts",
            found=f"mount failed: {errno.errorcode.get(code, code)}",
            source=case.profile.source("mount"),
        )


def check_readable(case: Case) -> Iterator[Violation]:
    """Promise: what is reachable can be looked at; data and metadata pass their checksums."""
    for error in case.tree.errors:
        yield Violation(
            rule="readable",
            kind=f"look-{error.rsplit(' ', 1)[-1]}",
            subject=error.split(":", 1)[0],
            promised="everything reachable after recovery can be looked at",
            found=error,
            source=case.profile.source("mount"),
        )
    for path, node in case.tree.files():
        case.tally.judged += 1
        if node.read_errno:
            name = errno.errorcode.get(node.read_errno, str(node.read_errno))
            yield Violation(
                rule="readable",
                kind=f"read-{name}",
                subject=path,
                promised="file data can be read after recovery",
                found=f"read at byte {node.read_error_offset} failed: {name}",
                source=case.profile.source("mount"),
            )


RULES = (
    Rule("mountable", check_mount, needs_tree=False, needs_history=False),
    Rule("readable", check_readable, needs_history=False),
)
