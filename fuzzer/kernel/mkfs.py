"""Making file systems with btrfs-progs and xfsprogs."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from fuzzer.errors import InfrastructureError, InputError
from fuzzer.kernel.mount import forget_btrfs_device
from fuzzer.kernel.process import run

_ARGV = {"btrfs": ("mkfs.btrfs", "-f", "-K", "-q"), "xfs": ("mkfs.xfs", "-f", "-K", "-q")}
"""-K: no discards. Images start as zeroes, and the FUSE recorder could not record a discard anyway."""

_TIMEOUT_S = 60.0

_FOREIGN = "cannot check mount status"
"""mkfs.btrfs asks all loop devices of the machine whether its own is mounted (test_dev_for_mkfs in its
mkfs/common.c). One of somebody else whose FUSE server was just killed fails it; their next run, or
ours, clears that away."""

_FOREIGN_S, _PAUSE_S = 30.0, 0.2

_NOWHERE = Path("/sys")
"""Working directory of mkfs. It holds nothing but directories, so a bare word among the options (both
programs take further devices as arguments) cannot name a file or device that is not ours."""


def make_fs(device: str, fs: str, options: str = "") -> None:
    """Make a file system of type `fs` (btrfs, xfs) on `device`.

    `options` are split like a shell does; they may not name paths. InputError with mkfs's own words
    if it refuses them.
    """
    words = _split(options)
    argv, deadline = [*_ARGV[fs], *words, device], time.monotonic() + _FOREIGN_S
    done = run(argv, timeout_s=_TIMEOUT_S, check=False, cwd=_NOWHERE)
    while done.status and _FOREIGN in done.stderr and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
        done = run(argv, timeout_s=_TIMEOUT_S, check=False, cwd=_NOWHERE)
    if done.status:
        said = " ".join((done.stderr or done.stdout).split())
        message = f"mkfs.{fs} {options} failed with status {done.status}: {said[:500]}"
        raise InputError(message) if words else InfrastructureError(message)
    if fs == "btrfs":
        # mkfs.btrfs registers the new device with the kernel, see forget_btrfs_device.
        forget_btrfs_device(device)


def _split(options: str) -> list[str]:
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise InputError(f"mkfs options {options!r}: {error}") from None
    for word in words:
        if "/" in word:
            raise InputError(f"mkfs option {word} names a path; only the device under test is ours")
    return words
