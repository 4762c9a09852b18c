"""What makes a workload sensible, whatever it was made from: text, generator, minimizer or import.

Defects name a `Spot`, a place in the workload and not in a file; the parser, which alone knows lines
and columns, turns it into one. The file systems' option rules are in `options.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fuzzer.errors import InputError
from fuzzer.workload.delay import delay_defect
from fuzzer.workload.model import (
    MAX_ACTORS,
    MAX_SEQUENCE,
    SCHED_POLICIES,
    SETUP,
    Actor,
    Draw,
    Op,
    Value,
    Workload,
)
from fuzzer.workload.ops import DIRECT_ALIGN_BYTES, KNOBS, MAX_FILE_BYTES, OPS, Kind, Param
from fuzzer.workload.options import FILE_SYSTEMS, mkfs_defect, mount_defect

HEADER = -1
"""Block number of the header in a `Spot`; 0 is the setup, actors count from 1."""

MAX_OPS = 16_384
"""Ops of one workload as written, setup included."""

MAX_PROSE = 16_384
"""Characters of what is written for people, together."""

MIN_SIZE_BYTES, MAX_SIZE_BYTES = 128 << 20, 16 << 30
MIN_XFS_BYTES = 300 << 20
"""mkfs.xfs refuses less since xfsprogs 5.19."""

MIN_MEMORY_BYTES, MAX_MEMORY_BYTES = 8 << 20, 1 << 40
MAX_CPU = 1023
MAX_SEED = (1 << 63) - 1

MAX_NAME_BYTES = 255
"""NAME_MAX of linux/limits.h."""

MAX_PATH_BYTES = 1023
"""Longest path or link target; xfs stores no longer symbolic link (XFS_SYMLINK_MAXLEN is 1024)."""

MAX_XATTR_NAME_BYTES = 255 - len("user.")
MAX_BARRIER_BYTES = 64

CAPABILITIES = frozenset(FILE_SYSTEMS).union(*(spec.requires for spec in OPS.values()))
"""What `requires` may name."""

_PROSE = ("title", "why", "source", "kernels", "sure", "descends")
_EXPECTED = re.compile(r"[a-z][a-z-]{0,31}")
_ACTOR_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a workload: a header key, an actor's own line (op -1), an op, or its parameter."""

    block: int
    op: int = -1
    key: str = ""


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing wrong with a workload."""

    spot: Spot
    message: str
    hint: str = ""


def validate(workload: Workload) -> None:
    """Raise InputError for the first defect; its place names block, op (from 1) and parameter."""
    _refuse(workload, defects(workload))


def validate_header(workload: Workload) -> None:
    """`validate` for a workload that only says which file system to make and how to mount it."""
    _refuse(workload, _header_defects(workload))


def _refuse(workload: Workload, found: Iterable[Defect]) -> None:
    for defect in found:
        raise InputError(defect.message, place=_describe(workload, defect.spot), hint=defect.hint)


def defects(workload: Workload) -> Iterator[Defect]:
    """Everything wrong with `workload`, in text order within header, blocks and the whole."""
    yield from _header_defects(workload)
    yield from _shape_defects(workload)
    yield from _balance_defects(workload)
    for number in range(len(workload.actors) + 1):
        if number != SETUP:
            yield from _actor_defects(workload, number)
        for index, op in enumerate(workload.block(number)):
            for key, message, hint in _op_defects(op, number, workload.fs):
                yield Defect(Spot(number, index, key), message, hint)


def _balance_defects(workload: Workload) -> Iterator[Defect]:
    """A balance that goes on after the file system is writable again does so in a thread of its own; an
    unmount soon after is an oops (btrfs_resume_balance_async, seen on 6.18)."""
    balances = any(op.name == "balance" for op in workload.iter_ops())
    for block in range(len(workload.actors) + 1) if balances and workload.fs == "btrfs" else ():
        for index, op in enumerate(workload.block(block)):
            if op.name == "remount_ro":
                hint = "it stops the balance, which goes on on its own: the kernel does not survive that"
                yield Defect(Spot(block, index), "remount_ro beside a balance", hint)


def _describe(workload: Workload, spot: Spot) -> str:
    if spot.block == HEADER:
        return spot.key or "workload"
    parts = [workload.actor_name(spot.block)]
    if spot.op >= 0:
        parts.append(f"op {spot.op + 1}")
    if spot.key:
        parts.append(spot.key)
    return " ".join(parts)


# ---------------------------------------------------------------------------------------- header


def _header_defects(workload: Workload) -> Iterator[Defect]:
    def defect(key: str, message: str, hint: str = "") -> Defect:
        return Defect(Spot(HEADER, key=key), message, hint)

    yield from _prose_defects(workload)
    for name in workload.requires:
        if name not in CAPABILITIES:
            yield defect("requires", f"unknown capability {name!r}", f"known: {_list(sorted(CAPABILITIES))}")
    if len(set(workload.requires)) != len(workload.requires):
        yield defect("requires", "a capability is named twice")
    if workload.fs not in ("", *FILE_SYSTEMS):
        yield defect("fs", f"unknown file system {workload.fs!r}", f"known: {_list(FILE_SYSTEMS)}")
        return
    low = MIN_SIZE_BYTES if workload.fs == "btrfs" else MIN_XFS_BYTES
    yield from _number(Spot(HEADER, key="size"), workload.size, low, MAX_SIZE_BYTES, 4096)
    if workload.memory:
        spot = Spot(HEADER, key="memory")
        yield from _number(spot, workload.memory, MIN_MEMORY_BYTES, MAX_MEMORY_BYTES, 4096)
    yield from _number(Spot(HEADER, key="seed"), workload.seed, 0, MAX_SEED)
    if workload.delay and (wrong := delay_defect(workload.delay)):
        yield defect("delay", wrong)
    for key, options in (("mkfs", workload.mkfs), ("mount", workload.mount)):
        if options and not workload.fs:
            yield defect(key, f"{key} options belong to one file system", "add an fs: line")
        elif options:
            wrong = mkfs_defect(options, workload.fs) if key == "mkfs" else mount_defect(options)
            yield from [defect(key, wrong)] if wrong else []


def _prose_defects(workload: Workload) -> Iterator[Defect]:
    prose = {key: str(getattr(workload, key)) for key in _PROSE}
    for key, text in prose.items():
        lines = text.split("\n") if key == "why" else [text]
        if any(_CONTROL.search(line) for line in lines):
            yield Defect(Spot(HEADER, key=key), f"{key} has a control character")
        elif text and (not _is_tidy(lines[0], lines) or not _is_text(text)):
            yield Defect(Spot(HEADER, key=key), f"{key} begins or ends with blanks, or is no Unicode text")
    if sum(map(len, prose.values())) > MAX_PROSE:
        yield Defect(Spot(HEADER, key="why"), f"{', '.join(_PROSE)} exceed {MAX_PROSE} characters")
    for word in workload.expect:
        if not _EXPECTED.fullmatch(word):
            hint = "names of oracle rules, such as: data size names"
            yield Defect(Spot(HEADER, key="expect"), f"{_show(word)} is no name", hint)


def _is_tidy(first: str, lines: list[str]) -> bool:
    """True if the text form gives these lines back: it drops outer empty lines and trailing blanks."""
    return bool(first) and first[0] != " " and bool(lines[-1]) and all(x == x.rstrip(" ") for x in lines)


# ---------------------------------------------------------------------------------------- actors


def _shape_defects(workload: Workload) -> Iterator[Defect]:
    actors, whole = workload.actors, Spot(HEADER)
    if len(actors) > MAX_ACTORS:
        yield Defect(Spot(MAX_ACTORS + 1), f"more than {MAX_ACTORS} actors")
    if not any(actor.loop is not None for actor in actors):
        hint = "without one, loop=others never ends"
        yield Defect(Spot(1) if actors else whole, "no actor with a counted loop", hint)
    count = len(workload.setup)
    if count > MAX_OPS:
        yield Defect(Spot(SETUP, MAX_OPS), f"more than {MAX_OPS} ops")
    for number, actor in enumerate(actors, 1):
        if count <= MAX_OPS < count + len(actor.ops):
            yield Defect(Spot(number, MAX_OPS - count), f"more than {MAX_OPS} ops")
        count += len(actor.ops)


def _actor_defects(workload: Workload, number: int) -> Iterator[Defect]:
    actor, spot = workload.actors[number - 1], Spot(number)
    if not _ACTOR_NAME.fullmatch(actor.name) or actor.name == "setup":
        hint = "a lower-case letter, then at most 31 of a-z 0-9 _ -; not `setup`"
        yield Defect(spot, f"bad actor name {_show(actor.name)}", hint)
    if any(actor.name == earlier.name for earlier in workload.actors[: number - 1]):
        yield Defect(spot, f"a second actor {_show(actor.name)}")
    if not actor.ops:
        yield Defect(spot, f"actor {_show(actor.name)} has no ops")
    if actor.cpu is not None:
        yield from _number(Spot(number, key="cpu"), actor.cpu, 0, MAX_CPU)
    if actor.sched not in SCHED_POLICIES:
        yield Defect(
            Spot(number, key="sched"), f"sched {_show(actor.sched)} is not one of {_list(SCHED_POLICIES)}"
        )
    if actor.loop is not None:
        yield from _loop_defects(actor, number)


def _loop_defects(actor: Actor, number: int) -> Iterator[Defect]:
    most = MAX_SEQUENCE // max(1, len(actor.ops))
    if actor.loop is not None and not 1 <= actor.loop <= most:
        message = f"loop={actor.loop} of {len(actor.ops)} ops is outside 1…{most}"
        yield Defect(Spot(number, key="loop"), message, f"an actor runs at most {MAX_SEQUENCE} ops")


# ------------------------------------------------------------------------------------------- ops

Complaint = tuple[str, str, str]
"""Parameter (empty: the op itself), message, hint."""


def _op_defects(op: Op, block: int, fs: str) -> Iterator[Complaint]:
    spec = OPS.get(op.name)
    if spec is None:
        yield "", f"unknown op {_show(op.name)}", ""
        return
    if tuple(name for name, _ in op.args) != tuple(param.name for param in spec.params):
        yield "", f"{op.name} takes {_list(param.name for param in spec.params)}", ""
        return
    sound = True
    for param, (_, value) in zip(spec.params, op.args, strict=True):
        for message, hint in _value_defects(param, value):
            sound = False
            yield param.name, message, hint
    if sound:
        for rule in _RULES:
            yield from rule(op, block, fs)


def _value_defects(param: Param, value: Value) -> Iterator[tuple[str, str]]:
    kind = param.kind
    if kind in (Kind.BYTES, Kind.NUMBER):
        yield from _numeric_defects(param, value)
    elif kind is Kind.MODE:
        if not isinstance(value, int) or not param.low <= value <= param.high:
            yield f"{param.name} is not within 0…{param.high:04o}", ""
    elif not isinstance(value, str):
        yield f"{param.name} is not a text", ""
    elif kind is Kind.CHOICE:
        if value not in param.choices:
            yield f"{param.name} {_show(value)} is not one of {_list(param.choices)}", ""
    elif kind is Kind.PATH:
        yield from _path_defects(value)
    elif not value or not _is_text(value) or "\0" in value:
        yield f"{param.name} is empty, has a NUL or is no Unicode text", ""


def _numeric_defects(param: Param, value: Value) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield f"{param.name} is not a number", ""
        return
    numbers = (value.low, value.high) if isinstance(value, Draw) else (value,)
    if isinstance(value, Draw) and not (value.low <= value.high and value.step >= 1):
        yield f"{param.name}: a draw goes from low to high in steps of at least 1", "rand(LOW,HIGH,STEP)"
        return
    for number in numbers:
        if not param.low <= number <= param.high:
            yield f"{param.name} {number} is outside {param.low}…{param.high}", ""
            return
    # The highest number of a draw need not be reached, so only its start and step have to fit.
    steps = (value.low, value.step) if isinstance(value, Draw) else numbers
    if any(number % param.unit for number in steps):
        yield f"{param.name} is not a multiple of {param.unit}", ""


def _path_defects(path: str) -> Iterator[tuple[str, str]]:
    parts = path.split("/")
    if path == ".":
        return
    if not path or path.startswith("/"):
        yield f"path {_show(path)} is not relative", "paths start at the workload's mount; `.` is its root"
    elif any(part in ("", ".", "..") for part in parts):
        yield f"path {_show(path)} has an empty, `.` or `..` component", ""
    elif not _is_text(path) or "\0" in path:
        yield "path has a NUL or is no Unicode text", ""
    elif len(path.encode()) > MAX_PATH_BYTES or any(len(p.encode()) > MAX_NAME_BYTES for p in parts):
        message = f"path is longer than {MAX_PATH_BYTES} bytes, or a component than {MAX_NAME_BYTES}"
        yield message, ""


def _file_end(op: Op, block: int, fs: str) -> Iterator[Complaint]:
    args = dict(op.args)
    for start in ("off", "src"):
        if start in args and "len" in args and _most(args[start]) + _most(args["len"]) > MAX_FILE_BYTES:
            yield start, f"{start} plus len is beyond {MAX_FILE_BYTES} bytes", "a stamp has no room for more"


def _shifting_fallocate(op: Op, block: int, fs: str) -> Iterator[Complaint]:
    if op.name == "fallocate" and op["mode"] in ("collapse", "insert"):
        unit = DIRECT_ALIGN_BYTES
        for key in ("off", "len"):
            value = op[key]
            steps = (value.low, value.step) if isinstance(value, Draw) else (value,)
            if any(isinstance(step, int) and step % unit for step in steps):
                yield key, f"{key} of {op['mode']} is not a multiple of {unit}", "the kernel says EINVAL"


def _faulting_write(op: Op, block: int, fs: str) -> Iterator[Complaint]:
    if op.name == "fault_write" and _most(op["good"]) > _least(op["len"]):
        yield "good", "good is more than len", "it counts the bytes that can be read"


def _bounded_text(op: Op, block: int, fs: str) -> Iterator[Complaint]:
    most = {
        "setxattr": MAX_XATTR_NAME_BYTES,
        "removexattr": MAX_XATTR_NAME_BYTES,
        "barrier": MAX_BARRIER_BYTES,
    }
    if op.name in most and len(op.text("name").encode()) > most[op.name]:
        yield "name", f"name is longer than {most[op.name]} bytes", ""
    if op.name == "barrier" and block == SETUP:
        yield "", "a barrier in the setup waits for nobody", "setup runs alone, before the actors start"


def _link_target(op: Op, block: int, fs: str) -> Iterator[Complaint]:
    # Later ops follow the link: a target outside the mount would let a workload file write there.
    if op.name == "symlink":
        for message, _ in _path_defects(op.text("target")):
            yield "target", message.replace("path", "target", 1), "links must stay inside the mount"


def _knob_value(op: Op, block: int, fs: str) -> Iterator[Complaint]:
    if op.name == "knob":
        low, high = KNOBS[op.text("name")]
        if not low <= _least(op["value"]) <= _most(op["value"]) <= high:
            yield "value", f"{op.text('name')} is set to something outside {low}…{high}", ""


def _right_fs(op: Op, block: int, fs: str) -> Iterator[Complaint]:
    for name in op.spec.requires:
        if name in FILE_SYSTEMS and name != fs:
            yield "", f"{op.name} works on {name} only", f"add the line `fs: {name}`"


_RULES: tuple[Callable[[Op, int, str], Iterator[Complaint]], ...] = (
    _file_end,
    _shifting_fallocate,
    _faulting_write,
    _bounded_text,
    _link_target,
    _knob_value,
    _right_fs,
)


# --------------------------------------------------------------------------------------- helpers


def _number(spot: Spot, value: int, low: int, high: int, unit: int = 1) -> Iterator[Defect]:
    if not low <= value <= high:
        yield Defect(spot, f"{spot.key} {value} is outside {low}…{high}")
    elif value % unit:
        yield Defect(spot, f"{spot.key} {value} is not a multiple of {unit}")


def _most(value: Value) -> int:
    assert not isinstance(value, str)
    return value.high if isinstance(value, Draw) else value


def _least(value: Value) -> int:
    assert not isinstance(value, str)
    return value.low if isinstance(value, Draw) else value


def _is_text(text: str) -> bool:
    """False for lone surrogates, which no UTF-8 file can hold."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _show(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
