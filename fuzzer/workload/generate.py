"""Makes workloads: `generate(seed, index, fs, mix)` is pure, so its arguments are all a repeat needs.

What is likely is in `tables.py` and `mixes.py`, what an op can sensibly refer to in `scene.py`; here is
the order in which the pieces are put together.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fuzzer.errors import InputError
from fuzzer.workload import tables
from fuzzer.workload.mixes import ANY, MIXES, Mix
from fuzzer.workload.model import SCHED_POLICIES, Actor, Op, Value, Workload, make_op
from fuzzer.workload.ops import Role
from fuzzer.workload.options import FILE_SYSTEMS
from fuzzer.workload.scene import FILES, Scene
from fuzzer.workload.tables import Row, Temper
from fuzzer.workload.validate import validate

_BARRIER_PERCENT = 20
_CROWD_PERCENT = 4
_MEETINGS = 4
"""How often a pair of ops meets."""


def generate(seed: int, index: int, fs: str, mix: str = ANY.name, pair: str = "") -> Workload:
    """Workload number `index` of campaign `seed` for file system `fs`; InputError for another fs, or one
    the mix is not for.

    `pair`, such as `fsync+write`: two more actors meet again and again, each to do one of these to one file.
    """
    if fs not in FILE_SYSTEMS:
        raise InputError(f"no workloads for {fs!r}", hint=f"known: {', '.join(FILE_SYSTEMS)}")
    chosen = find_mix(mix, fs)
    rng = random.Random(f"{seed}/{index}/{fs}" if chosen is ANY else f"{seed}/{index}/{fs}/{mix}")
    scene = Scene(rng, fs)
    scene.exchanges = fs == "xfs" and scene.chance(tables.EXCHANGES_PERCENT)
    workload = _Maker(scene, chosen).workload(f"generated {seed}/{index}/{fs}", pair)
    validate(workload)
    return workload


def find_mix(name: str, fs: str) -> Mix:
    """The mix of that name; InputError if there is none, or it has nothing for `fs`."""
    mix = MIXES.get(name)
    if mix is None:
        raise InputError(f"no mix {name!r}", hint=f"known: {', '.join(MIXES)}")
    if fs not in mix.filesystems:
        raise InputError(f"mix {name} is not for {fs}", hint=f"add --fs {mix.filesystems[0]}")
    return mix


@dataclass(frozen=True, slots=True)
class _Maker:
    """Puts a workload together. `scene` is that of the setup; each actor's ops have a fork of it."""

    scene: Scene
    mix: Mix

    def workload(self, title: str, pair: str = "") -> Workload:
        scene, mix = self.scene, self.mix
        setup = self._setup()
        sequential = scene.chance(mix.sequential_percent)
        counted = self._actors(1 if sequential else scene.pick(mix.actors))
        if not sequential and scene.chance(_BARRIER_PERCENT):
            counted = _with_barrier(scene, counted)
        if pair:
            title = f"{title} with {pair}"
            counted = (*counted, *self._meeting(*pair.split("+")))
        environment = () if sequential or not scene.chance(mix.environment_percent) else self._environment()
        everybody = (*counted, *environment)
        if scene.fs == "btrfs" and any(op.name == "balance" for actor in everybody for op in actor.ops):
            counted = tuple(_never_read_only(actor) for actor in counted)
        if not sequential:
            counted = _scheduled(scene, counted)
        grows = any(op.name == "growfs" for actor in (*counted, *environment) for op in actor.ops)
        return Workload(
            title=title if mix is ANY else f"{title} {mix.name}",
            fs=scene.fs,
            size=mix.sizes.get(scene.fs, Workload().size),
            mkfs=_mkfs(scene, grows),
            mount=scene.pick(tables.MOUNT[scene.fs]),
            memory=scene.pick(mix.memory_limits) if environment else 0,
            delay="" if sequential else scene.pick(tables.DELAYS),
            seed=scene.rng.getrandbits(32),
            setup=setup,
            actors=(*counted, *environment),
        )

    def _op(self, scene: Scene, role: Role) -> Op:
        """An op of the role, by the weights of the tables and the mix."""
        weighted = [
            (row.weight * self.mix.likelier.get(row.name, 1), row)
            for row in tables.ROWS
            if row.role is role and row.runs_on(scene.fs) and row.needs(scene)
        ]
        return make(scene, scene.pick(weighted))

    def _setup(self) -> tuple[Op, ...]:
        scene = self.scene
        ops = [*_first_files(scene), *_extra(scene)]
        if scene.chance(25):
            ops.append(self._op(scene, Role.NAMES))
        if self.mix.fills:
            ops += _fill()
        return (*ops, *_setup_end(scene))

    def _actors(self, count: int) -> tuple[Actor, ...]:
        scene, mix = self.scene, self.mix
        low, high = scene.pick(mix.budgets)
        budget = scene.rng.randint(low, high)
        actors = []
        for number in range(1, count + 1):
            loop = scene.pick(mix.loops)
            temper = scene.pick(mix.tempers)
            length = max(1, round(budget / count / loop))
            ops = self._body(scene.fork(loop), temper, length)
            actors.append(Actor(f"{temper.name}-{number}", ops, loop))
        return _with_sync(scene, tuple(actors))

    def _body(self, scene: Scene, temper: Temper, length: int) -> tuple[Op, ...]:
        every = scene.rng.randint(*temper.sync_every)
        before = list(scene.sizes)
        ops = []
        for _ in range(length):
            role = Role.SYNC if scene.rng.randrange(every) == 0 else scene.pick(temper.roles)
            ops.append(self._op(scene, role))
        if scene.loop > 1:
            # The next time around should find what this one found.
            gone = [path for path in before if path not in scene.sizes]
            ops += [make_op("create", {"path": path}) for path in gone[:2]]
        return tuple(ops)

    def _meeting(self, *names: str) -> Iterator[Actor]:
        """Actors that wait for each other and then do one op each, to the same file if it takes one."""
        path = self.scene.file()
        for number, name in enumerate(names, 1):
            op = make(self.scene.fork(_MEETINGS), tables.row_of(name))
            args = dict(op.args)
            if args.get("to") != path:
                args |= {key: path for key in ("path", "from") if args.get(key) in self.scene.sizes}
            meet = make_op("barrier", {"name": "pair"})
            yield Actor(f"pair-{number}", (meet, make_op(name, args)), _MEETINGS)

    def _environment(self) -> tuple[Actor, ...]:
        """Actors that work on the machine, not on files. They sleep, or they would take a CPU each."""
        scene = self.scene
        ops = [self._op(scene, Role.ENVIRONMENT) for _ in range(scene.pick(((3, 1), (1, 2))))]
        lists = [("environment", ops)]
        control = [op for op in ops if op.name == "balance_ctl"]
        if control:
            # What steers a balance needs one to run beside it.
            balance = make(scene, tables.row_of("balance"))
            lists = [("environment", [*(op for op in ops if op.name != "balance_ctl"), balance])]
            lists.append(("steerer", control))
        if scene.chance(_CROWD_PERCENT):
            lists.append(("crowd", [scene.pick(tables.CROWDS)]))
        return tuple(Actor(name, (*ops, _rest(scene)), None) for name, ops in lists)


def make(scene: Scene, row: Row) -> Op:
    """An op of the row that makes sense in the scene, which follows it."""
    values: dict[str, Value] = {}
    for part in row.parts:
        values |= part(scene)
    op = make_op(row.name, values)
    scene.apply(op)
    return op


def _rest(scene: Scene) -> Op:
    return make_op("sleep", {"us": scene.rng.randint(1, 50) * 100})


# ----------------------------------------------------------------------------------------- setup


def _first_files(scene: Scene) -> list[Op]:
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
    return ops


def _extra(scene: Scene) -> list[Op]:
    """What few setups have."""
    ops: list[Op] = []

    def add(op: str, /, **values: Value) -> None:
        ops.append(make_op(op, values))
        scene.apply(ops[-1])

    match scene.pick(tables.EXTRAS):
        case "links":
            # Not told to the scene: all the others are to meet at few names.
            ops += [make_op("link", {"from": "a", "to": f"link-{i:0240}"}) for i in range(tables.EXTRA_LINKS)]
        case "deep":
            path = "deep"
            for _ in range(tables.EXTRA_DEPTH):
                add("mkdir", path=path)
                path += "/deep"
            add("create", path=path)
        case "subvolumes" if scene.fs == "btrfs":
            add("subvol_create", path="v")
            add("snapshot", **{"from": ".", "path": "w", "access": "ro"})
        case "long":
            add("create", path="n" * 255)
    return ops


def _fill() -> list[Op]:
    """Files nobody else uses, each as large as there may be room for."""
    ops = []
    for number, size in enumerate(tables.FILL_SIZES):
        ops.append(make_op("create", {"path": f"fill-{number}"}))
        ops.append(make_op("fallocate", {"path": f"fill-{number}", "off": 0, "len": size}))
    return ops


def _setup_end(scene: Scene) -> tuple[Op, ...]:
    ops: list[Op] = []
    for end in scene.pick(tables.SETUP_ENDS):
        if end == "fsync":
            ops += [make_op("fsync", {"path": path}) for path in scene.sizes]
        else:
            ops.append(make_op(end))
    return tuple(ops)


# ---------------------------------------------------------------------------------------- actors


def _with_sync(scene: Scene, actors: tuple[Actor, ...]) -> tuple[Actor, ...]:
    """Without any sync call nothing is promised and the run would test little."""
    if any(op.is_durability_point for actor in actors for op in actor.ops):
        return actors
    last = make_op("fsync", {"path": scene.file()})
    return (replace(actors[0], ops=(*actors[0].ops, last)), *actors[1:])


def _mkfs(scene: Scene, grows: bool) -> str:
    drawn = scene.pick(tables.MKFS[scene.fs])
    needed = [tables.GROWING] * grows + [tables.EXCHANGING] * scene.exchanges
    return " ".join(needed) or drawn


def _scheduled(scene: Scene, actors: tuple[Actor, ...]) -> tuple[Actor, ...]:
    noise = scene.pick(tables.SCHEDULING)
    if noise in SCHED_POLICIES:
        chosen = scene.rng.randrange(len(actors))
        return tuple(replace(a, sched=noise) if n == chosen else a for n, a in enumerate(actors))
    cpus = {"one cpu": 1, "two cpus": 2}.get(noise, 0)
    return tuple(replace(a, cpu=n % cpus) if cpus else a for n, a in enumerate(actors))


def _never_read_only(actor: Actor) -> Actor:
    """What `validate` refuses beside a balance, done by a call that writes the same."""
    ops = (make_op("syncfs") if op.name == "remount_ro" else op for op in actor.ops)
    return replace(actor, ops=tuple(ops))


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
