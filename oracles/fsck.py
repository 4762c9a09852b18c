"""The unmounted file system passes its own checker after recovery."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fuzzer.state.recovery import FsckResult
from oracles.case import Case, Rule
from oracles.verdict import Violation

_SOURCES = {
    "btrfs": "btrfs-check(8): exit status 0 means no problem found; fstests _check_btrfs_filesystem",
    "xfs": "xfs_repair(8) -n: exit status 0 means no corruption found; fstests _check_xfs_filesystem",
}


def check_fsck(case: Case) -> Iterator[Violation]:
    """Promise: mount and clean unmount leave nothing for `btrfs check` or `xfs_repair -n` to report.

    `btrfs check` has two implementations; what only the second one (lowmem) objects to is told apart.
    """
    first = list(_judge(case, case.recovery.fsck, ""))
    yield from first or _judge(case, case.recovery.lowmem, "lowmem: ")


def _judge(case: Case, fsck: FsckResult, mode: str) -> Iterator[Violation]:
    if not fsck.ran:
        return
    case.tally.judged += 1
    if fsck.exit_status:
        lines = complaints(fsck.output)
        line = next(iter(lines), "no message")
        nameless = bool(mode) and lines == [_NAMELESS]
        if (
            nameless
            or _grew_by_half(case, lines)
            or (lines and not _promised(case.profile.fs, fsck.output, lines))
        ):
            case.tally.skip("only complaints that are no error")
            return
        yield Violation(
            rule="fsck",
            kind=mode + complaint_class(line),
            subject="the file system",
            promised="a recovered and cleanly unmounted file system passes its checker",
            found=f"{mode}exit status {fsck.exit_status}: {line}",
            source=_SOURCES[case.profile.fs],
        )


_INCOMPLETE = re.compile(r"^attribute entry .* is INCOMPLETE$")
_AFTER_INCOMPLETE = re.compile(
    r"^(problem with attribute contents|would clear attr fork|bad (nblocks|anextents) \d+ for inode)"
)

_FREE_SPACE = re.compile(
    r"^(ERROR: )?(cache appears valid but isn't|errors found in free space cache|"
    r"block group \d+ has wrong amount of free space|failed to load free space cache)"
)

_QGROUPS_ARE_OLD = re.compile(
    r"difference in qgroup (?:accounting|counts) is expected|qgroups will not be printed"
)
"""A rescan is under way or was asked for: until it ends the numbers are marked as not to be trusted
(BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT, _RESCAN in fs/btrfs/qgroup.c), and btrfs check says so."""

_QGROUP = re.compile(r"^(Counts for qgroup id|(our|disk|diff):\s|Rescan hasn't|Qgroup|ERROR: .*qgroup)")

_NAMELESS = "ERROR: errors found in fs roots"
"""Without a line that says which: lowmem mode ends so on a file system that was never cut off, once one of
80 hard links with long names was removed (extended references, fs/btrfs/inode-item.c; btrfs-progs 6.2).
What is really wrong it names."""

_NOISE = re.compile(
    r"^(\[\d+/\d+\]|Opening filesystem|Checking filesystem|UUID:|Phase \d|- |No modify flag|"
    r"found \d+ bytes|total |btree space|file data|referenced|cache and super|Inode allocation btrees)"
)


_HALF_GROWN = re.compile(
    r"would write modified primary superblock"
    r"|primary/secondary superblock \d+ conflict - AG superblock geometry"
)


def _grew_by_half(case: Case, lines: list[str]) -> bool:
    """True if a growfs was cut off before the copies of the superblock followed: they are written after the
    commit, past the log (xfs_update_secondary_sbs), and xfs_repair believes the majority."""
    events = case.versions.history.events if case.history else ()
    return any(map(_HALF_GROWN.match, lines)) and any(event.op.name == "growfs" for event in events)


def complaints(output: str) -> list[str]:
    """The lines that are not the checker's ordinary progress."""
    return [line.strip() for line in output.splitlines() if line.strip() and not _NOISE.match(line.strip())]


def _promised(fs: str, output: str, lines: list[str]) -> bool:
    """False if all that is wrong is known to be harmless."""
    if fs == "btrfs":
        if _QGROUPS_ARE_OLD.search(output):
            lines = [line for line in lines if not _QGROUP.match(line)]
        # The kernel throws away a stale free space cache (v1; the tree, v2, must be right): btrfs(5)
        # space_cache, and the btrfs developers' notes on dm-log-writes.
        v1 = "checking free space cache" in output
        return not all(v1 and _FREE_SPACE.match(line) for line in lines)
    return not _is_unfinished_xattr(lines)


def _is_unfinished_xattr(lines: list[str]) -> bool:
    """True if all that is wrong is an unfinished xattr on xfs.

    Without logged attributes a large value is set in several transactions. An entry that a crash left
    between them is marked INCOMPLETE and ignored by lookups (XFS_ATTR_INCOMPLETE in
    fs/xfs/libxfs/xfs_da_format.h); xfs_repair clears it and counts it as damage.
    """
    found = any(_INCOMPLETE.search(line) for line in lines)
    return found and all(_INCOMPLETE.search(line) or _AFTER_INCOMPLETE.match(line) for line in lines)


def complaint_class(line: str) -> str:
    """The message with numbers and addresses taken out: stable across runs."""
    return re.sub(r"\b(0x[0-9a-f]+|\d+)\b", "N", line)[:80]


RULES = (Rule("fsck", check_fsck, needs_tree=False, needs_history=False),)
