"""The generator's parts: each fills some parameters of an op with what is sensible in a scene."""

from __future__ import annotations

from collections.abc import Callable

from fuzzer.workload.model import Value
from fuzzer.workload.ops import DIRECT_ALIGN_BYTES, DIRECT_UNIT_BYTES, LOOKS, WORD_BYTES
from fuzzer.workload.scene import BLOCK, SUBVOLUMES, Scene, Table

_FLAGGED_RENAMES: Table[str] = ((15, "exchange"), (5, "noreplace"), (4, "whiteout"))

Part = Callable[[Scene], dict[str, Value]]

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


KNOB_VALUES = {
    "swappiness": (0, 100, 200),
    "vfs_cache_pressure": (1, 1000),
    "dirty_ratio": (1, 5),
    "dirty_background_ratio": (0, 1),
    "dirty_expire_centisecs": (1, 10),
    "dirty_writeback_centisecs": (1, 5),
}
"""What makes writeback and reclaim busier than they are."""


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
    access = s.pick(((3, "rw"), (2, "ro")))
    return {"from": s.rng.choice([".", *s.subvolumes]), "path": s.new_subvolume(), "access": access}


def subvolume(s: Scene) -> dict[str, Value]:
    return {"path": s.rng.choice(s.subvolumes or list(SUBVOLUMES))}


def sent(s: Scene) -> dict[str, Value]:
    return {"path": s.rng.choice(s.read_only or list(SUBVOLUMES))}


def new_symlink(s: Scene) -> dict[str, Value]:
    return {"target": s.file(), "path": s.new_symlink()}


def link_names(s: Scene) -> dict[str, Value]:
    return {"from": s.file(), "to": s.new_file()}


def rename_names(s: Scene) -> dict[str, Value]:
    kind = s.pick(((45, "new"), (30, "replace"), *_FLAGGED_RENAMES, (5, "directory")))
    if kind == "directory" and s.directories:
        flags = "exchange" if len(s.directories) > 1 else "none"
        target = s.rng.choice(s.directories) if flags == "exchange" else s.new_directory()
        return {"from": s.rng.choice(s.directories), "to": target, "flags": flags}
    source = s.file()
    target = s.new_file() if kind in ("new", "noreplace", "whiteout") else source
    target = s.other_file(source) if target == source else target
    flagged = {flag: flag for _, flag in _FLAGGED_RENAMES}
    return {"from": source, "to": target, "flags": flagged.get(kind, "none")}


def span(s: Scene) -> dict[str, Value]:
    """A file and a range anywhere near its data."""
    path = s.file()
    return {"path": path, "off": s.drawn(path, s.offset(path, WORD_BYTES)), "len": s.length(WORD_BYTES)}


def direct_span(s: Scene) -> dict[str, Value]:
    """Mostly whole blocks; what is less goes another way (xfs_file_dio_write_unaligned)."""
    return _aligned_span(s, DIRECT_UNIT_BYTES if s.chance(15) else DIRECT_ALIGN_BYTES)


def _aligned_span(s: Scene, unit: int) -> dict[str, Value]:
    path = s.file()
    return {"path": path, "off": s.drawn(path, s.offset(path, unit)), "len": s.length(unit)}


def mapped_span(s: Scene) -> dict[str, Value]:
    """From one block of a file to anywhere in it."""
    path, unit, direct = s.full_file(), DIRECT_ALIGN_BYTES, s.pick(((1, "no"), (1, "yes")))
    span: dict[str, Value] = {"off": s.drawn(path, s.offset(path, unit)), "len": s.length(unit)}
    return {"path": path, "src": s.block(path), **span, "direct": direct}


def buffers(s: Scene) -> dict[str, Value]:
    return {"buffers": s.pick(((12, 1), (1, 3), (1, 16)))}


def requests(s: Scene) -> dict[str, Value]:
    return {"parts": s.pick(((2, 2), (4, 4), (1, 16))), "rwf": s.pick(((9, "none"), (1, "nowait")))}


def unlink_sync(s: Scene) -> dict[str, Value]:
    return {"fsync": s.pick(((9, "no"), (1, "yes")))}


def remount_option(s: Scene) -> dict[str, Value]:
    own = {"btrfs": ("autodefrag", "noautodefrag"), "xfs": ("inode32", "inode64")}
    return {"option": s.rng.choice(("none", *own[s.fs]))}


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
    picked = _aligned_span(s, DIRECT_ALIGN_BYTES) if mode in ("collapse", "insert") else span(s)
    return {**picked, "mode": mode}


def remap_span(s: Scene) -> dict[str, Value]:
    """Ranges in whole blocks inside the source; anything else is EINVAL, but for 0: up to its end."""
    source = s.full_file()
    target = s.other_file(source) if s.chance(75) else source
    src = s.block(source)
    inside = (s.sizes.get(source, 0) - src) // BLOCK * BLOCK
    length = 0 if s.chance(20) else min(s.length(BLOCK), inside)
    return {"from": source, "to": target, "src": src, "off": s.offset(target, BLOCK), "len": length}


def exchanged_span(s: Scene) -> dict[str, Value]:
    """Whole blocks inside both files; behind their end it is EINVAL."""
    source = s.full_file()
    target = s.other_file(source) if s.chance(85) else source
    src, off = s.block(source), s.block(target)
    inside = min(s.sizes.get(source, 0) - src, s.sizes.get(target, 0) - off) // BLOCK * BLOCK
    return {
        "from": source,
        "to": target,
        "src": src,
        "off": off,
        "len": max(BLOCK, min(s.length(BLOCK), inside)),
    }


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


def owner(s: Scene) -> dict[str, Value]:
    return {"uid": s.rng.choice((0, 1000, 65534)), "gid": s.rng.choice((0, 1000, 1 << 20))}


def buffered_flag(s: Scene) -> dict[str, Value]:
    return {"rwf": s.pick(((18, "none"), (1, "nowait"), (1, "dontcache")))}


def direct_flag(s: Scene) -> dict[str, Value]:
    return {"rwf": s.pick(((8, "none"), (1, "nowait"), (1, "atomic")))}


def empty_file(s: Scene) -> dict[str, Value]:
    """One without extents, if there is one: some things can only be set then."""
    return {"path": s.empty_file()}


def acl(s: Scene) -> dict[str, Value]:
    """Few users, as each takes a number that others use too, and many an ACL on what all meet at."""
    kind = s.pick(((1, "default"), (2, "access")))
    path = s.directory() if kind == "default" or s.chance(20) else s.file()
    return {"path": path, "uid": s.rng.randrange(1000, 1100), "kind": kind, "to": s.pick(_ON)}


_ON: Table[str] = ((3, "on"), (1, "off"))


def appended(s: Scene) -> dict[str, Value]:
    return {"path": s.file(), "len": s.length(WORD_BYTES)}


def grow_by(s: Scene) -> dict[str, Value]:
    return {"blocks": s.rng.choice((1, 256, 1000))}


def inode_flag(s: Scene) -> dict[str, Value]:
    """Mostly what changes how data is written; a protected file stops everybody and is soon freed again.

    nocow is for files without data (btrfs_ioctl_setflags).
    """
    here = ((6, "nocow"), (4, "compress")) if s.fs == "btrfs" else ()
    flag = s.pick((*here, (1, "append"), (1, "immutable")))
    path = s.empty_file() if flag == "nocow" else s.file()
    to = s.pick(((1, "on"), (2, "off"))) if flag in ("append", "immutable") else "on"
    return {"path": path, "flag": flag, "to": to}


def extent_hint(s: Scene) -> dict[str, Value]:
    return {"size": s.rng.choice((16 << 10, 64 << 10, 1 << 20))}


def new_linked(s: Scene) -> dict[str, Value]:
    span: dict[str, Value] = {"off": s.pick(((3, 0), (1, BLOCK))), "len": s.length(WORD_BYTES)}
    return {"path": s.new_file(), **span, "fsync": s.pick(((1, "no"), (1, "yes")))}


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
        "vend": s.pick(((9, 0), (1, 64 << 20), (1, 512 << 20))),
        "convert": s.pick(((18, "none"), (1, "single"), (1, "dup"))),
    }


def balance_action(s: Scene) -> dict[str, Value]:
    return {"action": s.pick(((2, "pause"), (2, "cancel"), (1, "resume")))}


def compression(s: Scene) -> dict[str, Value]:
    return {"compress": s.pick(((3, "none"), (1, "zlib"), (1, "lzo"), (1, "zstd")))}


def quota_action(s: Scene) -> dict[str, Value]:
    return {"action": s.pick(((3, "enable"), (2, "rescan"), (1, "disable")))}


def resize_to(s: Scene) -> dict[str, Value]:
    return {"to": s.pick(((2, "smaller"), (1, "max"))), "by": s.rng.choice((1, 8, 32)) << 20}


def look_how(s: Scene) -> dict[str, Value]:
    return {"how": s.rng.choice([how for how in LOOKS if how != "bulkstat" or s.fs == "xfs"])}


def knob_value(s: Scene) -> dict[str, Value]:
    name = s.rng.choice(list(KNOB_VALUES))
    return {"name": name, "value": s.rng.choice(KNOB_VALUES[name])}


def hold(s: Scene) -> dict[str, Value]:
    return {"hold_ms": s.rng.choice((0, 1, 5))}


def pause(s: Scene) -> dict[str, Value]:
    return {"us": s.rng.choice((20, 50, 200, 1000))}
