"""Recovery: everything one mount of one device image showed, from mount to fsck."""

from __future__ import annotations

from dataclasses import dataclass

from fuzzer.state.tree import Tree


@dataclass(frozen=True, slots=True)
class FsckResult:
    """Read-only check of the unmounted image. `ran` is False if this state was not sampled for it."""

    ran: bool
    exit_status: int = 0
    output: str = ""


NO_FSCK = FsckResult(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What the kernel made of an image.

    `mount_errno` is 0 if it mounted; then `tree` is set. `usable_errors` are failures of the probe
    that removes everything and creates anew (empty if it passed or did not run). `kernel_log` holds
    the lines this device caused, in order.
    """

    mount_errno: int = 0
    tree: Tree | None = None
    fsck: FsckResult = NO_FSCK
    kernel_log: tuple[str, ...] = ()
    usable_errors: tuple[str, ...] = ()
    probed: bool = False
