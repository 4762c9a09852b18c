"""Recovery: everything one mount of one device image showed, from mount to fsck."""

from __future__ import annotations

from dataclasses import dataclass

from fuzzer.state.tree import Tree

Listing = tuple[tuple[str, str], ...]
"""(path, what is there in words), sorted: what the probe left, and what the next mount shows of it."""


@dataclass(frozen=True, slots=True)
class FsckResult:
    """Read-only check of the unmounted image. `ran` is False if this state was not sampled for it."""

    ran: bool
    exit_status: int = 0
    output: str = ""


NO_FSCK = FsckResult(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrub:
    """What a scrub counted: `errors` are the counters that are not zero. `errno` is 0 if it ran."""

    errno: int = 0
    errors: tuple[tuple[str, int], ...] = ()
    bytes_read: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Space of a mount at rest, bytes.

    `data_bytes`: in use for file data, -1 where the file system does not tell (xfs) or keeps more than
    file data there (btrfs with the old free space cache). `reserved`: (counter,
    bytes) of reservations that nobody has given back.
    """

    size_bytes: int
    free_bytes: int
    available_bytes: int
    data_bytes: int = -1
    reserved: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remount:
    """A clean unmount and what the next mount shows: `errno` of that mount, what was `left`, and `found`.

    `refilled` is the space the next mount counts.
    """

    errno: int = 0
    left: Listing = ()
    found: Listing = ()
    refilled: Space | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What the kernel made of an image.

    `mount_errno` is 0 if it mounted; then `tree` is set. `kernel_log` holds the lines this device
    caused, in order. `lost_writes` says how the mount stopped taking writes ("" if it did not).

    The rest is looked at in some states only. `probed`: everything was removed and new files were made;
    `usable_errors` are what failed, `emptied` is the space between the two, `remount` what was left;
    `fresh` is the same done to the file system as mkfs made it. `read_only`: a recovery of the same
    image that was mounted read-only. `lowmem`: `btrfs check --mode=lowmem`.
    """

    mount_errno: int = 0
    tree: Tree | None = None
    fsck: FsckResult = NO_FSCK
    kernel_log: tuple[str, ...] = ()
    lost_writes: str = ""
    probed: bool = False
    usable_errors: tuple[str, ...] = ()
    emptied: Space | None = None
    fresh: Recovery | None = None
    remount: Remount | None = None
    read_only: Recovery | None = None
    scrub: Scrub | None = None
    lowmem: FsckResult = NO_FSCK
