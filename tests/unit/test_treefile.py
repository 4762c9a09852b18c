"""The text form of trees: whatever was seen comes back the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzer.state.stamps import Run
from fuzzer.state.tree import Node, Tree
from fuzzer.state.treefile import format_tree, parse_tree

_NUMBERS = st.integers(-1, 1 << 80)
_TEXTS = st.text(st.characters(), max_size=8)
"""Names may hold bytes that are no UTF-8: Python shows them as lone surrogates."""
_RUNS = st.builds(Run, *([_NUMBERS] * 5))
_NODES = st.builds(
    Node,
    inode=_NUMBERS,
    kind=st.sampled_from(["file", "dir", "symlink", "other"]),
    mode=_NUMBERS,
    nlink=_NUMBERS,
    size=_NUMBERS,
    uid=_NUMBERS,
    mtime_ns=_NUMBERS,
    xattrs=st.lists(st.tuples(_TEXTS, st.binary(max_size=8)), max_size=2).map(tuple),
    target=_TEXTS,
    runs=st.lists(_RUNS, max_size=3).map(tuple),
    read_errno=_NUMBERS,
)
_TREES = st.builds(
    Tree,
    _NUMBERS,
    st.lists(_NODES, max_size=3).map(lambda nodes: {node.inode: node for node in nodes}),
    st.dictionaries(st.tuples(_NUMBERS, _TEXTS), _NUMBERS, max_size=4),
    st.lists(_TEXTS, max_size=2).map(tuple),
)


@given(_TREES)
def test_round_trip(tree: Tree) -> None:
    assert parse_tree(format_tree(tree)) == tree


def _damaged(change: dict[str, Any]) -> str:
    node = Node(inode=5, kind="file", mode=0o644, nlink=1, size=8, runs=(Run(0, 8, 0),))
    data = json.loads(format_tree(Tree(2, {5: node}, {(2, "a"): 5})))
    for key, value in change.items():
        target = data["nodes"][0] if key in data["nodes"][0] or key == "extra" else data
        target[key] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    "change",
    [
        {"tree": 2},
        {"root": True},
        {"nodes": {}},
        {"nodes": [{}]},
        {"entries": [[2, "a"]]},
        {"entries": [["a", "a", 5]]},
        {"errors": [5]},
        {"inode": "5"},
        {"mode": 1.5},
        {"runs": [[0, 8]]},
        {"extra": 1},
    ],
)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    parse_tree(_damaged({}))
    with pytest.raises(ValueError, match=r"not|version"):
        parse_tree(_damaged(change))


@pytest.mark.parametrize("text", ["", "[]", "{}", "nothing"])
def test_no_tree_at_all(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a tree|Expecting"):
        parse_tree(text)
