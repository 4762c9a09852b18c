"""Every tree a tiny history could be thought to leave, told apart by the law and by the judge."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

from brute_extension import is_stored
from brute_history import BLOCK, HALF, PATHS, ROOT, SUB, Key, Tiny
from brute_law import FOREIGN, FRESH, NOWHERE, SECTOR, Law, span
from brute_order import Moment, OrderLaw

from fuzzer.state.history import Event
from fuzzer.state.recovery import Recovery
from fuzzer.state.stamps import Run, file_tag
from fuzzer.state.tree import Node, Tree
from fuzzer.state.xattr_value import xattr_value
from oracles import PROFILES, RULES, Violation, build_versions
from oracles.case import Case, Tally
from oracles.floors import compute_floors

BLOCKS = (0, BLOCK)
_DEFAULT_MODE = 0o644
_TRIES = 20
_MIXTURES = 6
"""Trees made of several moments, per legal assignment of names."""


@dataclass
class File:
    """What one inode shows. `blocks`: per block, the op of each piece."""

    size: int
    blocks: list[tuple[int, ...]]
    mode: int | None
    xattr: int | None


@dataclass
class Shown:
    names: dict[Key, int]
    files: dict[int, File] = field(default_factory=dict)


class Universe:
    """All trees of one history. `sort` says which object a candidate varies."""

    def __init__(self, tiny: Tiny, rng: random.Random) -> None:
        self.tiny, self.law, self.rng = tiny, Law(tiny), rng
        self.order = OrderLaw(tiny, self.law)
        self._versions = build_versions(tiny.history)
        self._profile = PROFILES[tiny.fs]
        self._floors = compute_floors(self._versions, tiny.cut, self._profile)
        births = [e for e in tiny.history.events if e.op.name == "create" and not e.failed]
        self.inodes = [e.subject or FRESH + e.actor for e in births]

    def violations(self, tree: Tree) -> list[Violation]:
        case = Case(self._profile, Recovery(tree=tree), Tally(), (self._versions, self._floors))
        return [v for rule in RULES for v in rule.check(case)]

    # Candidates

    def candidates(self) -> Iterator[tuple[str, bool, Shown]]:
        """(sort, legal, what is shown): all values of every object with all others legal, and mixtures of
        two moments."""
        for sort, legal, shown in (*self._apart(), *self._mixed()):
            if legal and self.order.applies and not self.in_order(shown):
                yield "order", False, shown
            elif legal and not self.is_stored(shown):
                yield "extension", False, shown
            else:
                yield sort, legal, shown

    def _apart(self) -> Iterator[tuple[str, bool, Shown]]:
        yield from self._names()
        for inode in self.inodes:
            homes = [dict(n) for n in sorted(self.law.names) if inode in dict(n).values()]
            if homes:
                yield from self._file(inode, self._legal(self.rng.choice(homes)))

    def in_order(self, shown: Shown) -> bool:
        """True if one moment explains all names, modes, xattrs and sizes."""
        names = tuple(shown.names.items())
        values = {(n, what): getattr(f, what) for n, f in shown.files.items() for what in ("mode", "xattr")}
        sizes = {n: f.size for n, f in shown.files.items()}
        return any(self.order.explains(m, names, values, sizes) for m in self._at(names))

    def is_stored(self, shown: Shown) -> bool:
        return all(is_stored(self.law, n, f.size, f.blocks) for n, f in shown.files.items())

    def _at(self, names: tuple[tuple[Key, int], ...]) -> list[Moment]:
        """The moments with these names."""
        return self._by_names.get(names, [])

    @cached_property
    def _by_names(self) -> dict[tuple[tuple[Key, int], ...], list[Moment]]:
        found: dict[tuple[tuple[Key, int], ...], list[Moment]] = {}
        for moment in sorted(self.order.moments, key=lambda m: (m.names, sorted(m.done))):
            found.setdefault(moment.names, []).append(moment)
        return found

    def _mixed(self) -> Iterator[tuple[str, bool, Shown]]:
        """Names of one moment, values and sizes of any."""
        if not self.order.applies:
            return
        for names in sorted(self._by_names.keys() & self.law.names):
            for _ in range(_MIXTURES):
                shown = self._legal(dict(names))
                for inode, file in shown.files.items():
                    values = [self.rng.choice(self.law_values(inode, what)) for what in ("mode", "xattr")]
                    size = self.rng.choice(sorted(self.law.sizes(inode)))
                    shown.files[inode] = File(size, file.blocks, *values)
                yield "order", True, shown

    def law_values(self, inode: int, what: str) -> list[int | None]:
        return sorted(self.law.values(inode, what), key=lambda v: v or 0)

    def _legal(self, names: dict[Key, int]) -> Shown:
        """Files that may be seen with these names, as far as the names may be."""
        shown = Shown(names, {n: self._legal_file(n) for n in set(names.values()) - {0}})
        if self.order.applies:
            moments = self._at(tuple(names.items()))
            for late, moment in product((True, False), self.rng.sample(moments, len(moments))):
                files = {n: self._as_at(n, f, dict(moment.values), late) for n, f in shown.files.items()}
                if self._are_legal(files) and self.in_order(Shown(names, files)):
                    return Shown(names, files)
        return shown

    def _as_at(self, inode: int, file: File, values: dict[tuple[int, str], int | None], late: bool) -> File:
        """`late`: as large as it ever was, else as small as can be."""
        size = file.size if late else min(self.law.sizes(inode))
        return File(size, file.blocks, values.get((inode, "mode")), values.get((inode, "xattr")))

    def _are_legal(self, files: dict[int, File]) -> bool:
        return all(
            getattr(file, what) in self.law.values(n, what)
            for n, file in files.items()
            for what in ("mode", "xattr")
        )

    def _legal_file(self, inode: int) -> File:
        values = [self.rng.choice(self.law_values(inode, what)) for what in ("mode", "xattr")]
        size = max(self.law.sizes(inode))
        for _ in range(_TRIES):
            blocks = [self.rng.choice(sorted(self.law.block(inode, b))) for b in BLOCKS]
            if is_stored(self.law, inode, size, blocks):
                break
        return File(size, blocks, *values)

    def _names(self) -> Iterator[tuple[str, bool, Shown]]:
        for row in product((0, *self.inodes), repeat=len(PATHS)):
            names = dict(zip(PATHS.values(), row, strict=True))
            yield "names", tuple(names.items()) in self.law.names, self._legal(names)

    def _file(self, inode: int, base: Shown) -> Iterator[tuple[str, bool, Shown]]:
        file = base.files[inode]

        def changed(new: File) -> Shown:
            return replace(base, files={**base.files, inode: new})

        legal_sizes = self.law.sizes(inode)
        for size in self._sizes(inode):
            yield "size", size in legal_sizes, changed(replace(file, size=size))
        for number, block in enumerate(BLOCKS):
            if file.size >= block + BLOCK:
                legal = self.law.block(inode, block)
                for content in self._contents(inode, block):
                    blocks = [*file.blocks[:number], content, *file.blocks[number + 1 :]]
                    yield "data", content in legal, changed(replace(file, blocks=blocks))
        yield from self._values(inode, file, base)

    def _values(self, inode: int, file: File, base: Shown) -> Iterator[tuple[str, bool, Shown]]:
        for what, ops in (("mode", ("chmod",)), ("xattr", ("setxattr",))):
            legal = self.law.values(inode, what)
            events = [e for e in self.tiny.history.events if e.op.name in ops]
            for value in (None, *(e.id for e in events)):
                new = replace(file, **{what: value})
                alike = {e.id for e in events if value and e.op == self.tiny.history.by_id[value].op}
                same = {value} if what == "xattr" else {value, *alike}
                yield what, bool(same & legal), replace(base, files={**base.files, inode: new})

    def _sizes(self, inode: int) -> list[int]:
        ends = {edge for e in self.law.data_ops(inode) for edge in span(e) if edge <= 2 * BLOCK}
        return sorted({0, SECTOR, 504, HALF, BLOCK, BLOCK + HALF, 2 * BLOCK, 2 * BLOCK + SECTOR} | ends)

    def _contents(self, inode: int, block: int) -> Iterator[tuple[int, ...]]:
        pieces = self.law.pieces(inode, block)
        writers = [e.id for e in self.law.data_ops(inode) if e.op.name != "truncate"]
        failed = [e.id for e in self.tiny.history.events if e.op.name == "write" and e.subject != inode]
        values = [0, FOREIGN, NOWHERE, *writers, *failed[:1]]
        if len(values) ** len(pieces) <= 400:
            yield from product(values, repeat=len(pieces))
        else:
            yield from {tuple(self.rng.choices(values, k=len(pieces))) for _ in range(200)}
            yield from self.law.block(inode, block)

    # Trees

    def tree(self, shown: Shown) -> Tree:
        entries = {key: n for key, n in shown.names.items() if n} | {(ROOT, "d"): SUB}
        xfs = self.tiny.fs == "xfs"
        nodes = {
            ROOT: Node(inode=ROOT, kind="dir", mode=0o755, nlink=3 if xfs else 1, size=0),
            SUB: Node(inode=SUB, kind="dir", mode=0o755, nlink=2 if xfs else 1, size=0),
        }
        names = Counter(entries.values())
        for inode, file in shown.files.items():
            nodes[inode] = self._node(inode, file, names[inode])
        return Tree(ROOT, nodes, entries)

    def _node(self, inode: int, file: File, nlink: int) -> Node:
        by_id = self.tiny.history.by_id
        xattrs = (("user.k", xattr_value(file.xattr, 32)),) if file.xattr else ()
        return Node(
            inode=inode,
            kind="file",
            mode=by_id[file.mode].op.number("mode") if file.mode else _DEFAULT_MODE,
            nlink=nlink,
            size=file.size,
            xattrs=xattrs,
            runs=tuple(self._runs(inode, file)),
        )

    def _runs(self, inode: int, file: File) -> Iterator[Run]:
        for block, content in zip(BLOCKS, file.blocks, strict=True):
            for (start, end), word in zip(self.law.pieces(inode, block), content, strict=True):
                if start < file.size:
                    yield _run(inode, start, min(end, file.size), word, self._a_writer(inode))
        if file.size > 2 * BLOCK:
            yield Run(2 * BLOCK, file.size, 0)

    def _a_writer(self, inode: int) -> int:
        writers = [e.id for e in self.law.data_ops(inode) if e.op.name != "truncate"]
        return writers[0] if writers else self.tiny.history.events[0].id


def _run(inode: int, start: int, end: int, word: int, writer: int) -> Run:
    if word == NOWHERE:
        return Run(start, end, writer, file_tag(inode), 8)
    return Run(start, end, word, file_tag(inode) if word > 0 else 0)


def touching(tiny: Tiny, key: Key) -> list[Event]:
    """Namespace ops that name a path."""
    paths = {path for path, at in PATHS.items() if at == key}
    return [e for e in tiny.history.events if any(v in paths for _, v in e.op.args)]
