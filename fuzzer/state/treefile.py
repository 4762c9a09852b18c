"""The text form of a tree: one JSON object, what has its default value left out."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any

from fuzzer.state.stamps import Run
from fuzzer.state.tree import Node, Tree

TREE_VERSION = 1

_TEXTS = frozenset({"kind", "target"})
_REQUIRED = frozenset(field.name for field in fields(Node) if field.default is MISSING)
_DEFAULTS = {field.name: field.default for field in fields(Node) if field.default is not MISSING}


def format_tree(tree: Tree) -> str:
    """The tree as one line of JSON; values of extended attributes in hexadecimal digits."""
    data = {
        "tree": TREE_VERSION,
        "root": tree.root,
        "nodes": [_format_node(node) for node in tree.nodes.values()],
        "entries": [[directory, name, inode] for (directory, name), inode in tree.entries.items()],
        "errors": list(tree.errors),
    }
    return json.dumps(data, separators=(",", ":"))


def _format_node(node: Node) -> dict[str, object]:
    values: dict[str, Any] = {field.name: getattr(node, field.name) for field in fields(Node)}
    line = {name: value for name, value in values.items() if value != _DEFAULTS.get(name, MISSING)}
    if "xattrs" in line:
        line["xattrs"] = [[name, value.hex()] for name, value in node.xattrs]
    if "runs" in line:
        line["runs"] = [[run.start, run.end, run.op, run.tag, run.shift] for run in node.runs]
    return line


def parse_tree(text: str) -> Tree:
    """Inverse of `format_tree`. ValueError on anything else."""
    data = json.loads(text)
    if not isinstance(data, dict) or set(data) != {"tree", "root", "nodes", "entries", "errors"}:
        raise ValueError("not a tree")
    if data["tree"] != TREE_VERSION:
        raise ValueError(f"tree version {data['tree']} is not {TREE_VERSION}")
    nodes = [_parse_node(line) for line in _rows(data["nodes"], dict)]
    entries = [_typed(row, (int, str, int)) for row in _rows(data["entries"], list)]
    return Tree(
        _typed([data["root"]], (int,))[0],
        {node.inode: node for node in nodes},
        {(directory, name): inode for directory, name, inode in entries},
        tuple(_rows(data["errors"], str)),
    )


def _parse_node(line: dict[str, Any]) -> Node:
    if not _REQUIRED <= set(line) <= _REQUIRED | set(_DEFAULTS):
        raise ValueError(f"not an inode: {str(line)[:80]}")
    values = dict(line)
    xattrs = [_typed(row, (str, str)) for row in _rows(values.pop("xattrs", []), list)]
    runs = [_typed(row, (int,) * 5) for row in _rows(values.pop("runs", []), list)]
    for name, value in values.items():
        _typed([value], (str if name in _TEXTS else int,))
    return Node(
        **values,
        xattrs=tuple((name, bytes.fromhex(value)) for name, value in xattrs),
        runs=tuple(Run(*row) for row in runs),
    )


def _rows(value: object, wanted: type) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(row, wanted) for row in value):
        raise ValueError(f"not a list of {wanted.__name__}: {str(value)[:80]}")
    return value


def _typed(row: list[Any], types: tuple[type, ...]) -> list[Any]:
    """`row`, if it has exactly these types; true and false are no numbers."""
    if len(row) != len(types) or any(type(v) is not t for v, t in zip(row, types, strict=True)):
        raise ValueError(f"not {', '.join(t.__name__ for t in types)}: {str(row)[:80]}")
    return row
