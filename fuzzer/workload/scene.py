"""What a workload being generated can talk about: names, and sizes as they are if ops run one by one.

Under concurrency that is a guess; it keeps most ops meaningful (a file that exists, an offset near its
end) without pretending to know what the others do.
"""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from fuzzer.workload.model import Draw, Op, Value

T = TypeVar("T")
Table = Sequence[tuple[int, T]]
"""Rows of (weight, choice)."""

BLOCK = 4096
FILES = ("a", "b", "c", "d/a", "d/b", "e/a")
"""Few names, so that actors meet."""
LATER_FILES = ("f", "h", "d/f", "e/f")
SYMLINKS = ("s", "d/s")
DIRECTORIES = ("d", "e")
LATER_DIRECTORIES = ("g", "d/g")
SPECIALS = ("p", "d/p")
SUBVOLUMES = ("v", "d/v", "w")

_MAX_OFFSET = 64 << 20
"""Half of the largest file: any length from the table still fits."""

LENGTHS: Table[int] = (
    (4, 8),
    (4, 512),
    (4, 2 << 10),
    (24, 4 << 10),
    (6, 8 << 10),
    (6, 16 << 10),
    (10, 64 << 10),
    (3, 256 << 10),
    (3, 1 << 20),
)
JITTERS: Table[int] = ((12, 0), (2, 8), (2, -8), (1, 512), (1, -512), (1, 2048))
"""Added to lengths and offsets: file systems do other things at the edges of blocks."""

OFFSETS: Table[str] = (
    (18, "start"),
    (24, "append"),
    (30, "inside"),
    (8, "last block"),
    (8, "past the end"),
    (12, "near a power"),
)
POWERS = (4 << 10, 64 << 10, 1 << 20)
"""Edges worth being near: a block, the largest page size, a large folio."""


@dataclass(slots=True)
class Scene:
    """Names and sizes at one point of one actor's ops; `loop` is the actor's loop count."""

    rng: random.Random
    fs: str
    loop: int = 1
    sizes: dict[str, int] = field(default_factory=dict)
    """Existing regular files."""
    directories: list[str] = field(default_factory=list)
    symlinks: list[str] = field(default_factory=list)
    specials: list[str] = field(default_factory=list)
    """Fifos, devices and sockets."""
    subvolumes: list[str] = field(default_factory=list)
    read_only: list[str] = field(default_factory=list)
    """Those subvolumes that are read-only snapshots."""
    exchanges: bool = False
    """Whether the file system can exchange ranges."""
    xattrs: list[tuple[str, str]] = field(default_factory=list)
    """(path, name) of what setxattr set, whatever became of the path."""

    def fork(self, loop: int) -> Scene:
        """A scene of an actor's own that starts from this one; the random stream is shared."""
        return replace(
            self,
            loop=loop,
            sizes=dict(self.sizes),
            directories=list(self.directories),
            symlinks=list(self.symlinks),
            specials=list(self.specials),
            subvolumes=list(self.subvolumes),
            read_only=list(self.read_only),
            xattrs=list(self.xattrs),
        )

    def pick(self, table: Table[T]) -> T:
        return self.rng.choices([choice for _, choice in table], [weight for weight, _ in table])[0]

    def chance(self, percent: int) -> bool:
        return self.rng.randrange(100) < percent

    # Names.

    def file(self) -> str:
        """A file that exists; now and then one that may exist only for others."""
        if not self.sizes or self.chance(4):
            return self.rng.choice(FILES)
        # Every second op goes to the first file, where all actors meet.
        return next(iter(self.sizes)) if self.chance(45) else self.rng.choice(list(self.sizes))

    def full_file(self) -> str:
        """A file with data, if there is one."""
        full = [name for name, size in self.sizes.items() if size]
        return self.rng.choice(full) if full else self.file()

    def empty_file(self) -> str:
        """A file without data, if there is one."""
        empty = [name for name, size in self.sizes.items() if not size]
        return self.rng.choice(empty) if empty else self.file()

    def other_file(self, path: str) -> str:
        """An existing file with another name than `path`, if there is one."""
        others = [name for name in self.sizes if name != path]
        return self.rng.choice(others) if others else self.new_file()

    def new_file(self) -> str:
        """A name for a new file, nearly always free."""
        return self._free((*FILES, *LATER_FILES), self.sizes)

    def new_symlink(self) -> str:
        return self._free(SYMLINKS, self.symlinks)

    def new_special(self) -> str:
        return self._free(SPECIALS, self.specials)

    def new_subvolume(self) -> str:
        return self._free(SUBVOLUMES, self.subvolumes)

    def any_name(self) -> str:
        others = [*self.symlinks, *self.specials]
        return self.rng.choice(others) if others and self.chance(20) else self.file()

    def directory(self) -> str:
        """An existing directory, perhaps the root."""
        return self.rng.choice([".", *self.directories])

    def new_directory(self) -> str:
        return self._free((*DIRECTORIES, *LATER_DIRECTORIES), self.directories)

    def empty_directory(self) -> str:
        """A directory rmdir can remove, if there is one."""
        names = [*self.sizes, *self.symlinks, *self.directories]
        empty = [d for d in self.directories if not any(name.startswith(d + "/") for name in names)]
        return self.rng.choice(empty or self.directories or list(DIRECTORIES))

    def _free(self, names: Sequence[str], taken: Container[str]) -> str:
        reachable = [n for n in names if "/" not in n or n.rpartition("/")[0] in self.directories]
        free = [name for name in reachable if name not in taken]
        return self.rng.choice(reachable if self.chance(3) or not free else free)

    # Ranges.

    def length(self, unit: int) -> int:
        """A length from the table, a multiple of `unit` and at least that."""
        wanted = self.pick(LENGTHS) + self.pick(JITTERS)
        return max(unit, wanted // unit * unit)

    def block(self, path: str) -> int:
        """The offset of a block that holds data, if any does."""
        return self.rng.randrange(max(1, self.sizes.get(path, 0) // BLOCK)) * BLOCK

    def offset(self, path: str, unit: int) -> int:
        size, rng = self.sizes.get(path, 0), self.rng
        where = self.pick(OFFSETS)
        at = {
            "start": 0,
            "append": size,
            "inside": self.block(path),
            "last block": max(0, size - 1) // BLOCK * BLOCK,
            "past the end": size + rng.choice((BLOCK, 64 << 10, 1 << 20)),
            "near a power": rng.choice(POWERS) - rng.choice((0, BLOCK)),
        }[where]
        if where in ("inside", "near a power"):
            at += self.pick(JITTERS)
        return min(max(0, at), _MAX_OFFSET) // unit * unit

    def drawn(self, path: str, offset: int) -> Value:
        """`offset`, or in a loop perhaps one drawn anew each time around."""
        size = max(self.sizes.get(path, 0), 64 << 10)
        return Draw(0, size - BLOCK & -BLOCK, BLOCK) if self.loop > 1 and self.chance(40) else offset

    # What an op changes.

    def apply(self, op: Op) -> None:
        """Follow `op` as if nobody else were there and nothing failed."""
        args = dict(op.args)
        match op.name:
            case "create":
                self.sizes.setdefault(op.text("path"), 0)
            case "mkdir":
                self.directories.append(op.text("path"))
            case "mknod":
                self.specials.append(op.text("path"))
            case "subvol_create" | "snapshot":
                self.subvolumes.append(op.text("path"))
                self.read_only += [op.text("path")] if args.get("access") == "ro" else []
            case "subvol_delete":
                self.subvolumes = [name for name in self.subvolumes if name != op["path"]]
                self.read_only = [name for name in self.read_only if name != op["path"]]
            case "symlink":
                self.symlinks.append(op.text("path"))
            case "tmplink":
                self.sizes.setdefault(op.text("path"), op.number("off") + op.number("len"))
            case "link":
                self.sizes.setdefault(op.text("to"), self.sizes.get(op.text("from"), 0))
            case "rename":
                self._rename(op.text("from"), op.text("to"), op.text("flags"))
            case "setxattr":
                self.xattrs.append((op.text("path"), op.text("name")))
            case "removexattr":
                gone = (op.text("path"), op.text("name"))
                self.xattrs = [xattr for xattr in self.xattrs if xattr != gone]
            case "unlink":
                self.sizes.pop(op.text("path"), None)
                self.symlinks = [name for name in self.symlinks if name != op["path"]]
                self.specials = [name for name in self.specials if name != op["path"]]
            case "rmdir":
                self.directories = [name for name in self.directories if name != op["path"]]
            case "truncate":
                self.sizes[op.text("path")] = op.number("size")
            case "append":
                self.sizes[op.text("path")] = self.sizes.get(op.text("path"), 0) + op.number("len")
            case "otrunc":
                self.sizes[op.text("path")] = 0
            case (
                "write"
                | "splice"
                | "dwrite"
                | "awrite"
                | "mapped_write"
                | "clone"
                | "copy_range"
                | "fallocate"
            ) if args.get("mode") in (
                None,
                "alloc",
                "zero",
            ):
                path = str(args.get("path", args.get("to")))
                self.sizes[path] = max(self.sizes.get(path, 0), _highest(args["off"]) + _highest(args["len"]))

    def _rename(self, source: str, target: str, flags: str) -> None:
        exchange = flags == "exchange"
        if source in self.directories:
            self.directories = [_moved(name, source, target, exchange) for name in self.directories]
            self.symlinks = [_moved(name, source, target, exchange) for name in self.symlinks]
            self.sizes = {_moved(n, source, target, exchange): size for n, size in self.sizes.items()}
        elif source in self.sizes:
            size = self.sizes.pop(source)
            if exchange and target in self.sizes:
                self.sizes[source] = self.sizes[target]
            self.sizes[target] = size
            self.specials += [source] if flags == "whiteout" else []


def _moved(name: str, source: str, target: str, exchange: bool) -> str:
    """What `name` is called after directory `source` became `target`."""
    for old, new in ((source, target), (target, source)) if exchange else ((source, target),):
        if name == old or name.startswith(old + "/"):
            return new + name[len(old) :]
    return name


def _highest(value: Value) -> int:
    assert not isinstance(value, str)
    return value.high if isinstance(value, Draw) else value
