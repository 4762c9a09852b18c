"""The table of operations a workload can ask for: names, parameters and what they need.

One row per op. The text format, the validator and the generator are driven by this table; how an op
is carried out lives in `fuzzer/kernel/actions/`, what it promises lives in `oracles/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

WORD_BYTES = 8
"""Everything written is made of 8-byte stamps, so offsets and lengths are multiples of this."""

MAX_FILE_BYTES = 128 << 20
"""A stamp has 24 bits for the word offset: 2**24 words of 8 bytes."""

SHIFT = {"": 0, "K": 10, "M": 20, "G": 30}
"""Suffixes of sizes."""

DIRECT_ALIGN_BYTES = 4096
"""The largest block of a file system: what is aligned to it is aligned everywhere."""

DIRECT_UNIT_BYTES = 512
"""The logical block of the devices: O_DIRECT takes nothing smaller (open(2))."""


class Kind(Enum):
    """Type of a parameter: decides syntax and checks."""

    PATH = "path"
    TEXT = "text"
    BYTES = "bytes"
    """A size or offset in bytes; K, M, G suffixes; may be drawn from a stream."""
    NUMBER = "number"
    """A plain count; may be drawn from a stream."""
    MODE = "mode"
    """Permission bits, octal."""
    CHOICE = "choice"


class Role(Enum):
    """What an op is for; the generator picks by role, statistics are shown by role."""

    DATA = "data"
    NAMES = "names"
    ATTRIBUTES = "attributes"
    SYNC = "sync"
    ENVIRONMENT = "environment"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter. `default=None` means required; required parameters are positional in the text."""

    name: str
    kind: Kind
    default: int | str | None = None
    choices: tuple[str, ...] = ()
    unit: int = 1
    """Values must be a multiple of this."""
    low: int = 0
    high: int = MAX_FILE_BYTES
    """Smallest and largest value, both allowed."""

    @property
    def required(self) -> bool:
        return self.default is None


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One op: its parameters in text order and the capabilities (doctor names) it needs."""

    name: str
    role: Role
    params: tuple[Param, ...]
    summary: str
    requires: tuple[str, ...] = ()

    def param(self, name: str) -> Param:
        """The parameter called `name`; KeyError if there is none."""
        for param in self.params:
            if param.name == name:
                return param
        raise KeyError(name)


def _path(name: str = "path") -> Param:
    return Param(name, Kind.PATH)


def _bytes(name: str, unit: int = WORD_BYTES, low: int = 0) -> Param:
    return Param(name, Kind.BYTES, unit=unit, low=low)


def _range(unit: int = WORD_BYTES) -> tuple[Param, Param]:
    """A range that is not empty."""
    return _bytes("off", unit), _bytes("len", unit, low=unit)


def _mode(default: int | None = None) -> Param:
    return Param("mode", Kind.MODE, default, high=0o7777)


def _count(name: str, default: int | None, low: int, high: int) -> Param:
    return Param(name, Kind.NUMBER, default, low=low, high=high)


def _id(name: str) -> Param:
    """User or group; -1, which would leave it alone, is none."""
    return _count(name, None, 0, (1 << 32) - 2)


def _choice(name: str, *choices: str) -> Param:
    return Param(name, Kind.CHOICE, choices[0], choices)


_DURABLE = _choice("sync", "none", "dsync", "sync", "rwf_dsync")
_BUFFERS = _count("buffers", 1, 1, 64)
_OPENED = _choice("flags", "none", "dsync", "sync")
"""O_DSYNC and O_SYNC on a descriptor that nothing is written to: they promise nothing (open(2))."""

_BTRFS, _XFS = ("btrfs",), ("xfs",)
FALLOCATE_MODES = ("alloc", "keep", "punch", "zero", "zero_keep", "collapse", "insert", "unshare")
_REMAP = (_path("from"), _path("to"), _bytes("src"), _bytes("off"), _bytes("len"))
_LEVEL = Param("level", Kind.CHOICE, "3", ("1", "2", "3"))
_MAX_MEMORY_BYTES = 1 << 40
_RECLAIM = Param("bytes", Kind.BYTES, 16 << 20, low=1, high=_MAX_MEMORY_BYTES)
_LIMIT = Param("limit", Kind.BYTES, 24 << 20, low=1 << 20, high=_MAX_MEMORY_BYTES)
_MAX_LOGICAL_BYTES = 1 << 40
_RESIZE_BY = Param("by", Kind.BYTES, 16 << 20, unit=1 << 16, low=1 << 16, high=1 << 30)
REMOUNT_OPTIONS = ("none", "autodefrag", "noautodefrag", "inode32", "inode64")
LOOKS = ("stat", "statfs", "fiemap", "readahead", "fadvise", "seek_hole", "listxattr", "bulkstat")
KNOBS = {
    "swappiness": (0, 200),
    "vfs_cache_pressure": (1, 10_000),
    "dirty_ratio": (1, 100),
    "dirty_background_ratio": (0, 100),
    "dirty_expire_centisecs": (1, 100_000),
    "dirty_writeback_centisecs": (0, 100_000),
}
"""Knobs of /proc/sys/vm a workload may set, with the values it may set them to."""

_RENAME_FLAGS = _choice("flags", "none", "exchange", "noreplace", "whiteout")
_XATTR_BYTES = _count("size", 32, WORD_BYTES, 1 << 16)

_ROWS = (
    OpSpec("create", Role.NAMES, (_path(), _mode(0o644), _OPENED), "new empty file, open(O_CREAT|O_EXCL)"),
    OpSpec("mkdir", Role.NAMES, (_path(), _mode(0o755)), "new directory"),
    OpSpec("symlink", Role.NAMES, (Param("target", Kind.TEXT), _path()), "new symbolic link to a text"),
    OpSpec(
        "mknod",
        Role.NAMES,
        (_path(), _choice("kind", "fifo", "null", "socket"), _mode(0o644)),
        "new special file; null is the character device 1:3",
    ),
    OpSpec(
        "tmplink",
        Role.NAMES,
        (_path(), *_range(), _mode(0o644), _choice("fsync", "no", "yes")),
        "open(O_TMPFILE), write, perhaps fsync, then link it to its first name",
    ),
    OpSpec("link", Role.NAMES, (_path("from"), _path("to")), "hard link"),
    OpSpec(
        "rename",
        Role.NAMES,
        (_path("from"), _path("to"), _RENAME_FLAGS),
        "renameat2; whiteout leaves one, a device 0:0, at the old name",
    ),
    OpSpec(
        "unlink",
        Role.NAMES,
        (_path(), _choice("fsync", "no", "yes")),
        "remove a name of a file; fsync: of the file, which was opened before",
    ),
    OpSpec("rmdir", Role.NAMES, (_path(),), "remove an empty directory"),
    OpSpec("subvol_create", Role.NAMES, (_path(),), "new btrfs subvolume", _BTRFS),
    OpSpec(
        "snapshot",
        Role.NAMES,
        (_path("from"), _path(), _choice("access", "rw", "ro")),
        "btrfs snapshot of the subvolume `from`",
        _BTRFS,
    ),
    OpSpec("subvol_delete", Role.NAMES, (_path(),), "delete a btrfs subvolume and all that is in it", _BTRFS),
    OpSpec(
        "write",
        Role.DATA,
        (_path(), *_range(), _DURABLE, _choice("rwf", "none", "nowait", "dontcache"), _BUFFERS),
        "buffered pwritev2 of so many buffers; nowait may be EAGAIN or short, dontcache drops written pages",
    ),
    OpSpec(
        "append",
        Role.DATA,
        (_path(), _bytes("len", low=WORD_BYTES), _DURABLE),
        "one write(2) with O_APPEND; its result is where it began",
    ),
    OpSpec("splice", Role.DATA, (_path(), *_range()), "splice from a pipe, as much as it holds"),
    OpSpec(
        "fault_write",
        Role.DATA,
        (_path(), *_range(), _bytes("good")),
        "buffered pwrite from memory that cannot be read behind its first `good` bytes",
    ),
    OpSpec(
        "dwrite",
        Role.DATA,
        (_path(), *_range(DIRECT_UNIT_BYTES), _DURABLE, _choice("rwf", "none", "nowait", "atomic"), _BUFFERS),
        "O_DIRECT pwritev2; atomic takes a power of two at a multiple of it, where the kernel can",
    ),
    OpSpec(
        "awrite",
        Role.DATA,
        (
            _path(),
            *_range(DIRECT_UNIT_BYTES),
            _DURABLE,
            _choice("rwf", "none", "nowait"),
            _count("parts", 4, 1, 64),
        ),
        "O_DIRECT io_submit: parts of the range, all under way at once; returns when all have ended",
    ),
    OpSpec(
        "mapped_write",
        Role.DATA,
        (
            _path(),
            _bytes("src", DIRECT_UNIT_BYTES),
            *_range(DIRECT_UNIT_BYTES),
            _choice("direct", "no", "yes"),
        ),
        "pwrite from a mapping of the same file, at `src`: the kernel may fault in what it writes",
    ),
    OpSpec(
        "mwrite",
        Role.DATA,
        (_path(), *_range(), _choice("msync", "none", "async", "sync")),
        "stores through a shared mapping, then msync",
    ),
    OpSpec(
        "read",
        Role.DATA,
        (_path(), *_range(), _choice("direct", "no", "yes")),
        "pread, checked only by the live oracle",
    ),
    OpSpec("truncate", Role.DATA, (_path(), _bytes("size"), _OPENED), "ftruncate"),
    OpSpec("otrunc", Role.DATA, (_path(), _OPENED), "open(O_TRUNC): cut a file to nothing"),
    OpSpec(
        "fallocate",
        Role.DATA,
        (_path(), *_range(), _choice("mode", *FALLOCATE_MODES)),
        "fallocate; collapse and insert need block alignment",
    ),
    OpSpec("clone", Role.DATA, _REMAP, "FICLONERANGE; len 0 means to the end of the source"),
    OpSpec(
        "copy_range",
        Role.DATA,
        (_path("from"), _path("to"), _bytes("src"), *_range()),
        "copy_file_range",
    ),
    OpSpec("dedupe", Role.DATA, _REMAP, "FIDEDUPERANGE"),
    OpSpec(
        "exchange_range",
        Role.DATA,
        (_path("from"), _path("to"), _bytes("src"), *_range()),
        "XFS_IOC_EXCHANGE_RANGE; needs mkfs options -i exchange=1",
        ("xfs", "xfs-exchange"),
    ),
    OpSpec("chmod", Role.ATTRIBUTES, (_path(), _mode()), "fchmod"),
    OpSpec("chown", Role.ATTRIBUTES, (_path(), _id("uid"), _id("gid")), "fchown to numeric ids"),
    OpSpec("utimes", Role.ATTRIBUTES, (_path(),), "set the mtime to a time that names this op, in 1985"),
    OpSpec(
        "chattr",
        Role.ATTRIBUTES,
        (_path(), _choice("flag", "nocow", "compress", "append", "immutable"), _choice("to", "on", "off")),
        "set or clear an inode flag; the first two are for btrfs, nocow for empty files",
    ),
    OpSpec(
        "extsize", Role.ATTRIBUTES, (_path(), _bytes("size", DIRECT_ALIGN_BYTES)), "extent size hint", _XFS
    ),
    OpSpec(
        "setxattr",
        Role.ATTRIBUTES,
        (_path(), Param("name", Kind.TEXT), _XATTR_BYTES),
        "set user.NAME to a value that names this op",
    ),
    OpSpec(
        "acl",
        Role.ATTRIBUTES,
        (_path(), _id("uid"), _choice("kind", "default", "access"), _choice("to", "on", "off")),
        "ACL that gives all rights to everybody and one more user; the default one, of a directory, is"
        " what is made in it gets",
    ),
    OpSpec("removexattr", Role.ATTRIBUTES, (_path(), Param("name", Kind.TEXT)), "remove user.NAME"),
    OpSpec(
        "fsync",
        Role.SYNC,
        (_path(), _choice("follow", "no", "yes")),
        "fsync of a file or a directory; follow: of what a symbolic link leads to",
    ),
    OpSpec("fdatasync", Role.SYNC, (_path(),), "fdatasync of a file"),
    OpSpec("msync", Role.SYNC, (_path(), *_range()), "map the range and msync(MS_SYNC) it"),
    OpSpec(
        "sync_file_range",
        Role.SYNC,
        (_path(), _bytes("off"), _bytes("len")),
        "start and wait for writeback of the range (len 0: to the end): promises nothing",
    ),
    OpSpec("sync", Role.SYNC, (), "sync(2)"),
    OpSpec("syncfs", Role.SYNC, (), "syncfs(2) on the workload's mount"),
    OpSpec("freeze", Role.SYNC, (_count("hold_ms", 1, 0, 1000),), "FIFREEZE, wait that long, FITHAW"),
    OpSpec(
        "remount_ro",
        Role.SYNC,
        (_count("hold_ms", 1, 0, 1000),),
        "make the file system read-only, wait that long, make it writable; EBUSY while files are written",
    ),
    OpSpec("drop_caches", Role.ENVIRONMENT, (_LEVEL,), "vm.drop_caches", ("drop_caches",)),
    OpSpec("reclaim", Role.ENVIRONMENT, (_RECLAIM,), "reclaim from the workload's memory cgroup", ("memcg",)),
    OpSpec(
        "squeeze",
        Role.ENVIRONMENT,
        (_LIMIT, _count("hold_ms", 10, 0, 10_000)),
        "lower the memory cgroup's limit for a while",
        ("memcg",),
    ),
    OpSpec(
        "balance",
        Role.ENVIRONMENT,
        (
            _choice("type", "all", "data", "metadata", "system"),
            _count("usage", 100, 0, 100),
            _count("limit", 0, 0, 1 << 20),
            Param("vend", Kind.BYTES, 0, high=_MAX_LOGICAL_BYTES),
            _choice("convert", "none", "single", "dup"),
        ),
        "btrfs balance; usage in percent, limit in chunks, vend the logical address to stop at (0: none)",
        _BTRFS,
    ),
    OpSpec(
        "balance_ctl",
        Role.ENVIRONMENT,
        (_choice("action", "pause", "cancel", "resume"),),
        "pause or cancel a running btrfs balance, or resume a paused one",
        _BTRFS,
    ),
    OpSpec("scrub", Role.ENVIRONMENT, (), "btrfs scrub", _BTRFS),
    OpSpec(
        "defrag",
        Role.ENVIRONMENT,
        (_path(), _choice("compress", "none", "zlib", "lzo", "zstd")),
        "btrfs defragmentation of a file",
        _BTRFS,
    ),
    OpSpec(
        "quota",
        Role.ENVIRONMENT,
        (_choice("action", "enable", "rescan", "disable"),),
        "btrfs quota groups",
        _BTRFS,
    ),
    OpSpec(
        "resize",
        Role.ENVIRONMENT,
        (_choice("to", "smaller", "max"), _RESIZE_BY),
        "make a btrfs smaller by that much, or as large as its device",
        _BTRFS,
    ),
    OpSpec(
        "growfs",
        Role.ENVIRONMENT,
        (_count("blocks", 256, 1, 1 << 20),),
        "make an xfs larger by some blocks, if its device is",
        _XFS,
    ),
    OpSpec("send", Role.ENVIRONMENT, (_path(),), "send a read-only btrfs snapshot, into memory", _BTRFS),
    OpSpec(
        "remount",
        Role.ENVIRONMENT,
        (_choice("option", *REMOUNT_OPTIONS),),
        "remount with one option changed; none: with no other ones",
    ),
    OpSpec("label", Role.ENVIRONMENT, (), "set the label of the file system"),
    OpSpec("compact", Role.ENVIRONMENT, (), "vm.compact_memory"),
    OpSpec("fstrim", Role.ENVIRONMENT, (), "FITRIM of all that is free"),
    OpSpec(
        "evict",
        Role.ENVIRONMENT,
        (_path(),),
        "drop a file's clean pages, then all unused dentries and inodes",
        ("drop_caches",),
    ),
    OpSpec(
        "look",
        Role.ENVIRONMENT,
        (_path(), _choice("how", *LOOKS)),
        "a call that only reads; fadvise drops clean pages, bulkstat is for xfs",
    ),
    OpSpec(
        "knob",
        Role.ENVIRONMENT,
        (_count("value", None, 0, 100_000), _choice("name", *KNOBS)),
        "set a knob in /proc/sys/vm until the end of the run",
    ),
    OpSpec("sleep", Role.CONTROL, (_count("us", None, 0, 10_000_000),), "wait that many microseconds"),
    OpSpec("spin", Role.CONTROL, (_count("us", None, 0, 10_000_000),), "keep the CPU busy that long"),
    OpSpec("barrier", Role.CONTROL, (Param("name", Kind.TEXT),), "wait for the other users of this barrier"),
)

OPS: dict[str, OpSpec] = {row.name: row for row in _ROWS}
"""Every op by name."""

SYNC_CALLS = frozenset({"fsync", "fdatasync", "sync", "syncfs", "msync", "freeze", "remount_ro"})
"""Ops whose return is a durability point whatever their arguments are."""
