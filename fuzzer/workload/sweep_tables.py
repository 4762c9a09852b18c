"""The sweep's tables: every core op over two directories with two names each, and what it needs to work.

Names, data ranges and the rule that an op's needs are met before it follow ACE, the generator of
CrashMonkey (Mohan et al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing", OSDI
2018, section 5.2). Unlike there, names are also replaced and exchanged, and each is tried that way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

from fuzzer.workload.model import Op, Value, make_op

DIRECTORIES = ("A", "B")
FILES = ("A/foo", "A/bar", "B/foo", "B/bar")
FILE_BYTES = 16 << 10
"""Size of a file that was written before."""

XATTR = "x"

Facets = frozenset[str]
"""What is so of a path. Exclusive: dir, file, symlink, absent; of files: data (`FILE_BYTES` or more),
empty, or neither; and xattr or plain."""

DIR, FILE, ABSENT = frozenset({"dir"}), frozenset({"file"}), frozenset({"absent"})
WRITTEN, EMPTY = FILE | {"data"}, FILE | {"empty"}
PLAIN, TAGGED = frozenset({"plain"}), frozenset({"xattr"})

Needs = Mapping[str, Facets]


@dataclass(frozen=True, slots=True)
class Core:
    """A core op and what must be so of which paths for it to do what is meant."""

    op: Op
    needs: Needs


_BLOCK = 4096
_ODD, _TAIL = 5000, 2000
"""An offset and a length that fit no block."""

_END = FILE_BYTES - _TAIL
_INSIDE = {"start": (0, _BLOCK), "middle": (_ODD, _BLOCK), "end": (_END, _TAIL)}
_BEYOND = {
    "append": (FILE_BYTES, _BLOCK),
    "extend": (_END, _BLOCK),
    "hole": (2 * FILE_BYTES, _BLOCK),
}
_WRITES = (*_INSIDE.values(), *_BEYOND.values())
_FIRST_WRITES = ((0, _BLOCK), (0, 1000))
"""To an empty file; btrfs puts the small one into the inode's item (max_inline of btrfs(5))."""

_DIRECT = (
    (0, _BLOCK),
    (_BLOCK, 2 * _BLOCK),
    (FILE_BYTES - _BLOCK, _BLOCK),
    (FILE_BYTES, _BLOCK),
    (FILE_BYTES - _BLOCK, 2 * _BLOCK),
    (2 * FILE_BYTES, _BLOCK),
)
_SHIFTS = ((0, _BLOCK), (_BLOCK, _BLOCK))
_ALLOCATING = ("alloc", "keep", "punch", "zero", "zero_keep")
_TRUNCATES = (0, 2 * _BLOCK, _ODD, FILE_BYTES + _ODD, 2 * FILE_BYTES)
_XATTR_BYTES = (32, 1000)
"""The second does not fit an inode of xfs (512 bytes)."""

_LONG_TARGET = "long" * 60
"""A link target that does not fit an inode of xfs."""


def core_ops(fs: str) -> tuple[Core, ...]:
    """Every core op on file system `fs`, over all names."""
    return tuple(_all(fs))


def _all(fs: str) -> Iterator[Core]:
    for path in FILES:
        yield from _data(fs, path)
        yield from _names(path)
    for source, target in permutations(FILES, 2):
        yield from _pairs(source, target)
    for path in (*FILES, *DIRECTORIES):
        yield from _attributes(path, DIR if path in DIRECTORIES else FILE)
    for path in DIRECTORIES:
        yield _core("mkdir", {path: ABSENT}, path=path)
        yield _core("rmdir", {path: DIR, **_vacant(path)}, path=path)
    for source, target in permutations(DIRECTORIES, 2):
        yield from _directory_pairs(source, target)


def _core(op: str, needs: Needs, /, **values: Value) -> Core:
    return Core(make_op(op, values), with_parents(needs))


def with_parents(needs: Needs) -> Needs:
    """A path inside a directory needs the directory, whether it is to be there or to be absent."""
    closed = {path.partition("/")[0]: DIR for path in needs if "/" in path}
    return closed | {path: closed.get(path, frozenset()) | facets for path, facets in needs.items()}


def _data(fs: str, path: str) -> Iterator[Core]:
    for offset, length in _WRITES:
        yield _core("write", {path: WRITTEN}, path=path, off=offset, len=length)
    for offset, length in _FIRST_WRITES:
        yield _core("write", {path: EMPTY}, path=path, off=offset, len=length)
    for offset, length in _DIRECT:
        yield _core("dwrite", {path: WRITTEN}, path=path, off=offset, len=length)
    yield _core("dwrite", {path: EMPTY}, path=path, off=0, len=_BLOCK)
    for offset, length in _INSIDE.values():
        yield _core("mwrite", {path: WRITTEN}, path=path, off=offset, len=length)
    for mode in _ALLOCATING:
        for offset, length in _WRITES:
            yield _core("fallocate", {path: WRITTEN}, path=path, off=offset, len=length, mode=mode)
        yield _core("fallocate", {path: EMPTY}, path=path, off=0, len=2 * _BLOCK, mode=mode)
    if fs == "xfs":
        # btrfs_fallocate() knows neither of them: EOPNOTSUPP.
        for mode in ("collapse", "insert", "unshare"):
            for offset, length in _SHIFTS:
                yield _core("fallocate", {path: WRITTEN}, path=path, off=offset, len=length, mode=mode)
    for size in _TRUNCATES:
        yield _core("truncate", {path: FILE}, path=path, size=size)


def _names(path: str) -> Iterator[Core]:
    yield _core("create", {path: ABSENT}, path=path)
    yield _core("unlink", {path: FILE}, path=path)
    for target in ("foo", _LONG_TARGET):
        yield _core("symlink", {path: ABSENT}, target=target, path=path)


def _pairs(source: str, target: str) -> Iterator[Core]:
    names: dict[str, Value] = {"from": source, "to": target}
    yield _core("link", {source: FILE, target: ABSENT}, **names)
    yield _core("rename", {source: FILE, target: ABSENT}, **names)
    yield _core("rename", {source: FILE, target: FILE}, **names)
    if source < target:
        yield _core("rename", {source: FILE, target: FILE}, **names, flags="exchange")


def _directory_pairs(source: str, target: str) -> Iterator[Core]:
    names: dict[str, Value] = {"from": source, "to": target}
    for inside in (_vacant(source), {f"{source}/foo": FILE}):
        yield _core("rename", {source: DIR, target: ABSENT, **inside}, **names)
        yield _core("rename", {source: DIR, target: DIR, **inside, **_vacant(target)}, **names)
    if source < target:
        yield _core("rename", {source: DIR, target: DIR}, **names, flags="exchange")


def _attributes(path: str, kind: Facets) -> Iterator[Core]:
    for size in _XATTR_BYTES:
        yield _core("setxattr", {path: kind | PLAIN}, path=path, name=XATTR, size=size)
    yield _core("setxattr", {path: kind | TAGGED}, path=path, name=XATTR)
    yield _core("removexattr", {path: kind | TAGGED}, path=path, name=XATTR)


def _vacant(directory: str) -> dict[str, Facets]:
    """What makes a directory empty."""
    return {path: ABSENT for path in FILES if path.startswith(f"{directory}/")}
