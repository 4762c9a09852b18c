"""Mixes: kinds of workloads one can ask the generator for. A new one is a row here.

A mix changes the tables of `tables.py`: how likely ops are, what actors like to do, how many there are.
What it does not mention stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fuzzer.workload import tables
from fuzzer.workload.ops import Role
from fuzzer.workload.options import FILE_SYSTEMS
from fuzzer.workload.scene import Table
from fuzzer.workload.tables import Temper

_NO_LIMIT: Table[int] = ((1, 0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How the workloads of a mix are drawn."""

    name: str
    summary: str
    likelier: Mapping[str, int] = field(default_factory=dict)
    """Factors of the weights of ops; 0: never."""
    filesystems: tuple[str, ...] = FILE_SYSTEMS
    tempers: Table[Temper] = tables.TEMPERS
    actors: Table[int] = tables.ACTORS
    loops: Table[int] = tables.LOOPS
    budgets: Table[tuple[int, int]] = tables.BUDGETS
    sequential_percent: int = 10
    environment_percent: int = 60
    memory_limits: Table[int] = tables.MEMORY_LIMITS
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Device size by file system, bytes; otherwise the default."""
    fills: bool = False
    """Whether the setup fills the device nearly up."""


def _likes(name: str, *roles: tuple[int, Role], sync_every: tuple[int, int] = (2, 5)) -> Table[Temper]:
    return ((1, Temper(name, roles, sync_every)),)


_WRITER = _likes("writer", (16, Role.DATA), (1, Role.ATTRIBUTES))

ANY = Mix(name="any", summary="everything, as the tables have it")

_MIXES = (
    ANY,
    Mix(
        name="sequential-small",
        summary="one actor, few ops: what is wrong without any race",
        sequential_percent=100,
        budgets=((1, (3, 8)),),
        loops=((1, 1),),
    ),
    Mix(
        name="fsync-storm",
        summary="many actors, a sync call every other op",
        tempers=_likes("syncer", (3, Role.DATA), (2, Role.NAMES), sync_every=(1, 2)),
        actors=((1, 3), (2, 4)),
        loops=((1, 3), (1, 5)),
        likelier={"fsync": 3, "fdatasync": 2, "freeze": 0},
        sequential_percent=0,
    ),
    Mix(
        name="namespace",
        summary="names come, go and move; little data",
        tempers=_likes("namer", (16, Role.NAMES), (1, Role.DATA), (1, Role.ATTRIBUTES)),
        likelier={"rename": 2, "link": 2},
    ),
    Mix(
        name="direct-io",
        summary="O_DIRECT beside buffered I/O and mappings of the same files",
        tempers=_WRITER,
        likelier={"dwrite": 12, "read": 3, "fault_write": 0, "clone": 0, "dedupe": 0},
        sequential_percent=0,
    ),
    Mix(
        name="mmap",
        summary="stores through mappings, msync, and what takes the pages away",
        tempers=_WRITER,
        likelier={"mwrite": 12, "msync": 6, "fault_write": 2, "dwrite": 2, "evict": 4, "drop_caches": 2},
        sequential_percent=0,
    ),
    Mix(
        name="reflink",
        summary="clones, copies and dedupes of what is being written",
        tempers=_WRITER,
        likelier={"clone": 8, "copy_range": 8, "dedupe": 8, "fallocate": 2},
    ),
    Mix(
        name="balance",
        summary="btrfs balance, and its control, beside everything else",
        filesystems=("btrfs",),
        likelier={
            **dict.fromkeys(tables.names_of(Role.ENVIRONMENT), 0),
            **{"balance": 4, "balance_ctl": 6, "scrub": 1, "resize": 1, "defrag": 1},
        },
        sequential_percent=0,
        environment_percent=100,
        memory_limits=_NO_LIMIT,
    ),
    Mix(
        name="memory-pressure",
        summary="a small memory cgroup, reclaim and dropped caches",
        likelier={
            **dict.fromkeys(tables.names_of(Role.ENVIRONMENT), 0),
            **{"reclaim": 2, "squeeze": 3, "drop_caches": 1, "evict": 1, "compact": 2, "knob": 1},
        },
        sequential_percent=0,
        environment_percent=100,
        memory_limits=((1, 64 << 20), (1, 32 << 20)),
    ),
    Mix(
        name="enospc",
        summary="a small device that is nearly full",
        likelier={"write": 2, "fallocate": 3, "unlink": 2, "truncate": 2},
        sizes={"btrfs": 160 << 20, "xfs": 300 << 20},
        fills=True,
    ),
)

MIXES: dict[str, Mix] = {mix.name: mix for mix in _MIXES}
"""Every mix by its name."""
