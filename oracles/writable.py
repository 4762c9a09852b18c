"""A file system on a healthy device stays writable: no forced read-only mount, no shutdown."""

from __future__ import annotations

from collections.abc import Iterator

from oracles.case import Case, Rule
from oracles.verdict import Violation

_SOURCES = {
    "btrfs": "btrfs(5), btrfs_handle_fs_error() in fs/btrfs/messages.c: read-only is the answer to an error",
    "xfs": "xfs_do_force_shutdown() in fs/xfs/xfs_fsops.c: a shutdown is the answer to an error",
}


def check_writable(case: Case) -> Iterator[Violation]:
    """Promise: with no error from the device a mount takes writes until it is unmounted."""
    case.tally.judged += 1
    lost = case.recovery.lost_writes
    if lost:
        yield Violation(
            rule="writable",
            kind=lost,
            subject="the file system",
            promised="a file system that got no error from its device stays writable",
            found="it went read-only" if lost == "read-only" else f"it is shut down: {lost}",
            source=_SOURCES[case.profile.fs],
        )


RULES = (Rule("writable", check_writable, needs_history=False),)
