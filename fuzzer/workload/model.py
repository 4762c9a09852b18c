"""Workload: what we ask the kernel to do. Pure data; the text form lives in `text.py`.

A workload is a setup (run alone; what of it is synced is up to its ops), then actors that start
together. Each actor is a list of ops, run a counted number of times or until all counted ones have
ended.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from fuzzer.workload.ops import OPS, SYNC_CALLS, Kind, OpSpec
from fuzzer.workload.options import can_exchange, counts_xfs_quota

SETUP = 0
"""Actor number of the setup block; actors count from 1."""

THROTTLED = "throttled"
SCHED_POLICIES = ("other", "idle", THROTTLED)
"""`idle` runs only when nobody else wants the CPU, and so stops anywhere, for long (sched(7)); `throttled`
runs for a part of the time only, whoever else wants it."""

MAX_ACTORS = 31
MAX_SEQUENCE = (1 << 19) - 1
"""An op id has 24 bits: 5 for the actor, 19 for the op's place in the actor's run."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A number drawn anew for each run of an op: low, low+step, … up to and including high."""

    low: int
    high: int
    step: int

    def pick(self, rng: random.Random) -> int:
        return rng.randrange(self.low, self.high + 1, self.step)


Value = int | str | Draw


@dataclass(frozen=True, slots=True)
class Op:
    """One op with all its parameters, in table order (defaults filled in)."""

    name: str
    args: tuple[tuple[str, Value], ...]

    @property
    def spec(self) -> OpSpec:
        return OPS[self.name]

    def __getitem__(self, key: str) -> Value:
        for name, value in self.args:
            if name == key:
                return value
        raise KeyError(f"{self.name} has no parameter {key}")

    def text(self, key: str) -> str:
        """The string parameter `key`."""
        value = self[key]
        assert isinstance(value, str), (self.name, key, value)
        return value

    def number(self, key: str) -> int:
        """The numeric parameter `key` of a resolved op."""
        value = self[key]
        assert isinstance(value, int), (self.name, key, value)
        return value

    @property
    def brief(self) -> str:
        """`rename a b exchange`: name and what is not the default, for people."""
        pairs = zip(self.spec.params, self.args, strict=True)
        return " ".join([self.name, *(str(value) for param, (_, value) in pairs if value != param.default)])

    @property
    def is_durability_point(self) -> bool:
        """True if this op's successful return promises something."""
        if self.name in SYNC_CALLS:
            return True
        args = dict(self.args)
        return args.get("sync", "none") != "none" or args.get("msync") == "sync"

    @property
    def is_crash_point(self) -> bool:
        """True if the power is to be cut after it returned: a durability point, or an unlink that fsyncs
        what it unlinked, which is durable then if that has no other name."""
        return self.is_durability_point or (self.name == "unlink" and self["fsync"] == "yes")


def make_op(name: str, values: Mapping[str, Value] | None = None) -> Op:
    """Build an op from the table: fills defaults, KeyError for an unknown op or parameter.

    Range and alignment checks are `validate`'s; this only gives the op its canonical shape.
    """
    spec = OPS[name]
    given = dict(values or {})
    args: list[tuple[str, Value]] = []
    for param in spec.params:
        if param.name not in given and param.default is None:
            raise KeyError(f"{name} needs {param.name}")
        default: Value = "" if param.default is None else param.default
        args.append((param.name, given.pop(param.name, default)))
    if given:
        raise KeyError(f"{name} has no parameter {sorted(given)[0]}")
    return Op(name, tuple(args))


@dataclass(frozen=True, slots=True)
class Actor:
    """A process of the workload. `loop=None`: repeat until every counted actor has ended."""

    name: str
    ops: tuple[Op, ...]
    loop: int | None = 1
    cpu: int | None = None
    sched: str = "other"
    """Scheduling policy, one of `SCHED_POLICIES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Everything needed to run: header, setup, actors. `fs=""` means any file system."""

    title: str = ""
    why: str = ""
    source: str = ""
    kernels: str = ""
    """Kernels the documented race is in, such as `5.10 to 6.4`."""
    expect: tuple[str, ...] = ()
    """What it should be seen as: names of oracle rules, and some words more (`campaign/corpus.py`)."""
    sure: str = ""
    """How sure it is that this workload shows the race."""
    descends: str = ""
    """The corpus entries a mutation was made from."""
    requires: tuple[str, ...] = ()
    fs: str = ""
    size: int = 320 << 20
    """Device size, bytes. xfs refuses less than 300 MiB (xfsprogs 5.19)."""
    mkfs: str = ""
    mount: str = ""
    memory: int = 0
    """Limit of the actors' memory cgroup in bytes; 0: no limit is set."""
    delay: str = ""
    """Which I/O the recorder holds back (`delay.py`); empty: none."""
    seed: int = 0
    setup: tuple[Op, ...] = ()
    actors: tuple[Actor, ...] = ()

    def with_fs(self, fs: str) -> Workload:
        """This workload bound to one file system."""
        return replace(self, fs=fs)

    def block(self, actor: int) -> tuple[Op, ...]:
        """The ops of actor number `actor` (`SETUP` is the setup block)."""
        return self.setup if actor == SETUP else self.actors[actor - 1].ops

    def actor_name(self, actor: int) -> str:
        return "setup" if actor == SETUP else self.actors[actor - 1].name

    @property
    def capabilities(self) -> frozenset[str]:
        """Every capability this workload needs (doctor names): declared ones and those its ops,
        memory limit, file system and options imply."""
        needed = set(self.requires).union(*(op.spec.requires for op in self.iter_ops()))
        needed |= {"memcg"} if self.memory else set()
        needed |= {"cpu-quota"} if self.needs_throttle else set()
        needed |= {self.fs} if self.fs else set()
        needed |= {"xfs-exchange"} if self.fs == "xfs" and can_exchange(self.mkfs) else set()
        needed |= {"xfs-quota"} if self.fs == "xfs" and counts_xfs_quota(self.mount) else set()
        return frozenset(needed)

    @property
    def needs_memcg(self) -> bool:
        return "memcg" in self.capabilities

    @property
    def needs_throttle(self) -> bool:
        return any(actor.sched == THROTTLED for actor in self.actors)

    def iter_ops(self) -> Iterator[Op]:
        """Every op once, in text order."""
        yield from self.setup
        for actor in self.actors:
            yield from actor.ops


def op_id(actor: int, sequence: int) -> int:
    """The 24-bit id of the `sequence`-th op an actor runs (from 0). Never 0."""
    assert 0 <= actor <= MAX_ACTORS, (actor, sequence)
    assert 0 <= sequence < MAX_SEQUENCE, (actor, sequence)
    return actor << 19 | (sequence + 1)


def actor_of(op: int) -> int:
    """The actor an op id belongs to."""
    return op >> 19


ITERATION = "{i}"
"""In a path: the number of the actor's iteration, from 0. Many names are made so."""


@dataclass(slots=True)
class Resolver:
    """Turns an actor's op list into concrete ops, the same ones every time.

    The worker and the judge both resolve; the history then needs to carry only numbers.
    """

    workload: Workload
    actor: int
    _cache: tuple[int, tuple[Op, ...]] = field(default=(-1, ()))

    def iteration(self, number: int) -> tuple[Op, ...]:
        """The concrete ops of loop iteration `number` (from 0)."""
        if self._cache[0] != number:
            rng = random.Random(f"{self.workload.seed}/{self.actor}/{number}")
            ops = tuple(_resolve(op, rng, number) for op in self.workload.block(self.actor))
            self._cache = (number, ops)
        return self._cache[1]

    def op(self, sequence: int) -> Op:
        """The concrete op number `sequence` (from 0) of this actor's run."""
        length = len(self.workload.block(self.actor))
        return self.iteration(sequence // length)[sequence % length]


def _resolve(op: Op, rng: random.Random, number: int) -> Op:
    if not varies(op):
        return op
    op = in_iteration(op, number)
    return Op(
        op.name,
        tuple((name, v.pick(rng) if isinstance(v, Draw) else v) for name, v in op.args),
    )


def varies(op: Op) -> bool:
    """True if the op may be another one in each iteration."""
    return any(isinstance(v, Draw) or (isinstance(v, str) and ITERATION in v) for _, v in op.args)


def in_iteration(op: Op, number: int) -> Op:
    """The op with the names it has in iteration `number`."""
    paths = {param.name for param in op.spec.params if param.kind is Kind.PATH}
    args = ((key, str(v).replace(ITERATION, str(number)) if key in paths else v) for key, v in op.args)
    return Op(op.name, tuple(args))
