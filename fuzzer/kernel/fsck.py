"""Read-only checks of an unmounted device: btrfs check, xfs_repair -n. What they mean is an oracle's."""

from __future__ import annotations

import signal

from fuzzer.errors import DeadlineError
from fuzzer.kernel.process import run
from fuzzer.state.recovery import FsckResult

_ARGV = {
    "btrfs": ("btrfs", "check", "--readonly", "--force"),
    "xfs": ("xfs_repair", "-n", "-P", "-o", "bhash=1024"),
}
"""--force leaves out btrfs check's search for mounts: it looks at the backing file of every loop device
on the machine, and fails if one of them, of anybody's, is on a dead FUSE mount. Of xfs_repair's 15 ms
on a small image half go into prefetch threads (-P: none) and into a buffer cache made for large disks
(bhash); neither changes what is checked (xfs_repair(8))."""

_TIMEOUT_S = 120.0
_MAX_OUTPUT = 64 << 10


def check(device: str, fs: str) -> FsckResult:
    """Check `device`. A checker that dies of a signal is a result too (negative status), and so is one
    that does not end (in 120 s, then it is killed).

    Old versions of btrfs check print errors and exit 0, so the output always comes along (64 KiB).
    """
    return _run([*_ARGV[fs], device])


def check_lowmem(device: str) -> FsckResult:
    """Check a btrfs with the checker's other implementation, which has its own view of what is wrong."""
    return _run([*_ARGV["btrfs"], "--mode=lowmem", device])


def _run(argv: list[str]) -> FsckResult:
    try:
        done = run(argv, timeout_s=_TIMEOUT_S, check=False)
    except DeadlineError:
        return FsckResult(True, -signal.SIGKILL, f"no end after {_TIMEOUT_S:g} s")
    return FsckResult(True, done.status, done.output[:_MAX_OUTPUT])
