"""Shrink passes: ways to make a workload simpler, and the order that says what simpler is.

A pass is a function from a workload to candidates, best guess first. It knows nothing of bugs: whoever
runs the candidates keeps those that still show one. Candidates may be invalid; `candidates` leaves those
out, and everything that is not simpler by `weight`. As each accepted candidate weighs less than the one
before, any order of passes comes to an end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from fuzzer.errors import InputError
from fuzzer.workload.model import SETUP, Actor, Draw, Op, Value, Workload, make_op
from fuzzer.workload.ops import OPS, Kind
from fuzzer.workload.text import format as format_workload
from fuzzer.workload.validate import validate

Pass = Callable[[Workload], Iterator[Workload]]

Weight = tuple[int | str, ...]

_DEFAULTS = Workload()

_HEADERS = (
    *("mkfs", "mount", "memory", "delay", "size", "seed", "requires", "why", "source"),
    *("kernels", "expect", "sure"),
)
"""What can go; a finding keeps where it descends from."""

_BLOCK = 4096

_FOREVER = 1 << 20
"""Weight of `loop=others`: more than any count a person would write."""

_SIMPLER: dict[str, tuple[str, ...]] = {
    "symlink": ("create",),
    "mkdir": ("create",),
    "mwrite": ("write",),
    "append": ("write",),
    "splice": ("write",),
    "acl": ("chmod",),
    "mapped_write": ("write",),
    "dwrite": ("write",),
    "awrite": ("dwrite", "write"),
    "exchange_range": ("clone", "copy_range"),
    "fdatasync": ("fsync",),
    "syncfs": ("sync",),
    "remount_ro": ("sync",),
    "subvol_create": ("mkdir",),
    "setxattr": ("chmod",),
    "chown": ("chmod",),
    "tmplink": ("create",),
    "fallocate": ("write", "truncate"),
    "sync_file_range": ("fsync",),
    "otrunc": ("truncate",),
    "mknod": ("create",),
    "fault_write": ("write",),
    "spin": ("sleep",),
}
"""Ops by name, and what to try in their place with the arguments both have."""


def weight(workload: Workload) -> Weight:
    """The total order of workloads: fewer ops, then fewer actors, loops, options, flags, names and depth,
    then smaller numbers, then the text itself."""
    ops = tuple(workload.iter_ops())
    paths = {value for op in ops for value in _paths(op)}
    numbers = [abs(n) for op in ops for _, value in op.args for n in _numbers(value)]
    return (
        len(ops),
        len(workload.actors),
        sum(_FOREVER if actor.loop is None else actor.loop - 1 for actor in workload.actors),
        _options(workload),
        sum(op.name in _SIMPLER for op in ops),
        sum(_flags(op) for op in ops),
        len(paths),
        sum(path.count("/") for path in paths),
        sum(isinstance(value, Draw) for op in ops for _, value in op.args),
        sum(not _is_plain(n) for n in numbers),
        sum(numbers),
        len(text := format_workload(workload)),
        text,
    )


def _options(workload: Workload) -> int:
    return sum(getattr(workload, key) != getattr(_DEFAULTS, key) for key in _HEADERS)


def _flags(op: Op) -> int:
    """Optional parameters that are not at their default."""
    pairs = zip(op.spec.params, op.args, strict=True)
    return sum(param.default is not None and value != param.default for param, (_, value) in pairs)


def _numbers(value: Value) -> tuple[int, ...]:
    return (value.low, value.high) if isinstance(value, Draw) else (value,) if isinstance(value, int) else ()


def _is_plain(number: int) -> bool:
    return number in (0, _BLOCK)


def _paths(op: Op) -> Iterator[str]:
    for param, (_, value) in zip(op.spec.params, op.args, strict=True):
        if param.kind is Kind.PATH and isinstance(value, str) and value != ".":
            yield value


def candidates(one: Pass, workload: Workload) -> Iterator[Workload]:
    """What the pass offers that is valid and simpler than `workload`, each once."""
    limit, seen = weight(workload), set[str]()
    for candidate in one(workload):
        text = format_workload(candidate)
        if text in seen or weight(candidate) >= limit:
            continue
        seen.add(text)
        try:
            validate(candidate)
        except InputError:
            continue
        yield candidate


# ---------------------------------------------------------------------------------- actors and ops


def drop_actors(workload: Workload) -> Iterator[Workload]:
    """Half of the actors, then one, the longest first."""
    count = len(workload.actors)
    by_length = sorted(range(count), key=lambda i: -len(workload.actors[i].ops))
    for chunk in _chunks(count):
        gone = {by_length[i] for i in range(*chunk)}
        yield replace(workload, actors=tuple(a for i, a in enumerate(workload.actors) if i not in gone))


def merge_actors(workload: Workload) -> Iterator[Workload]:
    """One actor behind or before another: what still shows is sequential."""
    actors = workload.actors
    for i, first in enumerate(actors):
        for j, second in enumerate(actors):
            if i == j:
                continue
            ops = tuple(op for op in (*first.ops, *second.ops) if op.name != "barrier")
            merged = Actor(first.name, ops)
            yield replace(
                workload, actors=tuple(merged if k == i else a for k, a in enumerate(actors) if k != j)
            )


def drop_ops(workload: Workload) -> Iterator[Workload]:
    """Chunks of ops of a block, halves first (ddmin), from the end: what is set up early is used later."""
    sizes = [len(workload.block(block)) for block in range(len(workload.actors) + 1)]
    chunks = [(end - start, block, start, end) for block, n in enumerate(sizes) for start, end in _chunks(n)]
    for _, block, start, end in sorted(chunks, key=lambda c: (-c[0], -c[1], -c[2])):
        ops = workload.block(block)
        yield _with_block(workload, block, (*ops[:start], *ops[end:]))


def drop_pairs(workload: Workload) -> Iterator[Workload]:
    """Two ops of which neither can go alone: a name made and used, a barrier and its partner."""
    places = [(b, i) for b in range(len(workload.actors) + 1) for i in range(len(workload.block(b)))]
    for first, (block, i) in enumerate(places):
        for other, j in places[first + 1 :]:
            a, b = workload.block(block)[i], workload.block(other)[j]
            if {v for _, v in a.args if isinstance(v, str)} & {v for _, v in b.args if isinstance(v, str)}:
                yield _without(workload, {(block, i), (other, j)})


def drop_names(workload: Workload) -> Iterator[Workload]:
    """Everything that has to do with one path, or with what is below it."""
    for path in sorted({p for op in workload.iter_ops() for p in _paths(op)}):
        gone = {
            (block, i)
            for block in range(len(workload.actors) + 1)
            for i, op in enumerate(workload.block(block))
            if any(p == path or p.startswith(path + "/") for p in _paths(op))
        }
        yield _without(workload, gone)


def _without(workload: Workload, gone: set[tuple[int, int]]) -> Workload:
    """The workload without these ops, and without actors that have none left."""
    for block in range(len(workload.actors) + 1):
        kept = tuple(op for i, op in enumerate(workload.block(block)) if (block, i) not in gone)
        workload = _with_block(workload, block, kept, keep_empty=True)
    return replace(workload, actors=tuple(actor for actor in workload.actors if actor.ops))


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    """[start, end) of all of it, halves, quarters, … down to single ones."""
    size = count
    while size:
        yield from ((start, min(start + size, count)) for start in range(0, count, size))
        size = size // 2


def _with_block(workload: Workload, block: int, ops: tuple[Op, ...], *, keep_empty: bool = False) -> Workload:
    """The workload with other ops in one block; an actor without ops is dropped."""
    if block == SETUP:
        return replace(workload, setup=ops)
    changed = replace(workload.actors[block - 1], ops=ops)
    actors = (*workload.actors[: block - 1], changed, *workload.actors[block:])
    return replace(workload, actors=tuple(actor for actor in actors if actor.ops or keep_empty))


# ------------------------------------------------------------------------------- loops and options


def lower_loops(workload: Workload) -> Iterator[Workload]:
    """All loops once, each once, each half as often; an actor that goes on for ever only once."""
    yield replace(workload, actors=tuple(replace(actor, loop=1) for actor in workload.actors))
    for i, actor in enumerate(workload.actors):
        for loop in (1, *((actor.loop // 2,) if actor.loop else (8,))):
            changed = replace(actor, loop=max(1, loop))
            yield replace(workload, actors=(*workload.actors[:i], changed, *workload.actors[i + 1 :]))


def drop_options(workload: Workload) -> Iterator[Workload]:
    """Every header that is not at its default, all at once and one by one; pinned CPUs, scheduling."""
    set_to = {key: getattr(_DEFAULTS, key) for key in _HEADERS}
    yield replace(workload, **set_to)
    for key, value in set_to.items():
        yield replace(workload, **{key: value})
    yield replace(workload, actors=tuple(replace(actor, cpu=None) for actor in workload.actors))
    yield replace(workload, actors=tuple(replace(actor, sched="other") for actor in workload.actors))


def simplify_kinds(workload: Workload) -> Iterator[Workload]:
    """A simpler op in the place of one: a file for a symlink, a plain write for a direct one."""
    for block, i, op in _places(workload):
        for name in _SIMPLER.get(op.name, ()):
            changed = _renamed(op, name)
            if changed is not None:
                yield _with_op(workload, block, i, changed)


def _renamed(op: Op, name: str) -> Op | None:
    """`op` as another op, with the arguments both have; None if it lacks one."""
    wanted = {param.name for param in OPS[name].params}
    given = {key: value for key, value in op.args if key in wanted and key not in ("mode", "sync")}
    if op.name == "append":
        given["off"] = 0
    if name == "truncate":
        given["size"] = 0 if op.name == "otrunc" else _BLOCK
    if name == "chmod":
        given["mode"] = 0o600
    try:
        return make_op(name, given)
    except KeyError:
        return None


def drop_flags(workload: Workload) -> Iterator[Workload]:
    """Optional parameters at their defaults."""
    for block, i, op in _places(workload):
        for param, (key, value) in zip(op.spec.params, op.args, strict=True):
            if param.default is not None and value != param.default:
                yield _with_op(workload, block, i, _with_arg(op, key, param.default))


# -------------------------------------------------------------------------------- names and numbers


def simplify_names(workload: Workload) -> Iterator[Workload]:
    """Two names become one, paths lose a directory, names become `a`, `b`, … in order of their use."""
    paths = list(dict.fromkeys(p for op in workload.iter_ops() for p in _paths(op)))
    for path in paths:
        if "/" in path:
            yield _rename_path(workload, path, path.rsplit("/", 1)[1])
    for path in paths:
        for other in paths:
            if path != other and not other.startswith(path + "/"):
                yield _rename_path(workload, path, other)
    for path in paths:
        prefix = path[: path.rfind("/") + 1]
        for letter in "abcdefgh":
            if prefix + letter not in paths:
                yield _rename_path(workload, path, prefix + letter)


def _rename_path(workload: Workload, old: str, new: str) -> Workload:
    def renamed(op: Op) -> Op:
        for param, (key, value) in zip(op.spec.params, op.args, strict=True):
            if param.kind is Kind.PATH and isinstance(value, str) and (value + "/").startswith(old + "/"):
                op = _with_arg(op, key, new + value[len(old) :])
        return op

    for block in range(len(workload.actors) + 1):
        workload = _with_block(workload, block, tuple(map(renamed, workload.block(block))))
    return workload


def lower_numbers(workload: Workload) -> Iterator[Workload]:
    """Sizes and offsets to 0 or one block, then by halves; draws to their first number."""
    for block, i, op in _places(workload):
        for param, (key, value) in zip(op.spec.params, op.args, strict=True):
            if param.kind not in (Kind.BYTES, Kind.NUMBER) or isinstance(value, str):
                continue
            number = value.low if isinstance(value, Draw) else value
            for smaller in (0, _BLOCK, number, number // 2 // param.unit * param.unit, param.low):
                yield _with_op(workload, block, i, _with_arg(op, key, smaller))


def _places(workload: Workload) -> Iterator[tuple[int, int, Op]]:
    for block in range(len(workload.actors) + 1):
        for i, op in enumerate(workload.block(block)):
            yield block, i, op


def _with_op(workload: Workload, block: int, i: int, op: Op) -> Workload:
    ops = workload.block(block)
    return _with_block(workload, block, (*ops[:i], op, *ops[i + 1 :]))


def _with_arg(op: Op, key: str, value: Value) -> Op:
    return Op(op.name, tuple((name, value if name == key else old) for name, old in op.args))


PASSES: tuple[tuple[str, Pass], ...] = (
    ("actors", drop_actors),
    ("merge", merge_actors),
    ("paths", drop_names),
    ("ops", drop_ops),
    ("loops", lower_loops),
    ("options", drop_options),
    ("pairs", drop_pairs),
    ("kinds", simplify_kinds),
    ("flags", drop_flags),
    ("names", simplify_names),
    ("numbers", lower_numbers),
)
"""Every pass by its name, those that take away most first."""
