"""Recover: let the real kernel mount an image, look at what it shows, check what is left."""

from __future__ import annotations

import errno
import os
import random
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from fuzzer.campaign.lane import CrashLane, mount_options
from fuzzer.kernel import control, fsck, usable
from fuzzer.kernel.imagefile import store_image
from fuzzer.kernel.mount import mounted
from fuzzer.kernel.walk import walk
from fuzzer.state.recovery import Recovery, Remount
from fuzzer.state.stamps import Words
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

    `fresh` is the file system as mkfs made it, `check` says whether the checker is run on the
    unmounted image. `truncate_seed` >= 0 cuts one file short after the mount (a canary).
    """

    fs: str
    mount_options: str
    known: Words
    fresh: Image | None = None
    check: bool = True
    truncate_seed: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """What is done with a state besides mounting it, walking it and running the checker.

    `probe`: empty and refill it. `remount`: then mount it again (with `probe` only). `scrub`: have
    btrfs verify every checksum. `read_only`: recover another copy through a read-only mount. `lowmem`:
    the checker's second mode.
    """

    probe: bool = False
    remount: bool = False
    scrub: bool = False
    read_only: bool = False
    lowmem: bool = False


SHALLOW = Depth()
FULL = Depth(probe=True, remount=True, scrub=True, read_only=True, lowmem=True)


def depth_of(image: Image) -> Depth:
    """How deep to look at a state: a matter of its content, so an equal state is looked at alike.

    A read-only recovery, a scrub and a second mount cost about a mount each. Neighbouring states mostly
    have the same bugs, so few of each is enough, and different states share the work. The checker
    sees the probe's result in one state of four, what recovery left in the others.
    """
    turn = image.digest % 16
    return Depth(
        probe=turn % 4 == 3,
        remount=turn % 8 == 7,
        scrub=turn == 5,
        read_only=turn == 9,
        lowmem=turn % 8 == 2,
    )


def recovery_options(fs: str, own: str) -> str:
    """Mount options for crash states of a workload that was mounted with its `own` options."""
    return mount_options(fs, _RECOVERY_OPTIONS.get(fs, ""), own)


def recover(lane: CrashLane, image: Image, look: Look, depth: Depth = SHALLOW) -> Recovery:
    """Mount a throw-away copy of `image`, walk it, do what `depth` asks for, unmount, check."""
    lane.kernel_log.skip()
    read_only = _recover_read_only(lane, image, look) if depth.read_only else None
    with lane.times.phase("build"):
        store_image(image, lane.scratch)
    with lane.times.around(lane.minor.attached(lane.scratch), "attach", "detach") as device:
        recovery = _mount_and_look(lane, device, look, depth)
        if recovery.remount is not None:
            recovery = replace(recovery, remount=_mount_again(lane, device, look, recovery.remount))
        if look.check and recovery.tree is not None:
            recovery = _check(lane, device, look, depth, recovery)
    lines = tuple(lane.own_lines(lane.minor.name, look.fs))
    fresh = _baseline(lane, look) if recovery.emptied is not None else None
    return replace(recovery, kernel_log=lines, read_only=read_only, fresh=fresh)


def _mount_and_look(lane: CrashLane, device: str, look: Look, depth: Depth) -> Recovery:
    options = recovery_options(look.fs, look.mount_options)
    mount = lane.times.around(mounted(device, lane.crash_mount, look.fs, options), "mount", "unmount")
    with ExitStack() as stack:
        try:
            stack.enter_context(mount)
        except OSError as error:
            return Recovery(mount_errno=error.errno or errno.EIO)
        if look.truncate_seed >= 0:
            _cut_one_file(lane.crash_mount, random.Random(look.truncate_seed))
        with lane.times.phase("walk"):
            recovery = Recovery(tree=walk(lane.crash_mount, look.fs, look.known))
        with lane.times.phase("probe"):
            if depth.scrub and look.fs == "btrfs":
                usable.commit(lane.crash_mount)
                recovery = replace(recovery, scrub=control.scrub(lane.crash_mount))
            if depth.probe:
                recovery = _probe(lane.crash_mount, look.fs, depth, recovery)
            return replace(recovery, lost_writes=control.lost_writes(lane.crash_mount))


def _probe(mountpoint: Path, fs: str, depth: Depth, recovery: Recovery) -> Recovery:
    errors = usable.empty(mountpoint)
    if not errors:
        control.wait_until_empty(mountpoint, fs)
    emptied = None if errors else control.space(mountpoint, fs)
    errors = (*errors, *usable.refill(mountpoint))
    remount = Remount(left=usable.listing(mountpoint)) if depth.remount else None
    return replace(recovery, probed=True, usable_errors=errors, emptied=emptied, remount=remount)


def _mount_again(lane: CrashLane, device: str, look: Look, remount: Remount) -> Remount:
    options = recovery_options(look.fs, look.mount_options)
    with lane.times.phase("remount"), ExitStack() as stack:
        try:
            stack.enter_context(mounted(device, lane.crash_mount, look.fs, options))
        except OSError as error:
            return replace(remount, errno=error.errno or errno.EIO)
        refilled = control.space(lane.crash_mount, look.fs)
        return replace(remount, found=usable.listing(lane.crash_mount), refilled=refilled)


def _recover_read_only(lane: CrashLane, image: Image, look: Look) -> Recovery:
    with lane.times.phase("build"):
        store_image(image, lane.scratch)
    options = recovery_options(look.fs, look.mount_options) + ",ro"
    with lane.times.phase("read-only"), ExitStack() as stack:
        device = stack.enter_context(lane.minor.attached(lane.scratch))
        try:
            stack.enter_context(mounted(device, lane.crash_mount, look.fs, options))
        except OSError as error:
            return Recovery(mount_errno=error.errno or errno.EIO)
        return Recovery(tree=walk(lane.crash_mount, look.fs, look.known))


def _check(lane: CrashLane, device: str, look: Look, depth: Depth, recovery: Recovery) -> Recovery:
    with lane.times.phase("fsck"):
        recovery = replace(recovery, fsck=fsck.check(device, look.fs))
        if depth.lowmem and look.fs == "btrfs":
            recovery = replace(recovery, lowmem=fsck.check_lowmem(device))
    return recovery


def _baseline(lane: CrashLane, look: Look) -> Recovery | None:
    """What the probe shows on the file system as mkfs made it; looked at once."""
    if look.fresh is None:
        return None
    key = (look.fresh.digest, look.mount_options)
    if key not in lane.baselines:
        plain = replace(look, fresh=None, check=False, truncate_seed=-1)
        lane.baselines[key] = recover(lane, look.fresh, plain, Depth(probe=True, remount=True))
    return lane.baselines[key]


def _cut_one_file(mountpoint: Path, rng: random.Random) -> None:
    files = sorted(path for path in mountpoint.rglob("*") if path.is_file() and not path.is_symlink())
    grown = [path for path in files if path.stat().st_size]
    if grown:
        victim = rng.choice(grown)
        os.truncate(victim, victim.stat().st_size // 2 // WORD_BYTES * WORD_BYTES)
