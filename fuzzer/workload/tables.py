"""The generator's tables: which ops, how often and with what. A new op is one row here.

A row names an op, its weight among the ops of its role, and the parts that fill its parameters; a
parameter no part fills keeps its default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fuzzer.workload.model import Value
from fuzzer.workload.ops import DIRECT_ALIGN_BYTES, OPS, WORD_BYTES, Role
from fuzzer.workload.options import FILE_SYSTEMS
from fuzzer.workload.scene import BLOCK, SUBVOLUMES, Scene, Table

Part = Callable[[Scene], dict[str, Value]]

# ----------------------------------------------------------------------------------------- parts


def file(s: Scene) -> dict[str, Value]:
    return {"path": s.file()}


def file_or_directory(s: Scene) -> dict[str, Value]:
    return {"path": s.directory() if s.chance(30) else s.file()}


def synced(s: Scene) -> dict[str, Value]:
    """What fsync is called on; now and then by way of a symbolic link."""
    if s.symlinks and s.chance(15):
        return {"path": s.rng.choice(s.symlinks), "follow": "yes"}
    return {"path": s.rng.choice(s.specials)} if s.specials and s.chance(10) else file_or_directory(s)


def any_name(s: Scene) -> dict[str, Value]:
    return {"path": s.any_name()}


def new_file(s: Scene) -> dict[str, Value]:
    return {"path": s.new_file()}


def new_directory(s: Scene) -> dict[str, Value]:
    return {"path": s.new_directory()}


def empty_directory(s: Scene) -> dict[str, Value]:
    return {"path": s.empty_directory()}


def new_special(s: Scene) -> dict[str, Value]:
    return {"path": s.new_special(), "kind": s.pick(((3, "fifo"), (2, "null"), (2, "socket")))}


def new_subvolume(s: Scene) -> dict[str, Value]:
    return {"path": s.new_subvolume()}


def new_snapshot(s: Scene) -> dict[str, Value]:
    return {"from": s.rng.choice([".", *s.subvolumes]), "path": s.new_subvolume()}


def subvolume(s: Scene) -> dict[str, Value]:
    return {"path": s.rng.choice(s.subvolumes or list(SUBVOLUMES))}


def new_symlink(s: Scene) -> dict[str, Value]:
    return {"target": s.file(), "path": s.new_symlink()}


def link_names(s: Scene) -> dict[str, Value]:
    return {"from": s.file(), "to": s.new_file()}


def rename_names(s: Scene) -> dict[str, Value]:
    kind = s.pick(((45, "new"), (30, "replace"), (15, "exchange"), (5, "noreplace"), (5, "directory")))
    if kind == "directory" and s.directories:
        flags = "exchange" if len(s.directories) > 1 else "none"
        target = s.rng.choice(s.directories) if flags == "exchange" else s.new_directory()
        return {"from": s.rng.choice(s.directories), "to": target, "flags": flags}
    source = s.file()
    target = s.new_file() if kind in ("new", "noreplace") else source
    target = s.other_file(source) if target == source else target
    return {"from": source, "to": target, "flags": kind if kind in ("exchange", "noreplace") else "none"}


def span(s: Scene) -> dict[str, Value]:
    """A file and a range anywhere near its data."""
    path = s.file()
    return {"path": path, "off": s.drawn(path, s.offset(path, WORD_BYTES)), "len": s.length(WORD_BYTES)}


def direct_span(s: Scene) -> dict[str, Value]:
    path, unit = s.file(), DIRECT_ALIGN_BYTES
    return {"path": path, "off": s.drawn(path, s.offset(path, unit)), "len": s.length(unit)}


def faulty_span(s: Scene) -> dict[str, Value]:
    """A range of several blocks, of which at most the first few come about."""
    path = s.file()
    good = s.rng.choice((0, 104, BLOCK, BLOCK + 104))
    return {"path": path, "off": s.drawn(path, s.offset(path, WORD_BYTES)), "len": 64 * BLOCK, "good": good}


def inner_span(s: Scene) -> dict[str, Value]:
    """A file and a range inside of it, as far as there is anything: a mapping cannot grow a file."""
    path = s.full_file()
    size = max(s.sizes.get(path, 0), WORD_BYTES)
    offset = min(s.offset(path, WORD_BYTES), size - WORD_BYTES)
    return {"path": path, "off": offset, "len": min(s.length(WORD_BYTES), size - offset)}


def new_size(s: Scene) -> dict[str, Value]:
    path = s.file()
    size = s.sizes.get(path, 0)
    to = s.pick(((20, 0), (25, size // 2), (15, size + BLOCK), (10, size + (1 << 20)), (30, s.length(8))))
    return {"path": path, "size": min(max(0, to + s.pick(((3, 0), (1, 8), (1, -512)))), 64 << 20) // 8 * 8}


def falloc_span(s: Scene) -> dict[str, Value]:
    mode = s.pick(FALLOCATE[s.fs])
    picked = direct_span(s) if mode in ("collapse", "insert") else span(s)
    return {**picked, "mode": mode}


def remap_span(s: Scene) -> dict[str, Value]:
    """Ranges in whole blocks inside the source; anything else is EINVAL, but for 0: up to its end."""
    source = s.full_file()
    target = s.other_file(source) if s.chance(75) else source
    src = s.block(source)
    inside = (s.sizes.get(source, 0) - src) // BLOCK * BLOCK
    length = 0 if s.chance(20) else min(s.length(BLOCK), inside)
    return {"from": source, "to": target, "src": src, "off": s.offset(target, BLOCK), "len": length}


def same_span(s: Scene) -> dict[str, Value]:
    """One block at the same place of two files: equal after a clone or in holes."""
    source = s.full_file()
    off = s.block(source)
    return {"from": source, "to": s.other_file(source), "src": off, "off": off, "len": BLOCK}


def copy_span(s: Scene) -> dict[str, Value]:
    """Mostly whole blocks, which are shared; the rest is copied through the page cache."""
    return {**remap_span(s), "len": s.length(BLOCK if s.chance(70) else WORD_BYTES)}


def durability(s: Scene) -> dict[str, Value]:
    return {"sync": s.pick(((16, "none"), (2, "dsync"), (2, "sync"), (1, "rwf_dsync")))}


def opened(s: Scene) -> dict[str, Value]:
    return {"flags": s.pick(((12, "none"), (1, "dsync"), (1, "sync")))}


def map_sync(s: Scene) -> dict[str, Value]:
    return {"msync": s.pick(((4, "none"), (2, "async"), (2, "sync")))}


def read_span(s: Scene) -> dict[str, Value]:
    """A range with data in it, up to the end of file and over it; in whole blocks past the cache."""
    direct = s.pick(((3, "no"), (2, "yes")))
    unit = DIRECT_ALIGN_BYTES if direct == "yes" else WORD_BYTES
    path = s.full_file()
    offset = min(s.offset(path, unit), s.sizes.get(path, 0) // unit * unit)
    return {"path": path, "off": offset, "len": s.length(unit), "direct": direct}


def mode(s: Scene) -> dict[str, Value]:
    return {"mode": s.rng.choice((0o600, 0o640, 0o644, 0o755, 0o777, 0o1777))}


def xattr(s: Scene) -> dict[str, Value]:
    return {"name": s.rng.choice(("x", "y"))}


def set_xattr(s: Scene) -> dict[str, Value]:
    """An attribute that is there, if there is one."""
    path, name = s.rng.choice(s.xattrs or [(s.file(), "x")])
    return {"path": path, "name": name}


def xattr_size(s: Scene) -> dict[str, Value]:
    """Inside the inode, in a leaf of its own, and too large for a 4 KiB btrfs leaf."""
    return {"size": s.pick(((8, 32), (2, 256), (2, 1024), (1, 3000), (1, 8000)))}


def cache_level(s: Scene) -> dict[str, Value]:
    return {"level": s.rng.choice(("1", "2", "3"))}


def reclaim_bytes(s: Scene) -> dict[str, Value]:
    return {"bytes": s.rng.choice((1, 4, 16, 64)) << 20}


def squeeze_limit(s: Scene) -> dict[str, Value]:
    return {"limit": s.rng.choice((16, 24, 48)) << 20, "hold_ms": s.rng.choice((1, 5, 20))}


def balance_filter(s: Scene) -> dict[str, Value]:
    return {
        "type": s.pick(((2, "all"), (3, "data"), (3, "metadata"), (1, "system"))),
        "usage": s.rng.choice((100, 50)),
        "limit": s.rng.choice((0, 1)),
    }


def hold(s: Scene) -> dict[str, Value]:
    return {"hold_ms": s.rng.choice((0, 1, 5))}


def pause(s: Scene) -> dict[str, Value]:
    return {"us": s.rng.choice((20, 50, 200, 1000))}


# ------------------------------------------------------------------------------------------- ops


@dataclass(frozen=True, slots=True)
class Row:
    """One op of the generator: its weight among the ops of its role and what fills its parameters."""

    weight: int
    name: str
    parts: tuple[Part, ...] = ()

    @property
    def role(self) -> Role:
        return OPS[self.name].role

    def runs_on(self, fs: str) -> bool:
        return all(need == fs for need in OPS[self.name].requires if need in FILE_SYSTEMS)


ROWS = (
    Row(30, "write", (span, durability)),
    Row(8, "dwrite", (direct_span, durability)),
    Row(8, "mwrite", (inner_span, map_sync)),
    Row(2, "fault_write", (faulty_span,)),
    Row(6, "read", (read_span,)),
    Row(7, "truncate", (new_size, opened)),
    Row(2, "otrunc", (file, opened)),
    Row(11, "fallocate", (falloc_span,)),
    Row(7, "clone", (remap_span,)),
    Row(3, "copy_range", (copy_span,)),
    Row(3, "dedupe", (same_span,)),
    Row(10, "create", (new_file, opened)),
    Row(4, "mkdir", (new_directory,)),
    Row(4, "symlink", (new_symlink,)),
    Row(2, "mknod", (new_special,)),
    Row(1, "subvol_create", (new_subvolume,)),
    Row(1, "snapshot", (new_snapshot,)),
    Row(1, "subvol_delete", (subvolume,)),
    Row(10, "link", (link_names,)),
    Row(18, "rename", (rename_names,)),
    Row(12, "unlink", (any_name,)),
    Row(3, "rmdir", (empty_directory,)),
    Row(4, "chmod", (file_or_directory, mode)),
    Row(6, "setxattr", (file_or_directory, xattr, xattr_size)),
    Row(4, "removexattr", (set_xattr,)),
    Row(24, "fsync", (synced,)),
    Row(10, "fdatasync", (file,)),
    Row(5, "msync", (inner_span,)),
    Row(5, "sync_file_range", (inner_span,)),
    Row(2, "sync"),
    Row(3, "syncfs"),
    Row(1, "freeze", (hold,)),
    Row(8, "drop_caches", (cache_level,)),
    Row(8, "reclaim", (reclaim_bytes,)),
    Row(4, "squeeze", (squeeze_limit,)),
    Row(5, "balance", (balance_filter,)),
    Row(2, "sleep", (pause,)),
    Row(1, "spin", (pause,)),
)
"""Every op but barrier, which takes two actors and is put in by `generate`."""

FALLOCATE: dict[str, Table[str]] = {
    "btrfs": ((3, "alloc"), (3, "keep"), (6, "punch"), (3, "zero"), (2, "zero_keep")),
    "xfs": (
        (3, "alloc"),
        (3, "keep"),
        (6, "punch"),
        (3, "zero"),
        (2, "zero_keep"),
        (2, "collapse"),
        (2, "insert"),
        (2, "unshare"),
    ),
}
"""btrfs has no collapse, insert and unshare (btrfs_fallocate: EOPNOTSUPP)."""

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
SETUP_ENDS: Table[tuple[str, ...]] = (
    (40, ("sync",)),
    (30, ("fsync", "sync")),
    (10, ("fsync",)),
    (8, ("syncfs",)),
    (12, ()),
)
"""A log tree used before the last commit behaves differently from the first one of a mount."""

MEMORY_LIMITS: Table[int] = ((80, 0), (12, 128 << 20), (8, 64 << 20))

MKFS: dict[str, Table[str]] = {
    "btrfs": ((80, ""), (7, "-n 4K"), (7, "-O ^no-holes"), (3, "-n 64K"), (3, "-m single")),
    "xfs": (
        (70, ""),
        (8, "-m rmapbt=1"),
        (8, "-b size=1024"),
        (6, "-m reflink=0"),
        (4, "-i sparse=0"),
        (4, "-n size=8192"),
    ),
}
MOUNT: dict[str, Table[str]] = {
    "btrfs": (
        (66, ""),
        (7, "compress=zstd"),
        (5, "compress=lzo"),
        (7, "nodatacow"),
        (5, "flushoncommit"),
        (5, "max_inline=0"),
        (5, "autodefrag"),
    ),
    "xfs": ((80, ""), (7, "wsync"), (7, "logbsize=256k"), (6, "allocsize=64k")),
}
"""Tried with mkfs.btrfs 6.2, mkfs.xfs 6.1 and Linux 6.18 on 320 MiB. notreelog is left out: with it
every fsync is a full commit and the log tree, where the races are, is never used."""
