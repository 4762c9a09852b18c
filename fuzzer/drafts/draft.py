"""What an import gives, and the ways to build ops that all imports share."""

from __future__ import annotations

from dataclasses import dataclass

from fuzzer.workload.model import Op, Value, Workload, make_op
from fuzzer.workload.ops import DIRECT_ALIGN_BYTES, OPS, WORD_BYTES


@dataclass(frozen=True, slots=True)
class Unread:
    """A line of the source that nothing was made of. `line` counts from 1."""

    line: int
    text: str
    reason: str = "not understood"


@dataclass(frozen=True, slots=True)
class Draft:
    """A workload made from some text. `name` is a file name for it, without its ending."""

    name: str
    workload: Workload
    unread: tuple[Unread, ...] = ()
    notes: tuple[str, ...] = ()
    """What was changed on the way, for people."""


def op(name: str, *required: Value, **more: Value) -> Op:
    """An op with its required parameters by position, as its line in a workload reads."""
    keys = [param.name for param in OPS[name].params if param.required]
    return make_op(name, {**dict(zip(keys, required, strict=True)), **more})


@dataclass(slots=True)
class Rounder:
    """Brings numbers to the units a workload has, and counts those it changed."""

    changed: int = 0

    def down(self, number: int, unit: int = WORD_BYTES) -> int:
        rounded = number // unit * unit
        self.changed += rounded != number
        return rounded

    def length(self, number: int, unit: int = WORD_BYTES) -> int:
        """Like `down`, but never nothing."""
        return max(unit, self.down(number, unit))

    def block(self, number: int) -> int:
        return self.down(number, DIRECT_ALIGN_BYTES)

    def told(self) -> tuple[str, ...]:
        """What to tell people of it."""
        words = f"{self.changed} numbers rounded to multiples of {WORD_BYTES} or {DIRECT_ALIGN_BYTES}"
        return (words,) if self.changed else ()
