"""The actors a draft is composed of: for each part of a race what it does, to which objects, and how often.

All of them meet on one file: in a directory if names take part in the race, large if pages are to be
released, since btrfs drops extent maps only of files above 16 MiB (fs/btrfs/extent_io.c,
try_release_extent_mapping).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fuzzer.drafts.draft import op
from fuzzer.workload.model import Actor, Draw, Op, Workload

_KIB, _MIB = 1 << 10, 1 << 20
_NAME_PARTS = frozenset({"rename", "link", "unlink"})
_WRITERS = frozenset({"write", "direct", "mmap", "append", "failing", "dsync"})
_LOG_PARTS = frozenset({"fsync", "msync", "dsync"})


@dataclass(frozen=True, slots=True)
class _Stage:
    """What the actors have in common: the file, its size, and who else is there."""

    fs: str
    parts: frozenset[str]
    path: str
    size: int

    def at(self, length: int, unit: int = 4 * _KIB) -> Draw:
        """An offset drawn anew each time, so that `length` stays inside the file."""
        return Draw(0, self.size - length, unit)


_Body = Callable[[_Stage], tuple[Op, ...]]


@dataclass(frozen=True, slots=True)
class _Part:
    """An actor: `loop=None` goes on until the others have ended."""

    body: _Body
    loop: int | None = 8
    fs: str = ""


def _fsync(s: _Stage) -> tuple[Op, ...]:
    first = () if s.parts & _WRITERS else (op("write", s.path, s.at(4 * _KIB), 4 * _KIB),)
    names = (op("fsync", "d"),) if s.parts & _NAME_PARTS else ()
    return (*first, op("fsync", s.path), *names)


def _commit(s: _Stage) -> tuple[Op, ...]:
    return (op("sleep", Draw(1000, 8000, 500)), op("sync"))


def _writeback(s: _Stage) -> tuple[Op, ...]:
    write = () if s.parts & _WRITERS else (op("write", s.path, s.at(64 * _KIB), 64 * _KIB),)
    return (*write, op("sync_file_range", s.path, 0, 0))


def _release(s: _Stage) -> tuple[Op, ...]:
    reclaim = () if "metadata" in s.parts else (op("reclaim", bytes=4 * _MIB),)
    return (*reclaim, op("drop_caches", level="1"), op("sleep", Draw(100, 2000, 100)))


def _range(mode: str, length: int) -> _Body:
    def body(s: _Stage) -> tuple[Op, ...]:
        change = op("fallocate", s.path, s.at(length), length, mode=mode)
        back = {"collapse": "insert", "insert": "collapse"}
        if mode not in back:
            return (change, op("sleep", Draw(0, 500, 50)))
        return (change, op("fallocate", s.path, s.at(length), length, mode=back[mode]))

    return body


def _truncate(s: _Stage) -> tuple[Op, ...]:
    return (op("truncate", s.path, s.at(4 * _KIB)), op("truncate", s.path, s.size))


def _rename(s: _Stage) -> tuple[Op, ...]:
    return (op("rename", s.path, "d/moved"), op("rename", "d/moved", s.path))


def _link(s: _Stage) -> tuple[Op, ...]:
    return (op("link", s.path, "d/linked"), op("fsync", "e/other"), op("unlink", "d/linked"))


def _unlink(s: _Stage) -> tuple[Op, ...]:
    made = op("create", "d/made"), op("write", "d/made", 0, 4 * _KIB), op("fsync", "d/made")
    return (*made, op("unlink", "d/made"), op("fsync", "e/other"))


def _snapshot(s: _Stage) -> tuple[Op, ...]:
    return (op("snapshot", ".", "snap"), op("sleep", 500), op("subvol_delete", "snap"))


def _subvolume(s: _Stage) -> tuple[Op, ...]:
    return (
        op("subvol_create", "sub"),
        op("create", "sub/f"),
        op("fsync", "sub/f"),
        op("subvol_delete", "sub"),
    )


def _append(s: _Stage) -> tuple[Op, ...]:
    return (
        op("write", s.path, s.size, 1000),
        op("write", s.path, s.size + 1000, 3000),
        op("sync_file_range", s.path, 0, 0),
        op("truncate", s.path, s.size),
    )


def _clone(s: _Stage) -> tuple[Op, ...]:
    length = 128 * _KIB
    return (
        op("clone", s.path, "shared", s.at(length), 0, length),
        op("clone", "shared", s.path, 0, s.at(length), length),
    )


def _dedupe(s: _Stage) -> tuple[Op, ...]:
    return (op("clone", s.path, "shared", 0, 0, 128 * _KIB), op("dedupe", s.path, "shared", 0, 0, 64 * _KIB))


def _xattr(s: _Stage) -> tuple[Op, ...]:
    return (op("setxattr", s.path, "one", size=1000), op("removexattr", s.path, "one"))


_PARTS: dict[str, _Part] = {
    "write": _Part(lambda s: (op("write", s.path, s.at(4 * _KIB), 4 * _KIB),) * 3, 20),
    "direct": _Part(lambda s: (op("dwrite", s.path, s.at(4 * _KIB), 4 * _KIB),) * 2, 30),
    "mmap": _Part(lambda s: (op("mwrite", s.path, s.at(64 * _KIB), 64 * _KIB, msync="async"),), 30),
    "failing": _Part(lambda s: (op("fault_write", s.path, s.at(256 * _KIB), 256 * _KIB, 4096),), 40),
    "append": _Part(_append, 10),
    "fsync": _Part(_fsync, 8),
    "dsync": _Part(lambda s: (op("write", s.path, s.at(4 * _KIB), 4 * _KIB, sync="dsync"),), 10),
    "msync": _Part(
        lambda s: (op("mwrite", s.path, s.at(64 * _KIB), 64 * _KIB), op("msync", s.path, 0, s.size // 2))
    ),
    "commit": _Part(_commit, 4),
    "writeback": _Part(_writeback, 30),
    "release": _Part(_release, None),
    "evict": _Part(lambda s: (op("evict", s.path), op("sleep", Draw(200, 3000, 100))), None),
    "balance": _Part(
        lambda s: (op("sleep", Draw(1000, 50000, 1000)), op("balance", type="data")), 2, "btrfs"
    ),
    "punch": _Part(_range("punch", 64 * _KIB), 16),
    "zero": _Part(_range("zero", 64 * _KIB), 16),
    "fallocate": _Part(_range("alloc", 256 * _KIB), 16),
    "collapse": _Part(_range("collapse", 64 * _KIB), 10, "xfs"),
    "insert": _Part(_range("insert", 64 * _KIB), 10, "xfs"),
    "unshare": _Part(_range("unshare", 64 * _KIB), 10, "xfs"),
    "truncate": _Part(_truncate, 12),
    "readahead": _Part(
        lambda s: (op("look", s.path, how="readahead"), op("read", s.path, s.at(64 * _KIB), 64 * _KIB)), 60
    ),
    "read": _Part(lambda s: (op("read", s.path, s.at(64 * _KIB), 64 * _KIB),), 80),
    "metadata": _Part(
        lambda s: (
            op("look", "d", how="stat"),
            op("look", s.path, how="fiemap"),
            op("read", s.path, s.at(64 * _KIB), 64 * _KIB),
        ),
        60,
    ),
    "clone": _Part(_clone, 12),
    "dedupe": _Part(_dedupe, 12),
    "rename": _Part(_rename, 16),
    "link": _Part(_link, 6),
    "unlink": _Part(_unlink, 5),
    "snapshot": _Part(_snapshot, 4, "btrfs"),
    "subvolume": _Part(_subvolume, 4, "btrfs"),
    "send": _Part(lambda s: (op("send", "sent"),), 6, "btrfs"),
    "scrub": _Part(lambda s: (op("scrub"),), 4, "btrfs"),
    "defrag": _Part(lambda s: (op("defrag", s.path), op("sleep", 1000)), 6, "btrfs"),
    "quota": _Part(lambda s: (op("quota", action="rescan"), op("sleep", 2000)), 4, "btrfs"),
    "trim": _Part(lambda s: (op("fstrim"), op("sleep", 1000)), 6),
    "freeze": _Part(lambda s: (op("freeze"), op("sleep", 3000)), 4),
    "xattr": _Part(_xattr, 10),
}
"""Every part that `clues.PARTS` may find."""


def compose(
    fs: str,
    parts: tuple[str, ...],
    options: frozenset[str],
    *,
    title: str,
    why: str,
    source: str,
    expect: tuple[str, ...],
) -> Workload:
    """A workload with an actor for each part that runs on `fs`, and what the options ask for."""
    present = frozenset(part for part in parts if _PARTS[part].fs in ("", fs))
    stage = _Stage(fs, present, "d/a", _size(present))
    actors = [Actor(part, _PARTS[part].body(stage), _PARTS[part].loop) for part in parts if part in present]
    if not present & _WRITERS and not present & _LOG_PARTS:
        actors.insert(0, Actor("writer", (*_PARTS["write"].body(stage), op("fsync", stage.path)), 6))
    elif not present & _LOG_PARTS:
        # Without a sync call there is no promise, and little to judge.
        actors.append(Actor("syncer", (op("sleep", Draw(500, 5000, 500)), op("fsync", stage.path)), 5))
    mkfs, mount = _options(fs, present, options)
    workload = Workload(
        title=title,
        why=why,
        source=source,
        kernels="unknown",
        expect=expect,
        sure="not yet; a draft",
        fs=fs,
        mkfs=mkfs,
        mount=mount,
        setup=_setup(stage, options),
        actors=tuple(actors),
    )
    return replace(workload, memory=32 * _MIB) if "memory" in options else workload


def _size(parts: frozenset[str]) -> int:
    """Bytes of the file all meet on."""
    if "metadata" in parts:
        return 24 * _MIB
    return 20 * _MIB if "release" in parts else 4 * _MIB if "balance" in parts else _MIB


def _setup(stage: _Stage, options: frozenset[str]) -> tuple[Op, ...]:
    filled = stage.size if "metadata" in stage.parts else min(stage.size, 2 * _MIB)
    ops = [op("mkdir", "d"), op("create", stage.path)]
    if "balance" in stage.parts or "fallocate" in stage.parts:
        ops.append(op("fallocate", stage.path, 0, stage.size))
    ops += [op("truncate", stage.path, stage.size), op("write", stage.path, 0, filled)]
    if stage.parts & {"clone", "dedupe", "unshare"}:
        ops += [op("create", "shared"), op("clone", stage.path, "shared", 0, 0, 512 * _KIB)]
    if stage.parts & {"link", "unlink"}:
        ops += [op("mkdir", "e"), op("create", "e/other")]
    if "send" in stage.parts:
        ops.append(op("snapshot", ".", "sent", access="ro"))
    if "quota" in stage.parts:
        ops.append(op("quota"))
    if "full" in options:
        ops += [op("create", "full"), op("fallocate", "full", 0, 100 * _MIB)]
    # The first fsync of an inode logs all of it; only later ones take the fast way.
    return (*ops, op("fsync", stage.path), op("sync"))


def _options(fs: str, parts: frozenset[str], options: frozenset[str]) -> tuple[str, str]:
    """Options of mkfs and mount."""
    mkfs: list[str] = []
    mount: list[str] = []
    if fs == "xfs":
        mkfs += ["-b size=1024"] if "one-block" in options else []
        mkfs += ["-m rmapbt=1"] if "rmap" in options else []
        return " ".join(mkfs), ""
    mkfs += ["-n 4K"] if "small-nodes" in options else []
    mkfs += ["-m single"] if "balance" in parts else []
    mkfs += ["-O ^no-holes"] if "holes" in options else ["-O no-holes"] if "no-holes" in options else []
    mount += ["nodatacow"] if "nocow" in options else ["compress=zstd"] if "compress" in options else []
    if parts & _LOG_PARTS and "commit" not in parts:
        mount.append("commit=300")  # A commit in the background would end the log that the race is in.
    return " ".join(mkfs), ",".join(mount)
