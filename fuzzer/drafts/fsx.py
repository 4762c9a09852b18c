"""Op logs of fsx (fstests, ltp/fsx.c: logdump, --replay-ops): one op of one file a line, numbers in hex."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fuzzer.drafts.draft import Draft, Rounder, Unread, op
from fuzzer.errors import InputError
from fuzzer.workload.model import Actor, Op, Workload

_LINE = re.compile(r"(skip )?([a-z_]+)((?: 0x[0-9a-f]{1,8}){0,4})((?: [a-z_*]+)*)")
_FLAGS = frozenset({"keep_size", "close_open", "unshare", "*"})
"""`close_open` is a close, which promises nothing; `*` marks ops near the place fsx complained of."""

_FILE = "a"
_RANGES = {"punch_hole": "punch", "collapse_range": "collapse", "insert_range": "insert"}
_COPIES = {"clone_range": "clone", "dedupe_range": "dedupe", "copy_range": "copy_range"}
_WRITES = frozenset({"write", "write_dontcache", "write_atomic"})
_READS = frozenset({"read", "read_dontcache", "mapread"})


def is_fsx(lines: Sequence[str]) -> bool:
    """True if most of the first lines are those of an op log."""
    some = [line for line in lines[:50] if line.strip() and not line.startswith("#")]
    hits = sum(bool((match := _LINE.fullmatch(line.strip())) and match[3]) for line in some)
    return bool(some) and hits * 2 > len(some)


def read_fsx(lines: Sequence[str], name: str) -> Draft:
    """The workload of an op log; InputError if it has no ops."""
    ops: list[Op] = []
    unread: list[Unread] = []
    rounder = Rounder()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            ops += _ops(text, rounder)
        except (ValueError, IndexError):
            unread.append(Unread(number, text))
    if not ops:
        raise InputError("no fsx ops", place=f"{name}:{len(lines)}")
    if not any(made.is_durability_point for made in ops):
        ops.append(op("fsync", _FILE))
    workload = Workload(
        title=f"fsx op log {name}"[:200],
        source="fstests fsx op log",
        setup=(op("create", _FILE), op("sync")),
        actors=(Actor("fsx", tuple(ops)),),
    )
    return Draft(name, workload, tuple(unread), rounder.told())


def _ops(text: str, rounder: Rounder) -> Iterator[Op]:
    """The ops of one line; ValueError or IndexError if it is none."""
    match = _LINE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    name, flags = match[2], set(match[4].split())
    if not flags <= _FLAGS:
        raise ValueError(text)
    numbers = [int(word, 16) for word in match[3].split()]
    if match[1]:
        return
    if name == "fsync":
        yield op("fsync", _FILE)
    elif name == "truncate":
        yield op("truncate", _FILE, rounder.down(numbers[1]))
    elif name in _COPIES:
        yield from _copy(_COPIES[name], numbers, rounder)
    else:
        yield from _range(name, numbers, flags, rounder)


def _range(name: str, numbers: list[int], flags: set[str], rounder: Rounder) -> Iterator[Op]:
    off, length, size = numbers[:3]
    if length == 0:
        return
    if name in ("collapse_range", "insert_range"):
        yield op("fallocate", _FILE, rounder.block(off), rounder.length(length, 4096), mode=_RANGES[name])
        return
    off, length = rounder.down(off), rounder.length(length)
    keep = "keep_size" in flags
    if name in _WRITES:
        yield op("write", _FILE, off, length)
    elif name in _READS:
        yield op("read", _FILE, off, length)
    elif name == "mapwrite":
        # fsx makes the file as long as that first: a mapping cannot.
        if off + length > size // 8 * 8:
            yield op("truncate", _FILE, off + length)
        yield op("mwrite", _FILE, off, length, msync="sync")
    elif name == "fallocate":
        mode = "unshare" if "unshare" in flags else "keep" if keep else "alloc"
        yield op("fallocate", _FILE, off, length, mode=mode)
    elif name == "zero_range":
        yield op("fallocate", _FILE, off, length, mode="zero_keep" if keep else "zero")
    elif name == "punch_hole":
        yield op("fallocate", _FILE, off, length, mode="punch")
    else:
        raise ValueError(name)


def _copy(name: str, numbers: list[int], rounder: Rounder) -> Iterator[Op]:
    """fsx clones, dedupes and copies inside its one file: from, length, to."""
    src, length, dest = numbers[:3]
    down = rounder.down if name == "copy_range" else rounder.block
    src, length, dest = down(src), down(length), down(dest)
    if length:
        yield op(name, _FILE, _FILE, src, dest, length)
