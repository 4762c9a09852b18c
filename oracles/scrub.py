"""Everything btrfs keeps can be read and has the checksum it was written with, in every copy."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from oracles.case import Case, Rule
from oracles.verdict import Violation

_SOURCE = "btrfs-scrub(8): a scrub of an undamaged device finds no error; fstests _check_btrfs_filesystem"


def check_scrub(case: Case) -> Iterator[Violation]:
    """Promise: no read, checksum, header or superblock error in any copy of data and metadata.

    It goes further than reading every file: second copies, superblocks and what only old references
    reach are verified as well.
    """
    scrub = case.recovery.scrub
    if scrub is None:
        return
    case.tally.judged += 1
    if scrub.errno:
        name = errno.errorcode.get(scrub.errno, str(scrub.errno))
        yield _broken(f"scrub-{name}", f"it failed: {name}")
    elif scrub.errors:
        yield _broken(scrub.errors[0][0], ", ".join(f"{value} {name}" for name, value in scrub.errors))


def _broken(kind: str, found: str) -> Violation:
    return Violation(
        rule="scrub",
        kind=kind,
        subject="the file system",
        promised="a scrub after recovery finds no errors",
        found=found,
        source=_SOURCE,
    )


RULES = (Rule("scrub", check_scrub, needs_history=False),)
