"""The generator's tables: which ops, how often and with what. A new op is one row here.

A row names an op, its weight among the ops of its role, and the parts that fill its parameters; a
parameter no part fills keeps its default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fuzzer.workload import parts
from fuzzer.workload.model import ITERATION, Op, make_op
from fuzzer.workload.ops import OPS, Role
from fuzzer.workload.options import FILE_SYSTEMS
from fuzzer.workload.parts import Part
from fuzzer.workload.scene import Scene, Table

# ------------------------------------------------------------------------------------------- ops


@dataclass(frozen=True, slots=True)
class Row:
    """One op of the generator: its weight among the ops of its role and what fills its parameters."""

    weight: int
    name: str
    parts: tuple[Part, ...] = ()
    needs: Callable[[Scene], object] = lambda scene: True
    """Without this in the scene it would only be refused."""

    @property
    def role(self) -> Role:
        return OPS[self.name].role

    def runs_on(self, fs: str) -> bool:
        return all(need == fs for need in OPS[self.name].requires if need in FILE_SYSTEMS)


ROWS = (
    Row(30, "write", (parts.span, parts.durability, parts.buffered_flag, parts.buffers)),
    Row(6, "append", (parts.appended, parts.durability)),
    Row(3, "splice", (parts.span,)),
    Row(8, "dwrite", (parts.direct_span, parts.durability, parts.direct_flag, parts.buffers)),
    Row(4, "awrite", (parts.direct_span, parts.durability, parts.requests)),
    Row(3, "mapped_write", (parts.mapped_span,)),
    Row(8, "mwrite", (parts.inner_span, parts.map_sync)),
    Row(2, "fault_write", (parts.faulty_span,)),
    Row(6, "read", (parts.read_span,)),
    Row(7, "truncate", (parts.new_size, parts.opened)),
    Row(2, "otrunc", (parts.file, parts.opened)),
    Row(11, "fallocate", (parts.falloc_span,)),
    Row(7, "clone", (parts.remap_span,)),
    Row(3, "copy_range", (parts.copy_span,)),
    Row(3, "dedupe", (parts.same_span,)),
    Row(8, "exchange_range", (parts.exchanged_span,), lambda scene: scene.exchanges),
    Row(10, "create", (parts.new_file, parts.opened)),
    Row(4, "mkdir", (parts.new_directory,)),
    Row(4, "symlink", (parts.new_symlink,)),
    Row(2, "mknod", (parts.new_special,)),
    Row(1, "subvol_create", (parts.new_subvolume,)),
    Row(1, "snapshot", (parts.new_snapshot,)),
    Row(6, "subvol_delete", (parts.subvolume,), lambda scene: scene.subvolumes),
    Row(3, "tmplink", (parts.new_linked,)),
    Row(10, "link", (parts.link_names,)),
    Row(18, "rename", (parts.rename_names,)),
    Row(12, "unlink", (parts.any_name, parts.unlink_sync)),
    Row(3, "rmdir", (parts.empty_directory,)),
    Row(4, "chmod", (parts.file_or_directory, parts.mode)),
    Row(3, "chown", (parts.file_or_directory, parts.owner)),
    Row(2, "utimes", (parts.file,)),
    Row(2, "chattr", (parts.inode_flag,)),
    Row(2, "extsize", (parts.empty_file, parts.extent_hint)),
    Row(3, "acl", (parts.acl,)),
    Row(6, "setxattr", (parts.file_or_directory, parts.xattr, parts.xattr_size)),
    Row(4, "removexattr", (parts.set_xattr,)),
    Row(24, "fsync", (parts.synced,)),
    Row(10, "fdatasync", (parts.file,)),
    Row(5, "msync", (parts.inner_span,)),
    Row(5, "sync_file_range", (parts.inner_span,)),
    Row(2, "sync"),
    Row(3, "syncfs"),
    Row(1, "freeze", (parts.hold,)),
    Row(1, "remount_ro", (parts.hold,)),
    Row(8, "drop_caches", (parts.cache_level,)),
    Row(8, "reclaim", (parts.reclaim_bytes,)),
    Row(4, "squeeze", (parts.squeeze_limit,)),
    Row(5, "balance", (parts.balance_filter,)),
    Row(2, "balance_ctl", (parts.balance_action,)),
    Row(2, "scrub"),
    Row(2, "defrag", (parts.file, parts.compression)),
    Row(2, "quota", (parts.quota_action,)),
    Row(2, "resize", (parts.resize_to,)),
    Row(2, "growfs", (parts.grow_by,)),
    Row(15, "send", (parts.sent,), lambda scene: scene.read_only),
    Row(1, "label"),
    Row(1, "remount", (parts.remount_option,)),
    Row(2, "compact"),
    Row(1, "fstrim"),
    Row(3, "evict", (parts.file,)),
    Row(6, "look", (parts.file, parts.look_how)),
    Row(2, "knob", (parts.knob_value,)),
    Row(2, "sleep", (parts.pause,)),
    Row(1, "spin", (parts.pause,)),
)
"""Every op but barrier, which takes two actors and is put in by `generate`."""


def row_of(name: str) -> Row:
    """The row of an op; KeyError if it has none."""
    for row in ROWS:
        if row.name == name:
            return row
    raise KeyError(name)


def names_of(role: Role) -> tuple[str, ...]:
    """The ops of a role that have a row."""
    return tuple(row.name for row in ROWS if row.role is role)


# ---------------------------------------------------------------------------------------- shapes


@dataclass(frozen=True, slots=True)
class Temper:
    """What an actor likes to do: weights of roles, and one sync call every `low` to `high` ops."""

    name: str
    roles: Table[Role]
    sync_every: tuple[int, int] = (2, 5)


TEMPERS: Table[Temper] = (
    (40, Temper("writer", ((16, Role.DATA), (1, Role.ATTRIBUTES), (1, Role.CONTROL)))),
    (25, Temper("namer", ((16, Role.NAMES), (3, Role.DATA), (2, Role.ATTRIBUTES), (1, Role.CONTROL)))),
    (25, Temper("mixer", ((8, Role.DATA), (6, Role.NAMES), (3, Role.ATTRIBUTES), (1, Role.CONTROL)))),
    (10, Temper("syncer", ((2, Role.DATA), (1, Role.CONTROL)), (1, 2))),
)

ACTORS: Table[int] = ((45, 2), (35, 3), (20, 4))
SCHEDULING: Table[str] = ((84, ""), (4, "idle"), (4, "throttled"), (4, "one cpu"), (4, "two cpus"))
"""Noise in who runs when: one actor that runs only where nobody else wants to, or for a fifth of
the time, and so stops anywhere; all
on one CPU, or each where it starts and nowhere else."""
LOOPS: Table[int] = ((55, 1), (15, 2), (12, 3), (8, 4), (10, 5))
BUDGETS: Table[tuple[int, int]] = (
    (14, (6, 12)),
    (36, (12, 24)),
    (32, (24, 40)),
    (13, (40, 75)),
    (5, (75, 150)),
)
"""Counted ops of a workload. Every sync call becomes several crash states, so most are small."""

FILE_SIZES: Table[int] = ((20, 0), (30, 4 << 10), (30, 64 << 10), (17, 1 << 20), (3, 16 << 20))
FILLS: Table[str] = ((76, "write"), (14, "truncate"), (10, "fallocate"))
FILL_SIZES = tuple(mib << 20 for mib in (112, 64, 32, 16, 8, 4, 2))
"""Files that fill a small device: what has no room for one still has room for a smaller one."""
EXTRAS: Table[str] = ((81, ""), (3, "links"), (3, "deep"), (3, "long"), (10, "subvolumes"))
"""What a setup may also make: a file with more names than fit its inode's item (an extended reference of
btrfs, fs/btrfs/inode-item.c), a directory far down, a file with the longest name there is, a subvolume
and a snapshot."""
EXTRA_LINKS, EXTRA_DEPTH = 80, 12
CROWDS: Table[Op] = (
    (3, make_op("link", {"from": "a", "to": f"crowd-{ITERATION}"})),
    (1, make_op("create", {"path": f"crowd-{ITERATION}"})),
)
"""What makes ever more names, as long as the others run."""
SETUP_ENDS: Table[tuple[str, ...]] = (
    (40, ("sync",)),
    (30, ("fsync", "sync")),
    (10, ("fsync",)),
    (8, ("syncfs",)),
    (12, ()),
)
"""A log tree used before the last commit behaves differently from the first one of a mount."""

MEMORY_LIMITS: Table[int] = ((80, 0), (12, 128 << 20), (8, 64 << 20))

GROWING = "-d size=300m"
"""mkfs options of an xfs that leaves room for growfs."""

EXCHANGES_PERCENT, EXCHANGING = 4, "-i exchange=1"
"""Few workloads exchange ranges: most installed xfsprogs (before 6.10) cannot make an xfs for it."""

DELAYS: Table[str] = (
    (80, ""),
    (3, "data 5ms 1/4"),
    (2, "data 20ms 1/8 size=4K..16K"),
    (2, "data 10ms 1/2 size=64K..1M"),
    (1, "data 10ms 1/2 at=0..64M"),
    (3, "metadata 5ms 1/8"),
    (2, "metadata 30ms 1/32"),
    (2, "write 2ms 1/4"),
    (1, "write 50ms nth=20, write 50ms nth=60"),
    (2, "read 5ms 1/4"),
    (2, "data 3ms 1/2, read 3ms 1/4"),
)
"""I/O jitter of concurrent workloads: little of it, as it costs time, and never all requests alike, so
that some pass the others."""

MKFS: dict[str, Table[str]] = {
    "btrfs": (
        (150, ""),
        (12, "-n 4K"),
        (12, "-O ^no-holes"),
        (6, "-n 64K"),
        (5, "-m single"),
        (5, "-M -n 4K"),
        (5, "-R ^free-space-tree"),
        (5, "-R quota"),
    ),
    "xfs": (
        (140, ""),
        (14, "-m rmapbt=1"),
        (14, "-b size=1024"),
        (10, "-m reflink=0"),
        (6, "-i sparse=0"),
        (6, "-n size=8192"),
        (4, "-m bigtime=0"),
        (4, "-m finobt=0"),
        (4, "-d agcount=2"),
        (4, "-i nrext64=1"),
        (4, "-m inobtcount=0"),
        (4, GROWING),
    ),
}
MOUNT: dict[str, Table[str]] = {
    "btrfs": (
        (130, ""),
        (12, "compress=zstd"),
        (8, "compress=lzo"),
        (12, "nodatacow"),
        (9, "flushoncommit"),
        (9, "max_inline=0"),
        (9, "autodefrag"),
        (4, "compress=zlib"),
        (4, "compress-force=zstd"),
        (4, "nodatasum"),
        (4, "discard"),
        (4, "discard=async"),
        (4, "nodiscard"),
        (4, "ssd"),
        (4, "nossd"),
        (4, "commit=1"),
        (4, "lazytime"),
    ),
    "xfs": (
        (130, ""),
        (12, "wsync"),
        (12, "logbsize=256k"),
        (10, "allocsize=64k"),
        (5, "logbsize=32k"),
        (5, "inode32"),
        (5, "lazytime"),
        (5, "largeio"),
        (5, "discard"),
        (4, "logbufs=2"),
        (4, "uquota,gquota"),
    ),
}
"""Tried with mkfs.btrfs 6.2, mkfs.xfs 6.1 and Linux 6.18 on 320 MiB. notreelog is left out: with it
every fsync is a full commit and the log tree, where the races are, is never used. Quotas of xfs were tried
on Linux 6.1; where the kernel has none, such a workload is skipped."""
