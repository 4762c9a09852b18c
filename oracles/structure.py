"""The tree is a tree: link counts equal names, directories have one parent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fuzzer.state.tree import Node
from oracles.case import Case, Rule
from oracles.verdict import Violation

_SOURCE = "fstests generic/034, generic/040, generic/104, generic/481"


def _broken(kind: str, subject: str, promised: str, found: str) -> Violation:
    return Violation(
        rule="structure", kind=kind, subject=subject, promised=promised, found=found, source=_SOURCE
    )


def check_links(case: Case) -> Iterator[Violation]:
    """Promise: nlink of a file is its number of names; a directory has one name and its own count."""
    names = Counter(case.tree.entries.values())
    subdirs = Counter(
        directory
        for (directory, _), inode in case.tree.entries.items()
        if inode in case.tree.nodes and case.tree.nodes[inode].kind == "dir"
    )
    for path, node in case.tree.files():
        case.tally.judged += 1
        if node.kind == "dir":
            yield from _check_directory(case, path, node, names[node.inode], subdirs[node.inode])
        elif node.nlink != names[node.inode]:
            found = f"nlink is {node.nlink}, names are {names[node.inode]}"
            yield _broken("nlink", path, "nlink is the number of names", found)


def _check_directory(case: Case, path: str, node: Node, names: int, subdirs: int) -> Iterator[Violation]:
    if names > 1:
        yield _broken("two-parents", path, "a directory has one name", f"it has {names}")
    expected = 1 if case.profile.directory_nlink == "one" else 2 + subdirs
    if node.nlink != expected:
        found = f"nlink is {node.nlink}, expected {expected}"
        yield _broken("directory-nlink", path, "a directory's nlink matches its content", found)


RULES = (Rule("structure", check_links, needs_history=False),)
