"""Makes workloads: `generate(seed, index, fs)` is pure, so the three arguments are all a repeat needs.

What is likely is in `tables.py`, what an op can sensibly refer to in `scene.py`; here is the order in
which the pieces are put together.
"""

from __future__ import annotations

import random
from dataclasses import replace

from fuzzer.errors import InputError
from fuzzer.workload import tables
from fuzzer.workload.model import Actor, Op, Value, Workload, make_op
from fuzzer.workload.ops import Role
from fuzzer.workload.options import FILE_SYSTEMS
from fuzzer.workload.scene import FILES, Scene
from fuzzer.workload.tables import Row, Temper
from fuzzer.workload.validate import validate

_SEQUENTIAL_PERCENT = 10
_ENVIRONMENT_PERCENT = 60
_BARRIER_PERCENT = 20


def generate(seed: int, index: int, fs: str) -> Workload:
    """Workload number `index` of campaign `seed` for file system `fs`; InputError for another fs."""
    if fs not in FILE_SYSTEMS:
        raise InputError(f"no workloads for {fs!r}", hint=f"known: {', '.join(FILE_SYSTEMS)}")
    rng = random.Random(f"{seed}/{index}/{fs}")
    scene = Scene(rng, fs)
    setup = _setup(scene)
    sequential = scene.chance(_SEQUENTIAL_PERCENT)
    counted = _actors(scene, 1 if sequential else scene.pick(tables.ACTORS))
    if not sequential and scene.chance(_BARRIER_PERCENT):
        counted = _with_barrier(scene, counted)
    environment = _environment(scene) if not sequential and scene.chance(_ENVIRONMENT_PERCENT) else ()
    workload = Workload(
        title=f"generated {seed}/{index}/{fs}",
        fs=fs,
        mkfs=scene.pick(tables.MKFS[fs]),
        mount=scene.pick(tables.MOUNT[fs]),
        memory=scene.pick(tables.MEMORY_LIMITS) if environment else 0,
        seed=rng.getrandbits(32),
        setup=setup,
        actors=(*counted, *environment),
    )
    validate(workload)
    return workload


def _make(scene: Scene, row: Row) -> Op:
    values: dict[str, Value] = {}
    for part in row.parts:
        values |= part(scene)
    op = make_op(row.name, values)
    scene.apply(op)
    return op


def _row(scene: Scene, role: Role) -> Row:
    return scene.pick(
        [(row.weight, row) for row in tables.ROWS if row.role is role and row.runs_on(scene.fs)]
    )


# ----------------------------------------------------------------------------------------- setup


def _setup(scene: Scene) -> tuple[Op, ...]:
    ops: list[Op] = []

    def add(op: str, /, **values: Value) -> None:
        ops.append(make_op(op, values))
        scene.apply(ops[-1])

    for directory, percent in (("d", 85), ("e", 35)):
        if scene.chance(percent):
            add("mkdir", path=directory)
    names = [n for n in FILES[1:] if "/" not in n or n.partition("/")[0] in scene.directories]
    for path in ("a", *scene.rng.sample(names, min(len(names), scene.rng.randrange(1, 4)))):
        add("create", path=path)
        size = scene.pick(tables.FILE_SIZES)
        size = max(0, size + scene.rng.choice((0, 0, 0, 8, -8, 512, 4096))) if size else 0
        fill = scene.pick(tables.FILLS)
        if size and fill == "truncate":
            add("truncate", path=path, size=size)
        elif size:
            add(fill, path=path, off=0, len=size)
    if scene.chance(60):
        add("setxattr", path=scene.file(), name="x")
    if scene.chance(25):
        ops.append(_make(scene, _row(scene, Role.NAMES)))
    return (*ops, *_setup_end(scene))


def _setup_end(scene: Scene) -> tuple[Op, ...]:
    ops: list[Op] = []
    for end in scene.pick(tables.SETUP_ENDS):
        if end == "fsync":
            ops += [make_op("fsync", {"path": path}) for path in scene.sizes]
        else:
            ops.append(make_op(end))
    return tuple(ops)


# ---------------------------------------------------------------------------------------- actors


def _actors(scene: Scene, count: int) -> tuple[Actor, ...]:
    low, high = scene.pick(tables.BUDGETS)
    budget = scene.rng.randint(low, high)
    actors = []
    for number in range(1, count + 1):
        loop = scene.pick(tables.LOOPS)
        temper = scene.pick(tables.TEMPERS)
        length = max(1, round(budget / count / loop))
        ops = _body(scene.fork(loop), temper, length)
        actors.append(Actor(f"{temper.name}-{number}", ops, loop))
    return _with_sync(scene, tuple(actors))


def _body(scene: Scene, temper: Temper, length: int) -> tuple[Op, ...]:
    every = scene.rng.randint(*temper.sync_every)
    before = list(scene.sizes)
    ops = []
    for _ in range(length):
        role = Role.SYNC if scene.rng.randrange(every) == 0 else scene.pick(temper.roles)
        ops.append(_make(scene, _row(scene, role)))
    if scene.loop > 1:
        # The next time around should find what this one found.
        gone = [path for path in before if path not in scene.sizes]
        ops += [make_op("create", {"path": path}) for path in gone[:2]]
    return tuple(ops)


def _with_sync(scene: Scene, actors: tuple[Actor, ...]) -> tuple[Actor, ...]:
    """Without any sync call nothing is promised and the run would test little."""
    if any(op.is_durability_point for actor in actors for op in actor.ops):
        return actors
    last = make_op("fsync", {"path": scene.file()})
    return (replace(actors[0], ops=(*actors[0].ops, last)), *actors[1:])


def _with_barrier(scene: Scene, actors: tuple[Actor, ...]) -> tuple[Actor, ...]:
    """One barrier in every actor that loops as often as the first: they meet once per iteration."""
    barrier = make_op("barrier", {"name": "go"})
    met = [actor.loop == actors[0].loop for actor in actors]
    if sum(met) < 2:
        return actors
    changed = []
    for actor, meets in zip(actors, met, strict=True):
        at = scene.rng.randrange(len(actor.ops))
        ops = (*actor.ops[:at], barrier, *actor.ops[at:]) if meets else actor.ops
        changed.append(replace(actor, ops=ops))
    return tuple(changed)


def _environment(scene: Scene) -> tuple[Actor, ...]:
    """An actor that works on the machine, not on files. It sleeps, or it would take a CPU for itself."""
    ops = [_make(scene, _row(scene, Role.ENVIRONMENT)) for _ in range(scene.pick(((3, 1), (1, 2))))]
    ops.append(make_op("sleep", {"us": scene.rng.randint(1, 50) * 100}))
    return (Actor("environment", tuple(ops), None),)
