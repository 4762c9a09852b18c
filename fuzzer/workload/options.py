"""Which mkfs and mount options a workload may ask for. Options end up in the arguments of a program
run as root, so only what is known to be harmless passes: no paths, no device names, no positionals.
"""

from __future__ import annotations

import re

FILE_SYSTEMS = ("btrfs", "xfs")

MAX_OPTIONS = 256
"""Characters of an option text."""

_MKFS_FLAGS = {
    "btrfs": frozenset({"-n", "-s", "-O", "-R", "-m", "-d", "--csum"}),
    "xfs": frozenset({"-b", "-d", "-i", "-l", "-m", "-n", "-s"}),
}
"""Options of mkfs.btrfs(8) and mkfs.xfs(8) that take one value and name no other file."""

_MKFS_SWITCHES = {"btrfs": frozenset({"-M"}), "xfs": frozenset[str]()}
"""Options of the same that take no value."""

_MKFS_VALUE = re.compile(r"[A-Za-z0-9^][A-Za-z0-9,=^._-]*")
_MKFS_FORBIDDEN = frozenset({"name", "logdev", "rtdev", "file"})

_MOUNT_OPTION = re.compile(r"([a-z][a-z0-9_-]*)(=[A-Za-z0-9:.^+-]+)?")

_DISCARDS_ACKNOWLEDGED = "throws away what was acknowledged"
_MOUNT_FORBIDDEN = {
    "nobarrier": "leaves out the flushes that a crash test is about",
    "norecovery": _DISCARDS_ACKNOWLEDGED,
    "nologreplay": _DISCARDS_ACKNOWLEDGED,
    "rescue": _DISCARDS_ACKNOWLEDGED,
    "notreelog": "turns every fsync into a commit, which is another promise",
    "usebackuproot": _DISCARDS_ACKNOWLEDGED,
    "recovery": _DISCARDS_ACKNOWLEDGED,
    "ro": "makes every write fail",
    "subvol": "hides the root of the tree",
    "subvolid": "hides the root of the tree",
    "device": "names another device",
    "logdev": "names another device",
    "rtdev": "names another device",
    "grpid": "gives new files another group than the judge expects",
    "bsdgroups": "gives new files another group than the judge expects",
    "loop": "belongs to mount(8), not to the file system",
}
"""Mount options that would make every verdict worthless (btrfs(5), xfs(5)), with the reason."""


_XFS_QUOTA = frozenset(
    [
        *("quota", "uquota", "usrquota", "uqnoenforce", "qnoenforce"),
        *("gquota", "grpquota", "gqnoenforce", "pquota", "prjquota", "pqnoenforce"),
    ]
)
"""Mount options that have xfs count for quotas (xfs(5))."""


def can_exchange(options: str) -> bool:
    """True if mkfs options ask for an xfs that can exchange ranges."""
    return any(word.split(",").count("exchange=1") for word in options.split(" "))


def counts_xfs_quota(options: str) -> bool:
    """True if an xfs mounted with these options counts what its owners use. xfs_repair counts it too."""
    return not _XFS_QUOTA.isdisjoint(options.split(","))


def mkfs_defect(options: str, fs: str) -> str:
    """What is wrong with mkfs options, or an empty text. They are flags, most of them with a value."""
    if len(options) > MAX_OPTIONS:
        return f"mkfs options are longer than {MAX_OPTIONS} characters"
    words = iter(options.split(" "))
    for flag in words:
        if flag in _MKFS_SWITCHES[fs]:
            continue
        if flag not in _MKFS_FLAGS[fs]:
            known = _MKFS_FLAGS[fs] | _MKFS_SWITCHES[fs]
            return f"mkfs option {flag!r} is not one of {', '.join(sorted(known))}"
        value = next(words, "")
        if not _MKFS_VALUE.fullmatch(value):
            return f"mkfs option {flag} has the bad value {value!r}"
        keys = {part.partition("=")[0] for part in value.split(",")}
        if keys & _MKFS_FORBIDDEN:
            return f"mkfs option {flag} {value} names another file"
        if "mixed-bg" in keys:
            return f"mkfs option {flag} {value} only claims that groups are mixed: -M mixes them"
    return ""


def mount_defect(options: str) -> str:
    """What is wrong with mount options, or an empty text. They are separated by commas."""
    if len(options) > MAX_OPTIONS:
        return f"mount options are longer than {MAX_OPTIONS} characters"
    for option in options.split(","):
        match = _MOUNT_OPTION.fullmatch(option)
        if not match:
            return f"mount option {option!r} is not name or name=value in plain characters"
        reason = _MOUNT_FORBIDDEN.get(match[1])
        if reason:
            return f"mount option {match[1]} {reason}"
    return ""
