"""The text form of a workload, both ways; `parser.py` is its reading half.

A file is `powercut 1`, header lines `key: value`, an optional `setup` block and `actor` blocks of
indented ops. Required parameters are positional, optional ones `key=value`. A line that begins with
`#` is a comment, and so is the rest of an op or actor line after a blank and `#`. `format` is
canonical: `format(parse(s)) == s` for everything it prints.
"""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.errors import InputError
from fuzzer.workload.model import Actor, Draw, Op, Value, Workload
from fuzzer.workload.ops import SHIFT, Kind, Param
from fuzzer.workload.parser import BARE, HEADER_KEYS, VERSION, Parser, quote

MAX_TEXT = 1 << 20
"""Longest accepted text, bytes or characters: a thousand times what a person would write."""

_DEFAULTS = Workload()


def parse_bytes(data: bytes, name: str = "<workload>") -> Workload:
    """Parse the content of a file. Raises InputError, whatever the bytes are."""
    if len(data) > MAX_TEXT:
        raise InputError(f"larger than {MAX_TEXT} bytes", place=f"{name}:1:1", hint="is it a workload?")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise InputError("not UTF-8 text", place=f"{name}:{line}:{column}") from error
    return parse(text, name)


def parse(text: str, name: str = "<workload>") -> Workload:
    """Parse and validate a workload. Raises InputError with place `name:line:column`, counted from 1."""
    if len(text) > MAX_TEXT:
        hint = "is it a workload?"
        raise InputError(f"larger than {MAX_TEXT} characters", place=f"{name}:1:1", hint=hint)
    parser = Parser(name)
    parser.check_characters(text)
    first, *lines = text.split("\n")
    parser.check_version(first)
    for number, line in enumerate(lines, 2):
        parser.line_number = number
        parser.line(line)
    return parser.finish()


def format(workload: Workload) -> str:
    """The canonical text of a valid workload; defaults are left out."""
    lines = [f"powercut {VERSION}", *_format_header(workload)]
    if workload.setup:
        lines += ["", "setup", *_format_ops(workload.setup)]
    for actor in workload.actors:
        lines += ["", _format_actor(actor), *_format_ops(actor.ops)]
    return "\n".join(lines) + "\n"


def _format_header(workload: Workload) -> Iterator[str]:
    for key in HEADER_KEYS:
        value = getattr(workload, key)
        if value == getattr(_DEFAULTS, key):
            continue
        if key == "why":
            value = "\n".join(f"  {line}" if line else "" for line in value.split("\n")).lstrip(" ")
        elif key in ("expect", "requires"):
            value = " ".join(value)
        elif key in ("size", "memory"):
            value = format_size(value)
        yield f"{key}: {value}"


def _format_actor(actor: Actor) -> str:
    words = [f"actor {actor.name}"]
    if actor.loop != 1:
        words.append("loop=others" if actor.loop is None else f"loop={actor.loop}")
    if actor.cpu is not None:
        words.append(f"cpu={actor.cpu}")
    if actor.sched != "other":
        words.append(f"sched={actor.sched}")
    return " ".join(words)


def _format_ops(ops: tuple[Op, ...]) -> Iterator[str]:
    for op in ops:
        yield f"  {format_op(op)}"


def format_op(op: Op) -> str:
    """One op as its line reads, without the indentation."""
    words = [op.name]
    for param, (_, value) in zip(op.spec.params, op.args, strict=True):
        if param.required:
            words.append(_format_value(param, value))
        elif value != param.default:
            words.append(f"{param.name}={_format_value(param, value)}")
    return " ".join(words)


def _format_value(param: Param, value: Value) -> str:
    number = format_size if param.kind is Kind.BYTES else str
    if isinstance(value, Draw):
        return f"rand({number(value.low)},{number(value.high)},{number(value.step)})"
    if isinstance(value, int):
        return f"{value:04o}" if param.kind is Kind.MODE else number(value)
    return value if BARE.fullmatch(value) else quote(value)


def format_size(size_bytes: int) -> str:
    """`4K`, `320M`, `4097`: the largest suffix that is exact."""
    for suffix in "GMK":
        if size_bytes and size_bytes % (1 << SHIFT[suffix]) == 0:
            return f"{size_bytes >> SHIFT[suffix]}{suffix}"
    return str(size_bytes)
