"""Mutations: new workloads made from existing ones. `mutate` is pure: the same random stream and seeds
give the same workload, byte for byte.

A mutation takes an actor of another seed in, puts another op in the place of one, moves an op to another
object, offset or size, puts a sync, an eviction or a name change between two ops, changes the mount, or
makes loops longer. What comes out is valid, and says which seeds it descends from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from fuzzer.errors import InputError
from fuzzer.workload import tables
from fuzzer.workload.model import SETUP, Actor, Draw, Op, Value, Workload, make_op
from fuzzer.workload.ops import OPS, WORD_BYTES, Kind, Param
from fuzzer.workload.options import FILE_SYSTEMS
from fuzzer.workload.validate import validate

T = TypeVar("T")

_TRIES = 20
_MOST_MUTATIONS = 4
_MAX_ACTORS = 8
_MAX_RUN_OPS = 1500
"""Ops all counted loops together may come to: what runs longer is a worse use of the time."""
_MAX_SYNCS = 40

_ALIKE: tuple[tuple[str, ...], ...] = (
    ("write", "dwrite", "awrite", "mwrite"),
    ("fsync", "fdatasync"),
    ("sync", "syncfs"),
    ("clone", "dedupe"),
    ("unlink", "evict"),
)
"""Ops that take the same required parameters, and other ways through the kernel."""

_SHIFTS = (-8192, -4096, -512, -8, 8, 512, 4096, 8192, 65536)

Mutation = Callable[[random.Random, Workload, Sequence[Workload]], Workload]


def mutate(rng: random.Random, seed: Workload, others: Sequence[Workload], fs: str) -> Workload:
    """`seed` on `fs` with one to four mutations; `others` are what actors are taken from.

    Falls back to fewer mutations if none of the tries is valid; InputError if `seed` itself is not.
    """
    start = replace(seed, fs=fs, seed=rng.getrandbits(32), kernels="", expect=(), sure="", why="", source="")
    validate(start)
    result = start
    for _ in range(rng.randint(1, _MOST_MUTATIONS)):
        result = _one(rng, result, others)
    return replace(result, title=f"mutation of {seed.title}"[:200].rstrip(" "))


def _one(rng: random.Random, workload: Workload, others: Sequence[Workload]) -> Workload:
    """One mutation that leaves a valid workload of bearable length; after some tries none."""
    for _ in range(_TRIES):
        weights = [weight for weight, _ in _MUTATIONS]
        mutation = rng.choices([one for _, one in _MUTATIONS], weights)[0]
        changed = mutation(rng, workload, others)
        if changed == workload or not _is_bearable(changed, workload):
            continue
        try:
            validate(changed)
        except InputError:
            continue
        return changed
    return workload


def _is_bearable(changed: Workload, before: Workload) -> bool:
    """True if it runs no longer than it may, or than it did before."""
    ops, syncs = _length(changed)
    ops_before, syncs_before = _length(before)
    return (
        len(changed.actors) <= max(_MAX_ACTORS, len(before.actors))
        and ops <= max(_MAX_RUN_OPS, ops_before)
        and syncs <= max(_MAX_SYNCS, syncs_before)
    )


def _length(workload: Workload) -> tuple[int, int]:
    """Ops, and durability points, of all counted loops."""
    counted = [actor for actor in workload.actors if actor.loop is not None]
    ops = sum((actor.loop or 0) * len(actor.ops) for actor in counted)
    syncs = sum((actor.loop or 0) * sum(op.is_durability_point for op in actor.ops) for actor in counted)
    return ops, syncs


# ------------------------------------------------------------------------------------- the mutations


def splice(rng: random.Random, workload: Workload, others: Sequence[Workload]) -> Workload:
    """Takes an actor of another seed in: on this workload's objects, or with the setup it had there."""
    fitting = [other for other in others if other.fs in ("", workload.fs) and other.actors]
    if not fitting:
        return workload
    donor = rng.choice(fitting)
    actor = rng.choice(donor.actors)
    brings_setup = rng.random() < 0.5
    known = _known(workload)
    renamed = (
        {} if brings_setup else dict(zip(_paths(actor.ops), rng.sample(known, len(known)), strict=False))
    )
    ops = tuple(_moved(op, renamed) for op in actor.ops if op.name != "barrier" and _runs_on(op, workload.fs))
    if not ops:
        return workload
    name = _free_name(workload, actor.name)
    loop = None if actor.loop is None and any(op.name == "sleep" for op in ops) else actor.loop or 8
    descends = " ".join(dict.fromkeys([*workload.descends.split(), *donor.descends.split()]))
    added = Actor(name, ops, loop, None, actor.sched)
    setup = (*workload.setup, *(op for op in donor.setup if brings_setup and _runs_on(op, workload.fs)))
    return replace(workload, setup=setup, actors=(*workload.actors, added), descends=descends)


def _other_op(rng: random.Random, workload: Workload, others: Sequence[Workload]) -> Workload:
    """The same op by another way: buffered, direct or mapped; fsync or fdatasync; punch or zero."""
    block, index, op = _pick(rng, workload, lambda op: True)
    for group in _ALIKE:
        if op.name in group:
            name = rng.choice([other for other in group if other != op.name])
            wanted = {param.name: param for param in OPS[name].params}
            given = {key: _rounded(wanted[key], value) for key, value in op.args if _fits(wanted, key, value)}
            return _with_op(workload, block, index, (make_op(name, given),))
    return _option(rng, workload, others)


def _option(rng: random.Random, workload: Workload, others: Sequence[Workload]) -> Workload:
    """Another choice of an op that has some."""
    block, index, op = _pick(rng, workload, lambda op: any(param.choices for param in op.spec.params))
    param = rng.choice([param for param in op.spec.params if param.choices] or [Param("", Kind.CHOICE)])
    if not param.choices:
        return workload
    return _with_op(workload, block, index, (_with_arg(op, param.name, rng.choice(param.choices)),))


def _object(rng: random.Random, workload: Workload, others: Sequence[Workload]) -> Workload:
    """One op on another object that the workload knows."""
    block, index, op = _pick(rng, workload, lambda op: bool(_paths((op,))))
    paths = [p.name for p in op.spec.params if p.kind is Kind.PATH]
    if not paths or block == SETUP:
        return workload
    key = rng.choice(paths)
    target = rng.choice([*_known(workload), "."] if op.name == "fsync" else _known(workload))
    return _with_op(workload, block, index, (_with_arg(op, key, target),))


def _number(rng: random.Random, workload: Workload, others: Sequence[Workload]) -> Workload:
    """An offset, a size or a count near to what it was, half or twice of it."""
    kinds = (Kind.BYTES, Kind.NUMBER)
    block, index, op = _pick(rng, workload, lambda op: any(p.kind in kinds for p in op.spec.params))
    params = [param for param in op.spec.params if param.kind in kinds and param.required]
    if not params:
        return workload
    param = rng.choice(params)
    value = op[param.name]
    change = rng.choice(("shift", "half", "twice", "draw"))
    return _with_op(workload, block, index, (_with_arg(op, param.name, _changed(rng, param, value, change)),))


def _insert(rng: random.Random, workload: Workload, others: Sequence[Workload]) -> Workload:
    """Something between two ops that decides what a log has: a sync, an eviction, another name."""
    if not workload.actors:
        return workload
    block = rng.randint(1, len(workload.actors))
    index = rng.randint(0, len(workload.block(block)))
    files = _known(workload)
    path = rng.choice(files)
    parent = path.rpartition("/")[0] or "."
    ops = rng.choice(
        (
            (make_op("sync"),),
            (make_op("fsync", {"path": path}),),
            (make_op("fsync", {"path": parent}),),
            (make_op("fsync", {"path": "."}),),
            (make_op("fdatasync", {"path": path}),),
            (make_op("evict", {"path": path}),),
            (make_op("drop_caches", {"level": rng.choice(("1", "2", "3"))}),),
            (make_op("sync_file_range", {"path": path, "off": 0, "len": 0}),),
            (make_op("link", {"from": path, "to": f"{path}-linked"}),),
            (make_op("rename", {"from": path, "to": f"{path}-x"}), make_op("create", {"path": path})),
            (make_op("truncate", {"path": path, "size": rng.choice((0, 4096, 65536, 3000))}),),
            (make_op("setxattr", {"path": path, "name": "m", "size": rng.choice((32, 1000, 3000))}),),
        )
    )
    old = workload.block(block)
    return _with_block(workload, block, (*old[:index], *ops, *old[index:]))


def _repeat(rng: random.Random, workload: Workload, others: Sequence[Workload]) -> Workload:
    """An actor's loop longer, or a part of its ops twice."""
    number = rng.randrange(len(workload.actors))
    actor = workload.actors[number]
    if actor.loop is not None and rng.random() < 0.6:
        return _with_actor(workload, number, replace(actor, loop=actor.loop * rng.choice((2, 3))))
    start = rng.randrange(len(actor.ops))
    end = rng.randint(start + 1, len(actor.ops))
    twice = tuple(op for op in actor.ops[start:end] if op.name != "barrier")
    return _with_actor(workload, number, replace(actor, ops=(*actor.ops[:end], *twice, *actor.ops[end:])))


def _drop(rng: random.Random, workload: Workload, others: Sequence[Workload]) -> Workload:
    """One op less; barriers stay, the others would wait."""
    block, index, op = _pick(rng, workload, lambda op: op.name != "barrier")
    if op.name == "barrier" or len(workload.block(block)) == 1:
        return workload
    return _with_op(workload, block, index, ())


def _file_system(rng: random.Random, workload: Workload, others: Sequence[Workload]) -> Workload:
    """Other options of mkfs or mount, of memory or of I/O held back, as generated workloads have them."""
    which = rng.choice(("mkfs", "mount", "memory", "delay"))
    if which == "delay":
        return replace(workload, delay=_weighted(rng, tables.DELAYS))
    if which == "mkfs" and "space_cache" in workload.mount:
        return workload  # The old cache cannot be had where mkfs made a free space tree.
    if which == "memory":
        return replace(workload, memory=_weighted(rng, tables.MEMORY_LIMITS))
    table = tables.MKFS if which == "mkfs" else tables.MOUNT
    text = _weighted(rng, table[workload.fs])
    return replace(workload, mkfs=text) if which == "mkfs" else replace(workload, mount=text)


_MUTATIONS: tuple[tuple[int, Mutation], ...] = (
    (6, splice),
    (4, _other_op),
    (2, _option),
    (4, _object),
    (4, _number),
    (6, _insert),
    (4, _repeat),
    (2, _drop),
    (2, _file_system),
)
"""(weight, mutation)."""


# ------------------------------------------------------------------------------------------ helpers


def _pick(rng: random.Random, workload: Workload, wanted: Callable[[Op], bool]) -> tuple[int, int, Op]:
    """A place of an op: rarely in the setup, and of those `wanted` if there are any."""
    places = [
        (block, index, op)
        for block in range(len(workload.actors) + 1)
        for index, op in enumerate(workload.block(block))
    ]
    actors = [place for place in places if place[0] != SETUP]
    pool = places if rng.random() < 0.15 else actors or places
    return rng.choice([place for place in pool if wanted(place[2])] or pool)


def _paths(ops: Sequence[Op]) -> list[str]:
    """The paths these ops name, in order of their first use, without the root."""
    found = (
        str(value)
        for op in ops
        for param, (_, value) in zip(op.spec.params, op.args, strict=True)
        if param.kind is Kind.PATH and value != "."
    )
    return list(dict.fromkeys(found))


def _known(workload: Workload) -> list[str]:
    return _paths(tuple(workload.iter_ops())) or ["a"]


def _moved(op: Op, renamed: dict[str, str]) -> Op:
    args = []
    for param, (key, value) in zip(op.spec.params, op.args, strict=True):
        is_path = param.kind is Kind.PATH and isinstance(value, str)
        args.append((key, renamed.get(str(value), value) if is_path else value))
    return Op(op.name, tuple(args))


def _runs_on(op: Op, fs: str) -> bool:
    return all(need == fs for need in op.spec.requires if need in FILE_SYSTEMS)


def _free_name(workload: Workload, wanted: str) -> str:
    taken = {actor.name for actor in workload.actors}
    number = 2
    name = wanted
    while name in taken:
        name = f"{wanted[:28]}-{number}"
        number += 1
    return name


def _fits(wanted: dict[str, Param], key: str, value: Value) -> bool:
    """True if the other op has this parameter and may take this choice."""
    return key in wanted and (not wanted[key].choices or value in wanted[key].choices)


def _rounded(param: Param, value: Value) -> Value:
    """A number as a multiple of the unit that the other op asks for."""
    if isinstance(value, Draw):
        step = max(param.unit, value.step // param.unit * param.unit)
        return Draw(value.low // param.unit * param.unit, value.high, step)
    if isinstance(value, int) and param.kind is Kind.BYTES:
        return max(param.low, value // param.unit * param.unit)
    return value


def _changed(rng: random.Random, param: Param, value: Value, change: str) -> Value:
    """Another value of the parameter, in its unit and not below its lowest."""
    number = value.high if isinstance(value, Draw) else int(value)
    unit = max(param.unit, WORD_BYTES if param.kind is Kind.BYTES else 1)
    if change == "shift":
        number += rng.choice(_SHIFTS) if param.kind is Kind.BYTES else rng.choice((-1, 1))
    elif change == "half":
        number //= 2
    elif change == "twice":
        number *= 2
    number = max(param.low, number // unit * unit)
    if change == "draw" and param.kind is Kind.BYTES and param.name in ("off", "size"):
        step = max(unit, 4096)
        return Draw(0, max(number, step) // step * step, step)
    return number


def _weighted(rng: random.Random, table: Sequence[tuple[int, T]]) -> T:
    return rng.choices([choice for _, choice in table], [weight for weight, _ in table])[0]


def _with_arg(op: Op, key: str, value: Value) -> Op:
    return Op(op.name, tuple((name, value if name == key else old) for name, old in op.args))


def _with_op(workload: Workload, block: int, index: int, ops: tuple[Op, ...]) -> Workload:
    old = workload.block(block)
    return _with_block(workload, block, (*old[:index], *ops, *old[index + 1 :]))


def _with_block(workload: Workload, block: int, ops: tuple[Op, ...]) -> Workload:
    if block == SETUP:
        return replace(workload, setup=ops)
    return _with_actor(workload, block - 1, replace(workload.actors[block - 1], ops=ops))


def _with_actor(workload: Workload, number: int, actor: Actor) -> Workload:
    return replace(workload, actors=(*workload.actors[:number], actor, *workload.actors[number + 1 :]))
