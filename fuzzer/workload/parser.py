"""Reads the text form of a workload line by line. With `text.py`, the only one to know the syntax.

It checks what can be seen in the text alone; whether the workload makes sense is `validate`'s, whose
complaints are given back the lines and columns that only the parser knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import NoReturn

from fuzzer.errors import InputError
from fuzzer.workload.model import SETUP, Actor, Draw, Op, Value, Workload, make_op
from fuzzer.workload.ops import OPS, SHIFT, Kind, OpSpec, Param
from fuzzer.workload.validate import HEADER, Defect, Spot, defects

VERSION = 1
HEADER_KEYS = (
    *("title", "why", "source", "kernels", "expect", "sure", "descends"),
    *("requires", "fs", "size", "mkfs", "mount", "memory", "delay", "seed"),
)
"""Header lines, in the order they are printed in."""

BARE = re.compile(r"[A-Za-z0-9._/+@-]+")
"""Paths and texts that need no quotes. `=` is left out, so that key=value is never a path."""

_MAGIC = re.compile(r"powercut (\S{1,40})[ \t]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BLOCK = re.compile(r"(setup|actor)(?=[ \t#]|$)")
_HEADER = re.compile(r"([^ \t:#]{1,40})[ \t]*:")
_TOKEN = re.compile(r'(?:([a-z][a-z0-9_]*)=)?("(?:[^"\\]|\\.)*"|[^ \t"#]*)(?=[ \t]|$)')
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,18})([KMG]?)")
_DRAW = re.compile(r"rand\(([^,]*),([^,]*),([^,]*)\)")
_OCTAL = re.compile(r"[0-7]{1,5}")
_NUMBER_KEYS = {"size": True, "memory": True, "seed": False}
"""Header keys that are numbers; True: with a suffix."""

_ACTOR_USAGE = "actor NAME [loop=N|others] [cpu=N] [sched=idle|throttled]"
_DEFAULTS = Workload()


def usage(spec: OpSpec) -> str:
    """How an op is written, such as `write PATH OFF LEN [sync=none|dsync|sync]`."""
    words = [spec.name]
    for param in spec.params:
        if param.required:
            words.append(param.name.upper())
        else:
            words.append(f"[{param.name}={'|'.join(param.choices) or param.kind.value.upper()}]")
    return " ".join(words)


def quote(text: str) -> str:
    """A JSON string in pure ASCII: what a terminal shows is what is in the file."""
    return json.dumps(text)


@dataclass(frozen=True, slots=True)
class _Token:
    """A word of an op or actor line. `key` is empty for a positional one; quotes are still on."""

    column: int
    key: str
    value: str


@dataclass(slots=True)
class _Block:
    name: str
    loop: int | None = 1
    cpu: int | None = None
    sched: str = "other"
    ops: list[Op] = field(default_factory=list)


@dataclass(slots=True)
class Parser:
    """Reads line by line; remembers where everything stood for the complaints of `validate`."""

    name: str
    line_number: int = 1
    header: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)
    places: dict[Spot, tuple[int, int]] = field(default_factory=dict)
    last_key: str = ""
    blank_lines: int = 0

    def fail(self, column: int, message: str, hint: str = "") -> NoReturn:
        raise InputError(message, place=f"{self.name}:{self.line_number}:{column}", hint=hint)

    def check_characters(self, text: str) -> None:
        found = _CONTROL.search(text)
        if found:
            at = found.start()
            self.line_number = text.count("\n", 0, at) + 1
            hint = "use Unix line ends" if found[0] == "\r" else "a workload is plain text"
            self.fail(at - text.rfind("\n", 0, at), f"control character {found[0]!r}", hint)

    def check_version(self, line: str) -> None:
        match = _MAGIC.fullmatch(line)
        if not match:
            self.fail(1, "not a powercut workload", f"the first line must be `powercut {VERSION}`")
        if match[1] != str(VERSION):
            hint = f"this powercut reads format {VERSION}; a newer one may read this file"
            self.fail(match.start(1) + 1, f"workload format {match[1]} is not known", hint)

    def line(self, line: str) -> None:
        line = line.rstrip(" \t")
        if not line:
            self.blank_lines += 1
        elif line[0] == "#":
            return
        elif line[0] in " \t":
            self._indented_line(line)
        elif _BLOCK.match(line):
            self._block_line(line)
        else:
            self._header_line(line)

    @property
    def has_setup(self) -> bool:
        return bool(self.blocks) and self.blocks[0].name == "setup"

    def finish(self) -> Workload:
        """The workload, once it is complete and makes sense."""
        header, numbers = self.header, self.numbers
        workload = Workload(
            title=header.get("title", ""),
            why="\n".join(self.why),
            source=header.get("source", ""),
            kernels=header.get("kernels", ""),
            expect=_words(header.get("expect", "")),
            sure=header.get("sure", ""),
            descends=header.get("descends", ""),
            requires=_words(header.get("requires", "")),
            fs=header.get("fs", ""),
            size=numbers.get("size", _DEFAULTS.size),
            mkfs=header.get("mkfs", ""),
            mount=header.get("mount", ""),
            memory=numbers.get("memory", _DEFAULTS.memory),
            delay=header.get("delay", ""),
            seed=numbers.get("seed", _DEFAULTS.seed),
            setup=tuple(self.blocks[0].ops) if self.has_setup else (),
            actors=tuple(
                Actor(block.name, tuple(block.ops), block.loop, block.cpu, block.sched)
                for block in self.blocks[self.has_setup :]
            ),
        )
        for defect in (*self._empty_parts(), *islice(defects(workload), 1)):
            self.line_number, column = self._place(defect.spot)
            self.fail(column, defect.message, defect.hint)
        return workload

    def _empty_parts(self) -> Iterator[Defect]:
        """What `format` would silently leave out."""
        if "why" in self.header and not self.why:
            yield Defect(Spot(HEADER, key="why"), "why is empty", "leave the line out")
        if self.has_setup and not self.blocks[0].ops:
            yield Defect(Spot(SETUP), "the setup has no ops", "leave the line out")

    def _place(self, spot: Spot) -> tuple[int, int]:
        """Line and column of a spot, or of what surrounds it if the text does not mention it."""
        for near in (spot, Spot(spot.block, spot.op), Spot(spot.block)):
            if near in self.places:
                return self.places[near]
        return 1, 1

    # ------------------------------------------------------------------------------- header lines

    def _header_line(self, line: str) -> None:
        match = _HEADER.match(line)
        word = match[1] if match else re.split(r"[ \t:]", line[:40])[0]
        if self.blocks:
            self.fail(1, f"unexpected {word!r}", "ops are indented; the header comes before the blocks")
        if word not in HEADER_KEYS:
            self.fail(1, f"unknown header {word!r}", _did_you_mean(word, (*HEADER_KEYS, "setup", "actor")))
        if not match:
            self.fail(len(word) + 1, f"no colon after {word}", f"{word}: VALUE")
        if word in self.header:
            self.fail(1, f"a second {word}")
        value = line[match.end() :].lstrip(" \t")
        column = len(line) - len(value) + 1
        if not value and word != "why":
            self.fail(column, f"{word} is empty", "leave the line out for the default")
        self.places[Spot(HEADER, key=word)] = (self.line_number, column)
        self.header[word] = value
        if word in _NUMBER_KEYS:
            self.numbers[word] = self._number(word, value, column, suffix=_NUMBER_KEYS[word])
        self.why += [value] if word == "why" and value else []
        self.last_key, self.blank_lines = word, 0

    def _indented_line(self, line: str) -> None:
        if self.blocks:
            self._op_line(line)
        elif self.last_key == "why":
            text = line[2:] if line.startswith("  ") else line[1:]
            self.why += [""] * (self.blank_lines if self.why else 0)
            self.why.append(text if self.why else text.lstrip(" "))
            self.blank_lines = 0
        else:
            self.fail(1, "an indented line outside of a block", "ops belong under `setup` or `actor NAME`")

    # ----------------------------------------------------------------------------- blocks and ops

    def _block_line(self, line: str) -> None:
        keyword, *tokens = self._tokens(line)
        if keyword.value == "setup":
            if self.blocks:
                self.fail(1, "setup comes once, before the actors")
            if tokens:
                self.fail(tokens[0].column, "nothing may follow `setup`")
            self.places[Spot(SETUP)] = (self.line_number, 1)
            self.blocks.append(_Block("setup"))
        elif not tokens or tokens[0].key:
            self.fail(len(keyword.value) + 1, "an actor needs a name", _ACTOR_USAGE)
        elif tokens[0].value == "setup":
            self.fail(tokens[0].column, "an actor cannot be called setup")
        else:
            self._start_actor(*tokens)

    def _start_actor(self, name: _Token, *options: _Token) -> None:
        self.blocks.append(_Block(name.value))
        number = len(self.blocks) - self.has_setup
        self.places[Spot(number)] = (self.line_number, name.column)
        for token in options:
            self._actor_option(self.blocks[-1], number, token)

    def _actor_option(self, block: _Block, number: int, token: _Token) -> None:
        spot = Spot(number, key=token.key)
        if token.key not in ("loop", "cpu", "sched"):
            shown = (token.key or token.value)[:40]
            self.fail(token.column, f"an actor has no option {shown!r}", _ACTOR_USAGE)
        if spot in self.places:
            self.fail(token.column, f"a second {token.key}=")
        self.places[spot] = (self.line_number, token.column)
        if token.key == "cpu":
            block.cpu = self._number("cpu", token.value, token.column, suffix=False)
        elif token.key == "sched":
            block.sched = token.value
        elif token.value == "others":
            block.loop = None
        else:
            block.loop = self._number("loop", token.value, token.column, suffix=False)

    def _op_line(self, line: str) -> None:
        tokens = list(self._tokens(line))
        if not tokens:
            return
        name, *words = tokens
        spec = OPS.get(name.value)
        if spec is None or name.key:
            shown = (f"{name.key}={name.value}" if name.key else name.value)[:40]
            self.fail(name.column, f"unknown op {shown!r}", _did_you_mean(shown, tuple(OPS)))
        block = self.blocks[-1]
        spot = Spot(len(self.blocks) - self.has_setup, len(block.ops))
        self.places[spot] = (self.line_number, name.column)
        values: dict[str, Value] = {}
        for token, param in self._bind(spec, name, words):
            if param.name in values:
                self.fail(token.column, f"a second {param.name}=")
            self.places[Spot(spot.block, spot.op, param.name)] = (self.line_number, token.column)
            values[param.name] = self._value(param, token)
        block.ops.append(make_op(spec.name, values))

    def _bind(self, spec: OpSpec, name: _Token, words: list[_Token]) -> Iterator[tuple[_Token, Param]]:
        """Match words with parameters: first the required ones by position, then key=value."""
        required = [param for param in spec.params if param.required]
        optional = {param.name: param for param in spec.params if not param.required}
        for param, token in zip(required, words, strict=False):
            if token.key:
                self.fail(token.column, f"{param.name} of {spec.name} goes by position", usage(spec))
            yield token, param
        if len(words) < len(required):
            self.fail(name.column, f"{spec.name} needs {required[len(words)].name}", usage(spec))
        for token in words[len(required) :]:
            if not token.key:
                self.fail(token.column, f"{spec.name} takes no more positional values", usage(spec))
            if token.key not in optional:
                hint = _did_you_mean(token.key, tuple(optional)) if optional else usage(spec)
                self.fail(token.column, f"{spec.name} has no option {token.key[:40]!r}", hint)
            yield token, optional[token.key]

    # --------------------------------------------------------------------------- words and values

    def _tokens(self, line: str) -> Iterator[_Token]:
        at = 0
        while at < len(line):
            if line[at] in " \t":
                at += 1
                continue
            if line[at] == "#":
                return
            match = _TOKEN.match(line, at)
            if not match or match.end() == at:
                hint = "a closing quote needs a blank after it, a # one before it"
                self.fail(at + 1, f"cannot read {line[at : at + 20]!r}", hint)
            yield _Token(at + 1, match[1] or "", match[2])
            at = match.end()

    def _value(self, param: Param, token: _Token) -> Value:
        if param.kind in (Kind.PATH, Kind.TEXT, Kind.CHOICE):
            return self._text(param, token)
        if param.kind is Kind.MODE:
            if not _OCTAL.fullmatch(token.value):
                self.fail(token.column, f"{param.name} {token.value[:40]!r} is not octal", "such as 0644")
            return int(token.value, 8)
        draw = _DRAW.fullmatch(token.value)
        suffix = param.kind is Kind.BYTES
        numbers = [
            self._number(param.name, word, token.column, suffix=suffix)
            for word in (draw.groups() if draw else (token.value,))
        ]
        return Draw(*numbers) if draw else numbers[0]

    def _number(self, what: str, word: str, column: int, *, suffix: bool) -> int:
        match = _NUMBER.fullmatch(word)
        if not match or (match[2] and not suffix):
            hint = "digits, then K, M, G or nothing; or rand(LOW,HIGH,STEP)" if suffix else "digits only"
            self.fail(column, f"{what} {word[:40]!r} is not a number", hint)
        return int(match[1]) << SHIFT[match[2]]

    def _text(self, param: Param, token: _Token) -> str:
        if BARE.fullmatch(token.value):
            return token.value
        if not token.value.startswith('"'):
            hint = f"write it as {quote(token.value[:40])}"
            self.fail(token.column, f"{param.name} {token.value[:40]!r} needs quotes", hint)
        try:
            return str(json.loads(token.value))
        except ValueError as error:
            self.fail(token.column, f"{param.name}: bad quoted text", f"quoting is JSON's: {error}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.split(r"[ \t]+", text)) if text else ()


def _did_you_mean(word: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(word[:40], known, 1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
