"""Making file systems with btrfs-progs and xfsprogs."""

from __future__ import annotations

import shlex
from pathlib import Path

from fuzzer.errors import InfrastructureError, InputError
from fuzzer.kernel.mount import forget_btrfs_device
from fuzzer.kernel.process import run

_ARGV = {"btrfs": ("mkfs.btrfs", "-f", "-K", "-q"), "xfs": ("mkfs.xfs", "-f", "-K", "-q")}
"""-K: no discards. Images start as zeroes, and the FUSE recorder could not record a discard anyway."""

_TIMEOUT_S = 60.0

_NOWHERE = Path("/sys")
"""Working directory of mkfs. It holds nothing but directories, so a bare word among the options (both
programs take further devices as arguments) cannot name a file or device that is not ours."""


def make_fs(device: str, fs: str, options: str = "") -> None:
    """Make a file system of type `fs` (btrfs, xfs) on `device`.

    `options` are split like a shell does; they may not name paths. InputError with mkfs's own words
    if it refuses them.
    """
    words = _split(options)
    done = run([*_ARGV[fs], *words, device], timeout_s=_TIMEOUT_S, check=False, cwd=_NOWHERE)
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
