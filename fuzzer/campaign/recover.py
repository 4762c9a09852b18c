"""Recover: let the real kernel mount an image, look at what it shows, check what is left."""

from __future__ import annotations

import errno
import os
import random
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fuzzer.campaign.lane import CrashLane, mount_options
from fuzzer.kernel import fsck
from fuzzer.kernel.imagefile import store_image
from fuzzer.kernel.kmsg import lines_of_device
from fuzzer.kernel.mount import mounted
from fuzzer.kernel.usable import probe_usable
from fuzzer.kernel.walk import walk
from fuzzer.state.recovery import NO_FSCK, Recovery
from fuzzer.state.stamps import Words
from fuzzer.state.tree import Tree
from fuzzer.workload.ops import WORD_BYTES
from fuzzer.writelog.image import Image

_RECOVERY_OPTIONS = {"btrfs": "skip_balance"}
"""Added to the workload's own mount options.

btrfs resumes an interrupted balance in a thread that mount starts and does not wait for; an unmount
soon after frees the roots under it and the kernel oopses (seen on 6.18: btrfs_root_node in
balance_kthread). One such bug must not end the machine that hunts for the others.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How to look at crash states. `known` are the op ids of the history, for decoding data.

    `check`: run the checker on the unmounted image. `truncate_seed` >= 0 cuts one file short after
    the mount (a canary).
    """

    fs: str
    mount_options: str
    known: Words
    check: bool = True
    truncate_seed: int = -1


def recovery_options(fs: str, own: str) -> str:
    """Mount options for crash states of a workload that was mounted with its `own` options."""
    return mount_options(fs, _RECOVERY_OPTIONS.get(fs, ""), own)


def recover(lane: CrashLane, image: Image, look: Look, *, probe: bool = False) -> Recovery:
    """Mount a throw-away copy of `image`, walk it, unmount, check.

    `probe` tries, after the walk, to empty and refill the file system.
    """
    times = lane.times
    with times.phase("build"):
        store_image(image, lane.scratch)
    lane.kernel_log.skip()
    with times.around(lane.minor.attached(lane.scratch), "attach", "detach") as device:
        mount_errno, tree, usable_errors = _mount_and_look(lane, device, look, probe)
        result = NO_FSCK
        if look.check and tree is not None:
            with times.phase("fsck"):
                result = fsck.check(device, look.fs)
    return Recovery(
        mount_errno=mount_errno,
        tree=tree,
        fsck=result,
        kernel_log=tuple(lines_of_device(lane.kernel_log.read(), [lane.minor.name], look.fs)),
        usable_errors=usable_errors,
        probed=probe and tree is not None,
    )


def _mount_and_look(
    lane: CrashLane, device: str, look: Look, probe: bool
) -> tuple[int, Tree | None, tuple[str, ...]]:
    """(errno of mount or 0, the tree if it mounted, what the usability probe could not do)."""
    options = recovery_options(look.fs, look.mount_options)
    mount = lane.times.around(mounted(device, lane.crash_mount, look.fs, options), "mount", "unmount")
    with ExitStack() as stack:
        try:
            stack.enter_context(mount)
        except OSError as error:
            return error.errno or errno.EIO, None, ()
        if look.truncate_seed >= 0:
            _cut_one_file(lane.crash_mount, random.Random(look.truncate_seed))
        with lane.times.phase("walk"):
            tree = walk(lane.crash_mount, look.fs, look.known)
        with lane.times.phase("probe"):
            return 0, tree, probe_usable(lane.crash_mount) if probe else ()


def _cut_one_file(mountpoint: Path, rng: random.Random) -> None:
    files = sorted(path for path in mountpoint.rglob("*") if path.is_file() and not path.is_symlink())
    grown = [path for path in files if path.stat().st_size]
    if grown:
        victim = rng.choice(grown)
        os.truncate(victim, victim.stat().st_size // 2 // WORD_BYTES * WORD_BYTES)
