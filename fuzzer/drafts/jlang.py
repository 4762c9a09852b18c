"""CrashMonkey's J-lang: the workloads its generator ACE writes, one op a line in sections.

Names have no slashes (`Afoo` is `A/foo`); the section `# define` lists those there are. The meaning of
each op follows CrashMonkey's own adapters (utsaslab/crashmonkey, ace/cmAdapter.py, ace/xfstestAdapter.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fuzzer.drafts.draft import Draft, Rounder, Unread, op
from fuzzer.errors import InputError
from fuzzer.workload.model import Actor, Op, Workload
from fuzzer.workload.ops import DIRECT_ALIGN_BYTES

_SECTION = re.compile(r"#\s*(define|declare|setup|run)\s*")
_ROOTS = ("", "test")
_NAMES = ("A", "B", "foo", "bar", "A/C", *(f"{d}/{f}" for d in ("A", "B", "A/C") for f in ("foo", "bar")))
"""What ACE calls things, where a file does not define it."""

_NOTHING = frozenset({"close", "checkpoint", "none"})
"""Ops without an effect of their own: a crash is tried after each sync call anyway."""

_FALLOCATE = {
    "0": "alloc",
    "FALLOC_FL_KEEP_SIZE": "keep",
    "FALLOC_FL_ZERO_RANGE": "zero",
    "FALLOC_FL_ZERO_RANGE|FALLOC_FL_KEEP_SIZE": "zero_keep",
    "FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE": "punch",
}
_XATTR = "xattr1"


def is_jlang(lines: Sequence[str]) -> bool:
    """True if this has the sections of a J-lang file."""
    sections = {match[1] for line in lines if (match := _SECTION.fullmatch(line))}
    return "run" in sections or {"define", "setup"} <= sections


def read_jlang(lines: Sequence[str], name: str) -> Draft:
    """The workload of a J-lang file; InputError if it runs nothing."""
    reader = _Reader()
    for number, line in enumerate(lines, 1):
        reader.line(number, line.strip())
    if not reader.run:
        raise InputError("no ops in the section run", place=f"{name}:{len(lines)}")
    workload = Workload(
        title=f"J-lang workload {name}"[:200],
        source="CrashMonkey J-lang file",
        setup=(*reader.setup, op("sync")) if reader.setup else (),
        actors=(Actor("one", tuple(reader.run)),),
    )
    return Draft(name, workload, tuple(reader.unread), reader.round.told())


@dataclass(slots=True)
class _Reader:
    section: str = ""
    setup: list[Op] = field(default_factory=list)
    run: list[Op] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    defined: dict[str, str] = field(default_factory=lambda: {n.replace("/", ""): n for n in _NAMES})
    files: set[str] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)
    round: Rounder = field(default_factory=Rounder)

    def line(self, number: int, line: str) -> None:
        match = _SECTION.fullmatch(line)
        if match:
            self.section = match[1]
        elif not line or line.startswith("#"):
            return
        elif self.section == "define":
            self.defined[line.replace("/", "")] = line
        elif self.section == "declare":
            return  # Variables of the generated C++; nothing happens here.
        else:
            self._op(number, line)

    def _op(self, number: int, line: str) -> None:
        word, *words = line.split()
        if word in _NOTHING:
            return
        try:
            made = tuple(self._made(word, words))
        except (KeyError, ValueError, IndexError):
            self.unread.append(Unread(number, line))
            return
        (self.setup if self.section == "setup" else self.run).extend(made)

    def _path(self, name: str) -> str:
        return "." if name in _ROOTS else self.defined.get(name, name)

    def _made(self, word: str, words: list[str]) -> Iterator[Op]:
        """The ops of one line. ValueError, KeyError or IndexError if it makes no sense."""
        if word == "sync":
            yield op("sync")
            return
        path = self._path(words[0])
        match word, words[1:]:
            case "mkdir" | "opendir", _:
                yield from self._directory(path, 0o755 if word == "opendir" else int(words[1], 8))
            case "open" | "creat" | "mknod", more:
                yield from self._file(word, path, int(more[-1], 8) if word == "open" else 0o644)
            case "fsync" | "fdatasync", []:
                is_directory = path == "." or path in self.directories
                yield op("fsync" if is_directory else word, path)
            case "rename" | "link" | "symlink", [other]:
                yield from self._names(word, path, self._path(other))
            case "unlink" | "remove" | "rmdir", []:
                yield op("rmdir" if path in self.directories else "unlink", path)
                self.files.discard(path)
                self.directories.discard(path)
            case "fsetxattr", []:
                yield op("setxattr", path, _XATTR)
            case "removexattr", []:
                yield op("removexattr", path, _XATTR)
            case "truncate", [size]:
                yield op("truncate", path, self.round.down(int(size)))
            case _:
                yield from self._data(word, path, words[1:])

    def _directory(self, path: str, mode: int) -> Iterator[Op]:
        if path != "." and path not in self.directories:
            self.directories.add(path)
            yield op("mkdir", path, mode=mode & 0o7777)

    def _file(self, word: str, path: str, mode: int) -> Iterator[Op]:
        if path not in self.files:
            self.files.add(path)
            yield op("mknod", path) if word == "mknod" else op("create", path, mode=mode & 0o7777)

    def _names(self, word: str, path: str, other: str) -> Iterator[Op]:
        yield op(word, path, other)
        for names in (self.files, self.directories):
            if path in names:
                names.add(other)
                names -= {path} if word == "rename" else set()

    def _data(self, word: str, path: str, words: list[str]) -> Iterator[Op]:
        if word == "falloc":
            mode, start, count = words
            span = self.round.down(int(start)), self.round.length(int(count))
            yield op("fallocate", path, *span, mode=_FALLOCATE[mode])
            return
        off, length = map(int, words)
        unit = {"write": 8, "mmapwrite": 8, "dwrite": DIRECT_ALIGN_BYTES}[word]
        off, length = self.round.down(off, unit), self.round.length(length, unit)
        if word == "mmapwrite":
            # A mapping cannot grow a file; the adapters reserve the space first, too.
            yield op("fallocate", path, 0, off + length)
            yield op("mwrite", path, off, length, msync="sync")
        else:
            yield op(word, path, off, length)
