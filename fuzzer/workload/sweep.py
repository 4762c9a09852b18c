"""Sweep: all sequential workloads of one or two core ops, each followed by every sync call that may matter.

A workload of the sweep is a setup that makes what the ops need, one actor with core op, sync call (or
none), core op, sync call. The whole is a space with a fixed order, so a number names a workload and a
sample is a draw of numbers. Up to renaming `A` and `B`, and `foo` and `bar` in them, the first op
always works on `A/foo` or `A`.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from operator import itemgetter

from fuzzer.errors import InputError
from fuzzer.workload.model import Actor, Op, Workload, make_op
from fuzzer.workload.options import FILE_SYSTEMS
from fuzzer.workload.sweep_tables import (
    ABSENT,
    DIRECTORIES,
    EMPTY,
    FILE_BYTES,
    FILES,
    TAGGED,
    XATTR,
    Core,
    Facets,
    Needs,
    core_ops,
    with_parents,
)

LENGTHS = (1, 2)
"""Numbers of core ops a workload may have."""

World = dict[str, Facets]
"""What exists: facets by path. A path that is not there is absent."""

_EXCLUSIVE = (
    frozenset({"absent", "file", "dir"}),
    frozenset({"data", "empty"}),
    frozenset({"xattr", "plain"}),
)
_FIRST_NAMES = frozenset({"A", "B", "A/foo", "A/bar", "B/bar"})
"""Names of the first op. Its subject is `A/foo` or `A`; it moves or links to one of the others."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Workloads that have their core ops in common: they differ in sync calls, and in whether the setup
    is synced."""

    cores: tuple[Core, ...]
    wanted: Needs
    """What the setup makes."""
    syncs: tuple[tuple[Op | None, ...], ...]
    """Choices after each core op."""

    @property
    def count(self) -> int:
        product = 2
        for choices in self.syncs:
            product *= len(choices)
        return product

    def workload(self, number: int, fs: str) -> Workload:
        number, unsynced = divmod(number, 2)
        body: list[Op] = []
        for core, choices in zip(self.cores, self.syncs, strict=True):
            number, choice = divmod(number, len(choices))
            sync = choices[choice]
            body += [core.op] if sync is None else [core.op, sync]
        setup = _setup(self.wanted)
        if not unsynced:
            setup = (*setup, make_op("syncfs"))
        return Workload(fs=fs, setup=setup, actors=(Actor("one", tuple(body)),))


@dataclass(frozen=True)
class Space:
    """All workloads of `length` core ops for file system `fs`. InputError for one that is not known."""

    fs: str
    length: int

    def __post_init__(self) -> None:
        if self.fs not in FILE_SYSTEMS or self.length not in LENGTHS:
            raise InputError(f"no sweep of length {self.length} for {self.fs!r}")

    @cached_property
    def _pairs(self) -> tuple[tuple[tuple[Core, ...], int], ...]:
        """The core ops of each group, and the number of the first workload after it.

        Groups are made again when they are asked for: with all of them in memory, forks would be slow.
        """
        every = core_ops(self.fs)
        firsts = tuple(core for core in every if _is_first(core.op))
        pairs, end = [], 0
        for cores in product(firsts, *[every] * (self.length - 1)):
            group = _make_group(cores)
            if group is not None:
                end += group.count
                pairs.append((cores, end))
        return tuple(pairs)

    def __len__(self) -> int:
        return self._pairs[-1][1]

    def __getitem__(self, number: int) -> Workload:
        """Workload `number`, counted from 0."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        cores, end = self._pairs[bisect_right(self._pairs, number, key=itemgetter(1))]
        group = _make_group(cores)
        assert group is not None
        return group.workload(number - (end - group.count), self.fs)

    def sample(self, count: int, seed: int) -> Sequence[int]:
        """`count` different numbers, each as likely as any other; all in order if there are no more."""
        if count >= len(self):
            return range(len(self))
        rng = random.Random(f"sweep/{self.fs}/{self.length}/{seed}")
        return tuple(rng.sample(range(len(self)), count))


def _make_group(cores: tuple[Core, ...]) -> _Group | None:
    """The workloads with these core ops in this order; None if one cannot work after those before it."""
    wanted = cores[0].needs
    for count in range(2, len(cores) + 1):
        more = _before(cores[:count], wanted)
        if more is None:
            return None
        wanted = more
    world = _made(wanted)
    syncs: list[tuple[Op | None, ...]] = []
    for number, core in enumerate(cores, 1):
        world = _apply(core.op, world)
        syncs.append(_syncs(world) if number == len(cores) else (None, *_syncs(world)))
    return _Group(cores, wanted, tuple(syncs))


def _is_first(op: Op) -> bool:
    args = dict(op.args)
    names = [value for key, value in op.args if key in ("path", "from", "to")]
    return args.get("from", args.get("path")) in ("A", "A/foo") and set(names) <= _FIRST_NAMES


# ------------------------------------------------------------------------------------ what is needed


def _merge(wanted: Needs, more: Needs) -> Needs | None:
    """Both; None if they contradict each other."""
    merged = dict(wanted)
    for path, facets in more.items():
        merged[path] = merged.get(path, frozenset()) | facets
        if any(len(merged[path] & kinds) > 1 for kinds in _EXCLUSIVE):
            return None
    return merged


def _before(cores: tuple[Core, ...], wanted: Needs) -> Needs | None:
    """What is needed before all of `cores`, given what those but the last need; None if it cannot be."""
    needs = cores[-1].needs
    after = _after(cores, wanted)
    lacking = {path: facets for path, facets in needs.items() if not _is_met(after, path, facets)}
    merged = _merge(wanted, with_parents(lacking))
    if merged is None:
        return None
    after = _after(cores, merged)
    return merged if all(_is_met(after, path, facets) for path, facets in needs.items()) else None


def _after(cores: tuple[Core, ...], wanted: Needs) -> World:
    """The world before the last of `cores`."""
    world = _made(wanted)
    for core in cores[:-1]:
        world = _apply(core.op, world)
    return world


def _is_met(world: World, path: str, facets: Facets) -> bool:
    return path not in world if facets == ABSENT else facets <= world.get(path, frozenset())


def _made(wanted: Needs) -> World:
    """The world the setup makes: files have data, and nothing has an attribute, unless asked for."""
    world: World = {}
    for path, facets in wanted.items():
        if facets == ABSENT:
            continue
        made = facets if facets & {"xattr"} else facets | {"plain"}
        world[path] = made if made & {"dir", "empty"} else made | {"data"}
    return world


def _setup(wanted: Needs) -> tuple[Op, ...]:
    world = _made(wanted)
    ops: list[Op] = []
    for path in (*DIRECTORIES, *FILES):
        facets = world.get(path, ABSENT)
        if "dir" in facets:
            ops.append(make_op("mkdir", {"path": path}))
        if "file" in facets:
            ops.append(make_op("create", {"path": path}))
        if "data" in facets:
            ops.append(make_op("write", {"path": path, "off": 0, "len": FILE_BYTES}))
        if facets >= TAGGED:
            ops.append(make_op("setxattr", {"path": path, "name": XATTR}))
    return tuple(ops)


# ---------------------------------------------------------------------------------- what an op does


def _apply(op: Op, before: World) -> World:
    """The world after an op whose needs are met."""
    world = dict(before)
    if op.name in ("rename", "link"):
        _move(op, world)
        return world
    path = op.text("path")
    facets = world.pop(path, frozenset())
    if op.name == "create":
        world[path] = EMPTY | {"plain"}
    elif op.name == "mkdir":
        world[path] = frozenset({"dir", "plain"})
    elif op.name == "symlink":
        world[path] = frozenset({"symlink"})
    elif op.name not in ("unlink", "rmdir"):
        world[path] = _changed(op, facets)
    return world


def _move(op: Op, world: World) -> None:
    source, target = op.text("from"), op.text("to")
    if op.name == "link":
        world[target] = world[source]
        return
    moved = _take(world, source)
    replaced = _take(world, target)
    world.update({target + rest: facets for rest, facets in moved.items()})
    if op.text("flags") == "exchange":
        world.update({source + rest: facets for rest, facets in replaced.items()})


def _take(world: World, root: str) -> World:
    """Take a path and what is below it out of the world, by the rest of the path."""
    taken = {path: world[path] for path in world if path == root or path.startswith(f"{root}/")}
    for path in taken:
        del world[path]
    return {path[len(root) :]: facets for path, facets in taken.items()}


def _changed(op: Op, facets: Facets) -> Facets:
    """The facets of a path after an op on its data or attributes."""
    if op.name == "setxattr":
        return facets - {"plain"} | TAGGED
    if op.name == "removexattr":
        return facets - TAGGED | {"plain"}
    shrinks = op.name == "truncate" and op.number("size") < FILE_BYTES
    if shrinks or (op.name == "fallocate" and op.text("mode") == "collapse"):
        return facets - {"data", "empty"}
    return facets - {"empty"}


def _syncs(world: World) -> tuple[Op, ...]:
    """Every sync call on what exists, links and the root included. (A symbolic link cannot be synced.)"""
    return _sync_calls(
        tuple(bool(world.get(path, ABSENT) & {"dir", "file"}) for path in (*DIRECTORIES, *FILES))
    )


@cache
def _sync_calls(existing: tuple[bool, ...]) -> tuple[Op, ...]:
    """Shared by the many groups in which the same paths exist."""
    calls = [make_op("sync"), make_op("fsync", {"path": "."})]
    for path, exists in zip((*DIRECTORIES, *FILES), existing, strict=True):
        if exists:
            calls.append(make_op("fsync", {"path": path}))
        if exists and path in FILES:
            calls.append(make_op("fdatasync", {"path": path}))
    return tuple(calls)
