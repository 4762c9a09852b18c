"""Histories and trees in a few words, for cases written by hand.

A history is lines of `[label:] begin-end op arguments`, times in ns, end `?` if the op never returned,
`!ERRNO` behind an op that failed. Names are followed from line to line, so lines that race are written
in the order they took effect; `subject=NAME` or `other=NAME` says what a lookup saw instead (`-`:
nothing). An inode is called after the path it was made at, or as `as=NAME` says.

A tree is `path` or `path=inode` per name, and per inode what it holds.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from typing import Any

import pytest

from fuzzer.state.history import FOREVER, Event, History
from fuzzer.state.recovery import Recovery
from fuzzer.state.stamps import FOREIGN, ZERO, Run, file_tag
from fuzzer.state.tree import Node, Tree
from fuzzer.workload.model import Op, Value, make_op, op_id
from fuzzer.workload.ops import OPS, Kind
from fuzzer.writelog.crash import Cut
from oracles import PROFILES, Judgement, Profile, build_versions, judge
from oracles.versions import Commits

ROOT = 2
UNLIMITED = 1 << 50
"""Bytes every file has reserved if a case does not say how many."""

SUBVOLUME = 1 << 64
"""Identity of a subvolume's root: any number, and the subvolume where others have a generation."""

_BORN = {
    "create": "file",
    "mkdir": "dir",
    "symlink": "symlink",
    "mknod": "other",
    "tmplink": "file",
    "subvol_create": "dir",
    "snapshot": "dir",
}
_COUNTED = {
    "write": "len",
    "dwrite": "len",
    "awrite": "len",
    "mwrite": "len",
    "splice": "len",
    "copy_range": "len",
    "fault_write": "good",
}
"""Ops that return how many bytes they did, and which of their parameters says how many."""

_NAMES = {*_BORN, "link", "rename", "unlink", "rmdir", "subvol_delete"}


class Script:
    """A history under construction."""

    def __init__(self, text: str) -> None:
        self.inodes = {".": ROOT, "-": 0}
        self.births: dict[str, Event] = {}
        self.ops: dict[str, Event] = {}
        self.events: list[Event] = []
        self._entries: dict[str, int] = {".": ROOT}
        for line in text.strip().splitlines():
            self._add(line.split("#")[0].split())
        self.history = History(tuple(sorted(self.events, key=lambda e: e.begin_ns)), ROOT)

    def _add(self, words: list[str]) -> None:
        label = words.pop(0)[:-1] if words[0].endswith(":") else ""
        begin, end = words.pop(0).split("-")
        extra = dict(w.split("=") for w in words if w.split("=")[0] in ("subject", "other", "as", "at"))
        failed = [w[1:] for w in words if w.startswith("!")]
        words = [w for w in words if not w.startswith("!") and w.split("=")[0] not in extra]
        op = _make(words)
        sequence = len(self.events)
        event = Event(
            id=op_id(1, sequence),
            actor=1,
            sequence=sequence,
            op=op,
            begin_ns=int(begin),
            end_ns=FOREVER if end == "?" else int(end),
            errno=getattr(errno, failed[0]) if failed else 0,
            result=op.number(_COUNTED[op.name]) if op.name in _COUNTED and not failed else 0,
        )
        called = extra.pop("as", "")
        event = replace(event, result=int(extra.pop("at", event.result)))
        event = self._with_inodes(event, called, failed=bool(failed))
        if extra:
            event = replace(event, **{k: self.inodes[v] for k, v in extra.items()})
        self.events.append(event)
        self.ops[label] = event
        if op.name in _BORN and not failed:
            self.births[called or op.text("path")] = event

    def _with_inodes(self, event: Event, called: str, *, failed: bool) -> Event:
        op, at = event.op, self._entries
        if op.name not in _NAMES:
            paths = [key for key, _ in op.args if key in ("to", "path")]
            target = op.text(paths[0]) if paths else "."
            other = at[op.text("from")] if op.name in ("clone", "copy_range", "exchange_range") else 0
            return replace(event, subject=at.get(target, 0), other=other)
        if op.name in _BORN:
            path = op.text("path")
            made = SUBVOLUME if op.name in ("subvol_create", "snapshot") else 1
            number = self.inodes.get(called or path, made * (10 + len(self.inodes)))
            if not failed:
                self.inodes[called or path] = at[path] = number
            return replace(event, subject=0 if failed else number, directory=at[_parent(path)])
        if op.name == "link":
            old, new = op.text("from"), op.text("to")
            if not failed:
                at[new] = at[old]
            return replace(event, subject=at[old], directory=at[_parent(new)])
        if op.name == "rename":
            return self._rename(event, failed=failed)
        path = op.text("path")
        event = replace(event, subject=at.get(path, 0), directory=at[_parent(path)])
        if not failed:
            del at[path]
        return event

    def _rename(self, event: Event, *, failed: bool) -> Event:
        at, old, new = self._entries, event.op.text("from"), event.op.text("to")
        event = replace(event, subject=at.get(old, 0), other=at.get(new, 0))
        event = replace(event, directory=at[_parent(old)], directory2=at[_parent(new)])
        if failed:
            return event
        moved, replaced = at.pop(old), at.pop(new, 0)
        at[new] = moved
        if event.op.text("flags") == "exchange":
            at[old] = replaced
        elif event.op.text("flags") == "whiteout":
            at[old] = self.inodes[f"{old}/whiteout"] = 10 + len(self.inodes)
        for path in [p for p in at if p.startswith(old + "/")]:
            at[new + path[len(old) :]] = at.pop(path)
        return event


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _make(words: list[str]) -> Op:
    name, positional = words[0], [w for w in words[1:] if "=" not in w]
    values: dict[str, Value] = {}
    required = [param for param in OPS[name].params if param.required]
    named = [w.split("=") for w in words[1:] if "=" in w]
    for key, text in [*zip([p.name for p in required], positional, strict=True), *named]:
        kind = OPS[name].param(key).kind
        is_number = kind in (Kind.BYTES, Kind.NUMBER, Kind.MODE)
        values[key] = int(text, 8 if kind is Kind.MODE else 10) if is_number else text
    return make_op(name, values)


@dataclass(frozen=True)
class Has:
    """What an inode holds. `runs`: `op:start-end` by label, `0` for zeroes, `?` for foreign words;
    `op@written:start-end` for words written at another offset, or `op/inode:…` in another file."""

    runs: str = ""
    size: int | None = None
    mode: int | None = None
    owner: tuple[int, int] = (0, 0)
    nlink: int | None = None
    kind: str = ""
    target: str | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()


def make_tree(script: Script, fs: str, names: str, **inodes: Has) -> Tree:
    """`d/x` is spelled `d_x` in `inodes`."""
    shown = [word.partition("=") for word in names.split()]
    paths = {path: script.inodes[label or path] for path, _, label in shown}
    entries = {(paths.get(_parent(p), ROOT), p.rsplit("/", 1)[-1]): inode for p, inode in paths.items()}
    called = {number: label for label, number in script.inodes.items()}
    nodes = {}
    for number in {ROOT, *paths.values()}:
        has = inodes.get(called[number].replace("/", "_").replace(".", "root"), Has())
        nodes[number] = _node(script, fs, number, called[number], has, entries)
    return Tree(ROOT, nodes, entries)


def _node(script: Script, fs: str, number: int, label: str, has: Has, entries: dict[Any, int]) -> Node:
    birth = script.births.get(label)
    kind = has.kind or (_BORN[birth.op.name] if birth else "dir")
    runs = tuple(make_run(script, number, word) for word in has.runs.split())
    dirs = {script.inodes[path] for path, event in script.births.items() if event.op.name == "mkdir"}
    nlink = sum(n == number for n in entries.values())
    if kind == "dir":
        subdirs = sum(d == number and n in dirs for (d, _), n in entries.items())
        nlink = 1 if fs == "btrfs" else 2 + subdirs
    args = dict(birth.op.args) if birth else {}
    mode, target = int(str(args.get("mode", 0o755))), str(args.get("target", ""))
    return Node(
        inode=number,
        kind=kind,
        mode=mode if has.mode is None else has.mode,
        uid=has.owner[0],
        gid=has.owner[1],
        nlink=nlink if has.nlink is None else has.nlink,
        size=has.size if has.size is not None else runs[-1].end if runs else 0,
        target=target if has.target is None else has.target,
        xattrs=has.xattrs,
        runs=runs,
        allocated_bytes=UNLIMITED,
    )


def make_run(script: Script, inode: int, word: str) -> Run:
    """A word of `Has.runs` as a run of `inode`."""
    origin, _, span = word.partition(":")
    start, end = map(int, span.split("-"))
    if origin in ("0", "?"):
        return Run(start, end, ZERO if origin == "0" else FOREIGN)
    origin, _, written = origin.partition("@")
    origin, _, other = origin.partition("/")
    tag = file_tag(script.inodes[other] if other else inode)
    return Run(start, end, script.ops[origin].id, tag, start - int(written) if written else 0)


def judge_case(
    script: Script,
    fs: str,
    tree: Tree,
    cut_ns: int | None = None,
    commits: Commits = (),
    profile: Profile | None = None,
) -> Judgement:
    """The verdict on `tree` if power went at `cut_ns` (default: after everything), by the file system's
    own promises if no `profile` is given."""
    last = max(e.end_ns if e.returned else e.begin_ns for e in script.events)
    at = last + 1 if cut_ns is None else cut_ns
    versions = build_versions(script.history, commits if fs == "btrfs" else None)
    return judge(profile or PROFILES[fs], Recovery(tree=tree), versions, Cut(at, at))


BOTH = ("btrfs", "xfs")


@dataclass(frozen=True)
class Shown:
    """A tree after the crash."""

    names: str
    inodes: dict[str, Has]


def show(names: str = "", **inodes: Has) -> Shown:
    return Shown(names, inodes)


@dataclass(frozen=True)
class Row:
    """`bad` pairs a tree with the `rule kind` it must be reported as, or one of several (`|`). The
    `unordered` trees are `ok` on btrfs, whose log holds single inodes, and forbidden on xfs, which orders
    metadata, and data before sizes. `commits` are those of btrfs that no call in the history is known to
    have made."""

    title: str
    history: str
    ok: tuple[Shown, ...]
    bad: tuple[tuple[str, Shown], ...] = ()
    unordered: tuple[Shown, ...] = ()
    fs: tuple[str, ...] = BOTH
    cut_ns: int | None = None
    commits: Commits = ()


def check_row(row: Row, on: str) -> None:
    """Judge all trees of a row as one of file system `on`."""
    script = Script(row.history)
    ordered = on == "xfs"
    for shown in (*row.ok, *(() if ordered else row.unordered)):
        tree = make_tree(script, on, shown.names, **shown.inodes)
        found = judge_case(script, on, tree, row.cut_ns, row.commits).violations
        assert not found, (shown, found[0])
    for shown in row.unordered if ordered else ():
        tree = make_tree(script, on, shown.names, **shown.inodes)
        assert judge_case(script, on, tree, row.cut_ns, row.commits).violations, shown
    for expected, shown in row.bad:
        tree = make_tree(script, on, shown.names, **shown.inodes)
        kinds = {
            f"{v.rule} {v.kind}" for v in judge_case(script, on, tree, row.cut_ns, row.commits).violations
        }
        assert kinds & set(expected.split("|")), (shown, kinds)


def each_fs(*rows: Row) -> list[object]:
    """Parameters (row, file system) of a test."""
    return [pytest.param(row, on, id=f"{on}: {row.title}") for row in rows for on in row.fs]
