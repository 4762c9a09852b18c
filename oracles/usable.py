"""A recovered file system can be used: emptied, filled again, unmounted and mounted with all of it there."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from oracles.case import Case, Rule
from oracles.verdict import Violation

_EMPTY_SOURCE = "fstests generic/034, generic/039, generic/104: what a crash left can be removed"
_REMOUNT_SOURCE = "umount(2) writes everything back: POSIX files do not change while nobody uses them"


def check_usable(case: Case) -> Iterator[Violation]:
    """Promise: after recovery everything can be removed and new files can be made."""
    if not case.recovery.probed:
        return
    case.tally.judged += 1
    for error in case.recovery.usable_errors:
        if "ENOSPC" in error.split(":", 1)[0] and _was_full(case):
            case.tally.skip("it was full: how soon freed space can be used again is not promised")
            continue
        yield Violation(
            rule="usable",
            kind=error.split(":", 1)[0],
            subject="the file system",
            promised="after recovery everything can be removed and new files created",
            found=error,
            source=_EMPTY_SOURCE,
        )


def _was_full(case: Case) -> bool:
    """True if an op met the end of space. btrfs may by then have given all of it to block groups of data,
    which are given back one by one after they are empty (btrfs_delete_unused_bgs)."""
    events = case.versions.history.events if case.history else ()
    return any(event.errno == errno.ENOSPC for event in events)


def check_remount(case: Case) -> Iterator[Violation]:
    """Promise: a clean unmount loses nothing; the next mount shows what was there."""
    remount = case.recovery.remount
    if remount is None:
        return
    case.tally.judged += 1
    if remount.errno:
        name = errno.errorcode.get(remount.errno, str(remount.errno))
        yield _remount("mount-" + name, "the file system", "mounts again", f"mount failed: {name}")
        return
    left, found = dict(remount.left), dict(remount.found)
    for path in sorted(left.keys() | found.keys()):
        before, after = left.get(path, "nothing"), found.get(path, "nothing")
        if before != after:
            kind = "gone" if path not in found else "new" if path not in left else "changed"
            yield _remount(kind, path, f"is what it was before: {before}", after)
            return


def _remount(kind: str, subject: str, promised: str, found: str) -> Violation:
    return Violation(
        rule="remount",
        kind=kind,
        subject=subject,
        promised=f"after recovery, use and a clean unmount it {promised}"[:300],
        found=found,
        source=_REMOUNT_SOURCE,
    )


RULES = (
    Rule("usable", check_usable, needs_history=False),
    Rule("remount", check_remount, needs_history=False),
)
