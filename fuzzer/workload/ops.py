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

DIRECT_ALIGN_BYTES = 4096
"""O_DIRECT offsets and lengths are kept to this, the largest logical block we use."""


class Kind(Enum):
    """Type of a parameter: decides syntax and checks."""

    PATH = "path"
    TEXT = "text"
    BYTES = "bytes"
    """A size or offset in bytes; K, M, G suffixes; may be drawn from a stream."""
    NUMBER = "number"
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
    """Values must be a multiple of this many bytes."""

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


def _range(unit: int = WORD_BYTES) -> tuple[Param, Param]:
    return Param("off", Kind.BYTES, unit=unit), Param("len", Kind.BYTES, unit=unit)


def _choice(name: str, *choices: str) -> Param:
    return Param(name, Kind.CHOICE, choices[0], choices)


_DURABLE = _choice("sync", "none", "dsync", "sync")
FALLOCATE_MODES = ("alloc", "keep", "punch", "zero", "zero_keep", "collapse", "insert", "unshare")

_ROWS = (
    OpSpec("create", Role.NAMES, (_path(), Param("mode", Kind.MODE, 0o644)), "new empty file, open(O_CREAT|O_EXCL)"),
    OpSpec("mkdir", Role.NAMES, (_path(), Param("mode", Kind.MODE, 0o755)), "new directory"),
    OpSpec("symlink", Role.NAMES, (Param("target", Kind.TEXT), _path()), "new symbolic link to the text target"),
    OpSpec("link", Role.NAMES, (_path("from"), _path("to")), "hard link"),
    OpSpec(
        "rename",
        Role.NAMES,
        (_path("from"), _path("to"), _choice("flags", "none", "exchange", "noreplace")),
        "renameat2",
    ),
    OpSpec("unlink", Role.NAMES, (_path(),), "remove a name of a file"),
    OpSpec("rmdir", Role.NAMES, (_path(),), "remove an empty directory"),
    OpSpec("write", Role.DATA, (_path(), *_range(), _DURABLE), "buffered pwrite"),
    OpSpec("dwrite", Role.DATA, (_path(), *_range(DIRECT_ALIGN_BYTES), _DURABLE), "O_DIRECT pwrite"),
    OpSpec(
        "mwrite",
        Role.DATA,
        (_path(), *_range(), _choice("msync", "none", "async", "sync")),
        "stores through a shared mapping, then msync",
    ),
    OpSpec("read", Role.DATA, (_path(), *_range(), _choice("direct", "no", "yes")), "pread, checked only by the live oracle"),
    OpSpec("truncate", Role.DATA, (_path(), Param("size", Kind.BYTES, unit=WORD_BYTES)), "ftruncate"),
    OpSpec(
        "fallocate",
        Role.DATA,
        (_path(), *_range(), _choice("mode", *FALLOCATE_MODES)),
        "fallocate; collapse and insert need block alignment",
    ),
    OpSpec(
        "clone",
        Role.DATA,
        (_path("from"), _path("to"), Param("src", Kind.BYTES), Param("off", Kind.BYTES), Param("len", Kind.BYTES)),
        "FICLONERANGE; len 0 means to the end of the source",
    ),
    OpSpec(
        "dedupe",
        Role.DATA,
        (_path("from"), _path("to"), Param("src", Kind.BYTES), Param("off", Kind.BYTES), Param("len", Kind.BYTES)),
        "FIDEDUPERANGE",
    ),
    OpSpec("chmod", Role.ATTRIBUTES, (_path(), Param("mode", Kind.MODE)), "fchmod"),
    OpSpec(
        "setxattr",
        Role.ATTRIBUTES,
        (_path(), Param("name", Kind.TEXT), Param("size", Kind.NUMBER, 32)),
        "set user.NAME to a value that names this op",
    ),
    OpSpec("removexattr", Role.ATTRIBUTES, (_path(), Param("name", Kind.TEXT)), "remove user.NAME"),
    OpSpec("fsync", Role.SYNC, (_path(),), "fsync of a file or a directory"),
    OpSpec("fdatasync", Role.SYNC, (_path(),), "fdatasync of a file"),
    OpSpec("msync", Role.SYNC, (_path(), *_range()), "map the range and msync(MS_SYNC) it"),
    OpSpec("sync_file_range", Role.SYNC, (_path(), *_range()), "start and wait for writeback of the range: promises nothing"),
    OpSpec("sync", Role.SYNC, (), "sync(2)"),
    OpSpec("syncfs", Role.SYNC, (), "syncfs(2) on the workload's mount"),
    OpSpec("drop_caches", Role.ENVIRONMENT, (Param("level", Kind.CHOICE, "3", ("1", "2", "3")),), "vm.drop_caches", ("drop_caches",)),
    OpSpec("reclaim", Role.ENVIRONMENT, (Param("bytes", Kind.BYTES, 16 << 20),), "reclaim from the workload's memory cgroup", ("memcg",)),
    OpSpec(
        "squeeze",
        Role.ENVIRONMENT,
        (Param("limit", Kind.BYTES, 24 << 20), Param("hold_ms", Kind.NUMBER, 10)),
        "lower the memory cgroup's limit for a while",
        ("memcg",),
    ),
    OpSpec(
        "balance",
        Role.ENVIRONMENT,
        (
            _choice("type", "all", "data", "metadata", "system"),
            Param("usage", Kind.NUMBER, 100),
            Param("limit", Kind.NUMBER, 0),
        ),
        "btrfs balance; usage filter in percent, limit in chunks (0: none)",
        ("btrfs",),
    ),
    OpSpec("sleep", Role.CONTROL, (Param("us", Kind.NUMBER),), "wait that many microseconds"),
    OpSpec("barrier", Role.CONTROL, (Param("name", Kind.TEXT),), "wait for the other actors that use this barrier"),
)

OPS: dict[str, OpSpec] = {row.name: row for row in _ROWS}
"""Every op by name."""

SYNC_CALLS = frozenset({"fsync", "fdatasync", "sync", "syncfs", "msync"})
"""Ops whose return is a durability point whatever their arguments are."""
