"""The kernel's own log stays quiet: no warning, bug, corruption, abort or shutdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from oracles.case import Case, Rule
from oracles.verdict import Violation

_ALARMS = tuple(
    re.compile(pattern)
    for pattern in (
        r"kernel BUG at",
        r"\bBUG: ",
        r"\bWARNING: ",
        r"\bOops\b",
        r"\bUBSAN: ",
        r"general protection fault",
        r"INFO: task .* blocked for more than",
        r"INFO: rcu.* (?:stall|detected)",
        r"VFS: Busy inodes after unmount",
        r"BTRFS (?:error|critical|alert|emerg)",
        r"BTRFS: Transaction aborted",
        r"BTRFS: error",
        r"BTRFS warning .*(?:csum failed|checksum verify failed|has unreleased space)",
        r"forced readonly",
        r"XFS: Assertion failed",
        r"XFS .*(?:[Cc]orruption|CRC error|Internal error|[Ss]hutting down|shut down)",
        r"XFS .*(?:log I/O error|log mount/recovery failed)",
    )
)
"""What is never expected on a healthy device.

Reservations that are left at unmount are WARN_ONs (btrfs_release_global_block_rsv in
fs/btrfs/block-rsv.c, check_removing_space_info in fs/btrfs/block-group.c), those of qgroups a message
(btrfs_check_quota_leak in fs/btrfs/qgroup.c).
"""

_HARMLESS = (
    # mm/filemap.c dio_warn_stale_pagecache(): mixing mmap stores with direct writes is documented as
    # undefined in open(2) NOTES; the kernel says so each time it happens.
    "Page cache invalidation failure on direct I/O",
    # printed with every refused mount, which the mountable rule reports
    "open_ctree failed",
    # what is wrong with the arguments of a balance (btrfs_balance in fs/btrfs/volumes.c): it is refused
    "balance: mixed groups data and metadata options must be the same",
)


def check_kernel_log(case: Case) -> Iterator[Violation]:
    """Promise: none; a kernel that warns about itself on a legal state has a bug (fstests _check_dmesg)."""
    case.tally.judged += 1
    lines = case.recovery.kernel_log
    for at, line in enumerate(lines):
        if is_alarm(line):
            yield Violation(
                rule="kernel-log",
                kind=title(lines[at:]),
                subject="the kernel",
                promised="the kernel log has no warning, corruption, abort or shutdown",
                found=line,
                source="fstests common/rc _check_dmesg: a warning in the kernel log fails the test",
            )
            return


def is_alarm(line: str) -> bool:
    """True for a line no healthy run prints."""
    return any(p.search(line) for p in _ALARMS) and not any(text in line for text in _HARMLESS)


# Titles: what is the same when the same bug shows again, on another machine, kernel build and device.

_MAX_TITLE = 100
_BLOCK_LINES = 120
_BLOCK_END = re.compile(r"---\[ end trace|^=+$|Kernel Offset:")
_STAMP = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ")
_NAME = r"([A-Za-z_]\w*)(?:\.[\w.]+)?\+0x"
"""A function as the kernel prints it, without the `.isra.0` and `.part.0` of one compiler's run."""
_WARNING = re.compile(rf"\bWARNING: .*?\bat (?:\S+:\d+ )?{_NAME}")
"""Either order of place and function; it was changed in 2025."""
_KASAN = re.compile(rf"\bBUG: (K[A-Z]SAN: [\w-]+) in {_NAME}")
_PLACES = (_WARNING, re.compile(rf"^RIP: \w+:{_NAME}"))
_FRAME = re.compile(rf"^(?:\[<\w+>\])? *{_NAME}")
_LOCK = re.compile(rf"\(([^()]*(?:\([^()]*\))?[^()]*)\)\{{.*at: {_NAME}")
_WAITING = re.compile(
    r"_*(?:schedule|io_schedule|context_switch|bit_wait|wait|out_of_line_wait|prepare_to|rwsem|down|percpu"
    r"|mutex|rt_mutex|lock|folio_wait|wait_on|dump_stack|show_stack|sched_show)"
)
"""Functions in which everybody waits: the one that called them is the one to name."""


def title(lines: Sequence[str]) -> str:
    """A stable name for the trouble `lines[0]` reports; the lines after it may say where it was."""
    plain = [_STAMP.sub("", line) for line in islice(lines, _BLOCK_LINES)]
    first, block = plain[0], list(_block(plain))
    named = _WARNING.search(first)
    kasan = _KASAN.search(first)
    if kasan:
        return f"{kasan[1]} in {kasan[2]}"
    if named:
        return f"WARNING in {named[1]}"
    if first.startswith("INFO: task"):
        return f"task blocked in {_waiter(block) or 'unknown'}"
    text = re.sub(r"INFO: task \S+ ", "INFO: task ", _without_numbers(first))
    where = _lock(block) if "WARNING: possible" in first else _place(block[1:])
    return f"{text[: _MAX_TITLE - 40] if where else text[:_MAX_TITLE]}{where}"


def _block(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if _BLOCK_END.search(line):
            return


def _place(lines: Sequence[str]) -> str:
    """Where the processor was, for messages that do not say it in their first line."""
    for line in lines:
        if is_alarm(line) and not any(p.search(line) for p in _PLACES) and "Oops" not in line:
            return ""  # the next trouble begins
        for pattern in _PLACES:
            found = pattern.search(line)
            if found:
                return f" in {found[1]}"
    return ""


def _waiter(lines: Sequence[str]) -> str:
    for line in lines[1:]:
        found = _FRAME.match(line)
        if found and not _WAITING.match(found[1]):
            return found[1]
    return ""


def _lock(lines: Sequence[str]) -> str:
    """The lock that was to be taken: lockdep names it first."""
    found = next((match for line in lines if (match := _LOCK.search(line))), None)
    return f": {found[1]} in {found[2]}" if found else ""


def _without_numbers(line: str) -> str:
    """Devices, offsets, addresses, pids and numbers taken out; an error's number says which error it is."""
    plain = re.sub(r"\(device loop\d+[^)]*\)|\(loop\d+\)", "(DEV)", line)
    plain = re.sub(r"\bloop\d+\b|\bdm-\d+\b", "DEV", plain)
    plain = re.sub(r"\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+\])?", "", plain)
    plain = re.sub(r" stuck for \d+s! \[.*", "", plain)  # and whose turn it was
    kept = r"(?:error|errno)[ =:]*-\d+"
    return re.sub(rf"({kept})|\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b", lambda m: m[1] or "N", plain)


RULES = (Rule("kernel-log", check_kernel_log, needs_tree=False, needs_history=False),)
