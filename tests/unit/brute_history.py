"""Tiny concurrent histories: what really happened in a toy file system, and what the judge is told.

Ops take effect at one moment between invocation and return. The toy only decides which histories can
happen at all; what may survive a crash of one is the matter of `brute_law.py`.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count

from fuzzer.state.history import FOREVER, Event, History
from fuzzer.workload.model import Op, Value, make_op, op_id
from fuzzer.writelog.crash import Cut

ROOT, SUB = 2, 3
HALF, BLOCK = 2048, 4096
STEP = 10
"""Distance of two moments at which an op begins or ends, ns."""

Key = tuple[int, str]
PATHS: dict[str, Key] = {"a": (ROOT, "a"), "b": (ROOT, "b"), "d/a": (SUB, "a")}
NAME_OPS = frozenset({"create", "link", "unlink", "rename"})


def key_of(event: Event, path: str) -> Key:
    return PATHS[event.op.text(path)]


@dataclass(frozen=True)
class Tiny:
    """A history and where power goes."""

    fs: str
    history: History
    cut: Cut

    def __str__(self) -> str:
        lines = [f"{self.fs}, calls before {self.cut.returned_before_ns}, ops before "
                 f"{self.cut.invoked_before_ns}"]  # fmt: skip
        for e in self.history.events:
            words = " ".join(str(v) for _, v in e.op.args if v not in ("none", "", 0o644, 32))
            end = "?" if e.end_ns == FOREVER else str(e.end_ns)
            seen = f" subject={e.subject} other={e.other}" if e.op.name in NAME_OPS else ""
            error = f" !{errno.errorcode[e.errno]}" if e.errno else ""
            lines.append(f"  {e.id}: {e.begin_ns}-{end} {e.op.name} {words}{seen}{error}")
        return "\n".join(lines)


@dataclass
class _Running:
    """An op as the toy carries it out."""

    event: Event
    looks_ns: float = 0.0
    acts_ns: float = 0.0


@dataclass
class _Toy:
    names: dict[Key, int] = field(default_factory=dict)
    numbers: Iterable[int] = field(default_factory=lambda: count(11))

    def path(self, event: Event, name: str) -> int:
        text = event.op.text(name)
        return {".": ROOT, "d": SUB}.get(text) or self.names.get(PATHS[text], 0)

    def begin(self, run: _Running) -> bool:
        """Descriptors are opened before the call; False if that failed."""
        op = run.event.op
        if op.name in NAME_OPS:
            keys = [PATHS[op.text(p)] for p in ("path", "from", "to") if p in dict(op.args)]
            run.event = replace(run.event, directory=keys[-1 if op.name == "link" else 0][0])
            if op.name == "rename":
                run.event = replace(run.event, directory2=keys[1][0])
        if op.name in ("sync", "mkdir", "create", "unlink", "rename"):
            return True
        subject = self.path(run.event, "from" if op.name == "link" else "path")
        run.event = replace(run.event, subject=subject)
        return subject != 0

    def look(self, run: _Running) -> None:
        """What unlink and rename think they work on."""
        if run.event.op.name == "unlink":
            run.event = replace(run.event, subject=self.path(run.event, "path"))
        elif run.event.op.name == "rename":
            subject, other = self.path(run.event, "from"), self.path(run.event, "to")
            run.event = replace(run.event, subject=subject, other=other)

    def act(self, run: _Running) -> int:
        """The effect on names; an errno if there is none."""
        event = run.event
        if event.op.name == "mkdir":
            run.event = replace(event, subject=SUB, directory=ROOT)
            return 0
        changes = name_changes(self.names, event, made=0)
        if changes is None:
            return errno.EEXIST if event.op.name in ("create", "link") else errno.ENOENT
        if event.op.name == "link" and event.subject not in self.names.values():
            return errno.ENOENT
        for key, inode in changes:
            if event.op.name == "create":
                inode = next(iter(self.numbers))
                run.event = replace(event, subject=inode)
            self.names[key] = inode
        return 0


def name_changes(names: dict[Key, int], event: Event, made: int) -> list[tuple[Key, int]] | None:
    """What a namespace op does to these names; None if it would fail."""
    op = event.op
    if op.name == "create":
        key = key_of(event, "path")
        return None if names.get(key) else [(key, made)]
    if op.name == "link":
        key = key_of(event, "to")
        return None if names.get(key) else [(key, event.subject)]
    if op.name == "unlink":
        key = key_of(event, "path")
        return [(key, 0)] if names.get(key) else None
    if op.name != "rename":
        return []
    old, new = key_of(event, "from"), key_of(event, "to")
    moved, there, flags = names.get(old, 0), names.get(new, 0), op.text("flags")
    if not moved or (flags == "exchange" and not there) or (flags == "noreplace" and there):
        return None
    if moved == there:
        return []
    return [(old, there if flags == "exchange" else 0), (new, moved)]


def _op(name: str, /, **values: Value) -> Op:
    return make_op(name, {key.rstrip("_"): value for key, value in values.items()})


def random_op(rng: random.Random, theme: str) -> Op:
    path, other = rng.choice(("a", "a", "b", "d/a")), rng.choice(("a", "b", "d/a"))
    file = "a" if theme == "data" and rng.random() < 0.85 else path
    if theme == "data" or (theme == "mixed" and rng.random() < 0.4):
        return rng.choice(_data_ops(rng, file))
    if theme == "values" or (theme == "mixed" and rng.random() < 0.3):
        return rng.choice((
            _op("chmod", path=file, mode=rng.choice((0o600, 0o700))),
            _op("setxattr", path=file, name="k"),
            _op("removexattr", path=file, name="k"),
            *_sync_ops(rng, file),
        ))  # fmt: skip
    return rng.choice((
        _op("create", path=path),
        _op("link", from_=path, to=other),
        _op("unlink", path=path),
        _op("unlink", path=path),
        *(_op("rename", from_=path, to=other, flags=f) for f in ("none", "none", "exchange", "noreplace")),
        *_sync_ops(rng, path),
        _op("fsync", path=rng.choice((".", ".", "d"))),
    ))  # fmt: skip


def _data_ops(rng: random.Random, file: str) -> tuple[Op, ...]:
    start = HALF * rng.randrange(3)
    span: dict[str, Value] = {"path": file, "off": start, "len": HALF * rng.randint(1, 4 - start // HALF)}
    block = BLOCK * rng.randrange(2)
    return (
        _op("write", **span),
        _op("write", **span),
        _op("write", **span, sync=rng.choice(("none", "dsync"))),
        _op("dwrite", path=file, off=block, len=BLOCK, sync=rng.choice(("none", "none", "sync"))),
        _op("truncate", path=file, size=rng.choice((0, 1000, HALF, BLOCK, 6000, 2 * BLOCK))),
        *_sync_ops(rng, file),
    )


def _sync_ops(rng: random.Random, file: str) -> tuple[Op, ...]:
    return _op("fsync", path=file), rng.choice((_op("fdatasync", path=file), _op("sync")))


SETUP = (
    _op("mkdir", path="d"),
    _op("create", path="a"),
    _op("write", path="a", off=0, len=HALF),
    _op("sync"),
)


def play(slots: list[int], work: dict[int, list[Op]], rng: random.Random, fs: str, cut_slot: int) -> Tiny:
    """Carry out `work`: `slots` names the actor whose op begins or ends at each moment.

    An actor with an odd number of slots never returns from its last op.
    """
    toy, runs = _Toy(), _place(slots, work, rng)
    moments = [(float(r.event.begin_ns), 0, r) for r in runs]
    moments += [(r.looks_ns, 1, r) for r in runs] + [(r.acts_ns, 2, r) for r in runs]
    dead: set[int] = set()
    errors: dict[int, int] = {}
    for _, what, run in sorted(moments, key=lambda m: (m[0], m[1], m[2].event.id)):
        number = run.event.id
        if number in dead:
            continue
        if what == 0 and not toy.begin(run):
            dead.add(number)
        elif what == 1:
            toy.look(run)
        elif what == 2:
            errors[number] = toy.act(run) or run.event.errno
    events = [_told(r, errors) for r in runs if r.event.id not in dead]
    at = (len(SETUP) * 2 + cut_slot + 1) * STEP + STEP // 2
    return Tiny(fs, History(tuple(sorted(events, key=lambda e: e.begin_ns)), ROOT), Cut(at, at))


def _told(run: _Running, errors: dict[int, int]) -> Event:
    """The event as it is recorded. What an op cut short had found is not always told."""
    event = run.event
    if not event.returned:
        return replace(event, subject=0) if event.op.name == "create" else event
    failed = errors.get(event.id, 0)
    length = dict(event.op.args).get("len", 0)
    result = 0 if failed or not isinstance(length, int) else length
    born = 0 if failed and event.op.name == "create" else event.subject
    return replace(event, errno=failed, result=result, subject=born)


def _place(slots: list[int], work: dict[int, list[Op]], rng: random.Random) -> list[_Running]:
    runs: list[_Running] = []
    open_: dict[int, _Running] = {}
    todo = {0: list(SETUP), **{actor: list(ops) for actor, ops in work.items()}}
    for number, actor in enumerate([0, 0] * len(SETUP) + slots):
        now = (number + 1) * STEP
        if actor in open_:
            run = open_.pop(actor)
            run.event = replace(run.event, end_ns=now)
        elif todo[actor]:
            sequence = sum(r.event.actor == actor for r in runs)
            op = todo[actor].pop(0)
            event = Event(id=op_id(actor, sequence), actor=actor, sequence=sequence, op=op, begin_ns=now)
            runs.append(_Running(event))
            open_[actor] = runs[-1]
    last = (len(SETUP) * 2 + len(slots) + 3) * STEP
    for run in runs:
        begin, end = run.event.begin_ns, min(run.event.end_ns, last)
        run.acts_ns = rng.uniform(begin + 1, end - 1)
        if run.event.op.name == "create" and not run.event.returned:
            # Nobody is told its inode, so it comes too late for others to see.
            run.acts_ns = last + 1.0
        run.looks_ns = rng.uniform(begin + 0.5, run.acts_ns)
    return runs


def random_tiny(rng: random.Random, fs: str) -> Tiny:
    """Up to three actors, up to three ops each, any overlap; some cut short, some failing."""
    theme = rng.choice(("names", "names", "data", "data", "values", "mixed"))
    work = {a: [random_op(rng, theme) for _ in range(rng.randint(1, 3))] for a in range(1, rng.randint(2, 4))}
    if rng.random() < 0.5:
        work[1].append(rng.choice(_sync_ops(rng, "a")))
    slots = [actor for actor, ops in work.items() for _ in range(2 * len(ops) - (rng.random() < 0.15))]
    rng.shuffle(slots)
    tiny = play(slots, work, rng, fs, rng.randrange(len(slots) // 2, len(slots) + 1))
    if rng.random() < 0.1:
        tiny = _with_error(rng, tiny)
    if rng.random() < 0.2:
        later = tiny.cut.invoked_before_ns + STEP * rng.randint(1, 3)
        tiny = replace(tiny, cut=Cut(tiny.cut.returned_before_ns, later))
    return tiny


def _with_error(rng: random.Random, tiny: Tiny) -> Tiny:
    """A data or sync op failed with EIO: it may have done a part of its work."""
    fitting = [
        n
        for n, e in enumerate(tiny.history.events)
        if e.actor
        and e.succeeded
        and e.op.name not in NAME_OPS | {"chmod", "setxattr", "removexattr", "sync"}
    ]
    if not fitting:
        return tiny
    events, at = list(tiny.history.events), rng.choice(fitting)
    events[at] = replace(events[at], errno=errno.EIO, result=0)
    return replace(tiny, history=History(tuple(events), ROOT))


def small_ops(theme: str) -> tuple[Op, ...]:
    """The alphabet of the exhaustive family."""
    if theme == "names":
        return (
            _op("rename", from_="a", to="b"),
            _op("link", from_="a", to="b"),
            _op("unlink", path="a"),
            _op("create", path="b"),
            _op("fsync", path="."),
            _op("fsync", path="a"),
        )
    if theme == "data":
        return (
            _op("write", path="a", off=0, len=BLOCK),
            _op("write", path="a", off=HALF, len=BLOCK),
            _op("truncate", path="a", size=HALF),
            _op("fdatasync", path="a"),
            _op("dwrite", path="a", off=0, len=BLOCK, sync="dsync"),
        )
    return (
        _op("chmod", path="a", mode=0o600),
        _op("setxattr", path="a", name="k"),
        _op("removexattr", path="a", name="k"),
        _op("fsync", path="a"),
    )
