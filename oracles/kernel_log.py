"""The kernel's own log stays quiet: no warning, bug, corruption, abort or shutdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from oracles.case import Case, Rule
from oracles.verdict import Violation

_ALARMS = tuple(
    re.compile(pattern)
    for pattern in (
        r"kernel BUG at",
        r"\bBUG: ",
        r"\bWARNING: ",
        r"\bOops\b",
        r"general protection fault",
        r"INFO: task .* blocked for more than",
        r"BTRFS (?:error|critical|alert|emerg)",
        r"BTRFS: Transaction aborted",
        r"BTRFS: error",
        r"BTRFS warning .*csum failed",
        r"forced readonly",
        r"XFS: Assertion failed",
        r"XFS .*(?:[Cc]orruption|Internal error|[Ss]hutting down|shut down)",
        r"XFS .*(?:log I/O error|log mount/recovery failed)",
    )
)
"""What is never expected on a healthy device."""

_HARMLESS = (
    # mm/filemap.c dio_warn_stale_pagecache(): mixing mmap stores with direct writes is documented as
    # undefined in open(2) NOTES; the kernel says so each time it happens.
    "Page cache invalidation failure on direct I/O",
    # printed with every refused mount, which the mountable rule reports
    "open_ctree failed",
)


def check_kernel_log(case: Case) -> Iterator[Violation]:
    """Promise: none; a kernel that warns about itself on a legal state has a bug (fstests _check_dmesg)."""
    case.tally.judged += 1
    for line in case.recovery.kernel_log:
        if is_alarm(line):
            yield Violation(
                rule="kernel-log",
                kind=title(line),
                subject="the kernel",
                promised="the kernel log has no warning, corruption, abort or shutdown",
                found=line,
                source="fstests common/rc _check_dmesg: a warning in the kernel log fails the test",
            )
            return


def is_alarm(line: str) -> bool:
    """True for a line no healthy run prints."""
    return any(p.search(line) for p in _ALARMS) and not any(text in line for text in _HARMLESS)


def title(line: str) -> str:
    """The line with devices, numbers and addresses taken out: stable across runs and machines."""
    plain = re.sub(r"\(device loop\d+[^)]*\)|\(loop\d+\)", "(DEV)", line)
    plain = re.sub(r"\bloop\d+\b|\bdm-\d+\b", "DEV", plain)
    return re.sub(r"\b(0x)?[0-9a-f]*\d[0-9a-f]*\b", "N", plain)[:100]


RULES = (Rule("kernel-log", check_kernel_log, needs_tree=False, needs_history=False),)
