"""Tree diff: what had to be there after the crash, beside what recovery showed.

Each row is one name, one range of a file, or one broken promise that is neither. What the contract
leaves open has no row. The rows that are wrong are those the oracles say are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fuzzer.state.recovery import Recovery
from fuzzer.state.stamps import FOREIGN, ZERO, Run
from fuzzer.state.tree import Tree
from fuzzer.triage.dossier import Dossier, say_op
from oracles import Tally, profile_for
from oracles.case import Case
from oracles.data import FileFloors, Origins, check_piece, split
from oracles.file_versions import FileVersions
from oracles.floors import Floors, compute_floors
from oracles.related import add_related
from oracles.versions import UNKNOWN, NameKey, NameVersion, Versions, touched_names

_MAX_DEPTH = 64
"""Directories are followed up this far; renames can make circles of what names are known by."""


@dataclass(frozen=True, slots=True)
class DiffRow:
    """`broken`: an oracle says so."""

    subject: str
    expected: str
    found: str
    broken: bool


def diff_tree(dossier: Dossier) -> tuple[DiffRow, ...]:
    """Rows of names, then of data, then what is broken besides. Without tree or cut only the latter."""
    rows: list[DiffRow] = []
    covered: set[tuple[str, int, str]] = set()
    if dossier.tree is not None and dossier.cut is not None:
        case = _case(dossier, dossier.tree)
        rows += _names(case, dossier, covered)
        rows += _data(case, dossier, covered)
    for violation in dossier.saved.finding.violations:
        if (str(violation["rule"]), int(violation["inode"]), str(violation["name"])) not in covered:
            subject = f"{violation['rule']}: {violation['subject']}"
            rows.append(DiffRow(subject, str(violation["promised"]), str(violation["found"]), True))
    return tuple(rows)


def _case(dossier: Dossier, tree: Tree) -> Case:
    saved, versions = dossier.saved, dossier.versions
    profile = profile_for(saved.workload.fs, saved.workload.mount, saved.finding.contract)
    assert dossier.cut is not None
    floors = compute_floors(versions, dossier.cut, profile)
    add_related(floors)
    return Case(profile, Recovery(tree=tree), Tally(), (versions, floors))


# --------------------------------------------------------------------------------------- names


def _names(case: Case, dossier: Dossier, covered: set[tuple[str, int, str]]) -> Iterator[DiffRow]:
    broken = {
        (int(v["inode"]), str(v["name"])): str(v["rule"])
        for v in dossier.saved.finding.violations
        if v["name"]
    }
    for key, versions in case.versions.names.items():
        if case.versions.is_opaque(key[0]):
            continue
        expected = _expected_name(case.floors, key, versions)
        if expected is None:
            continue
        if key in broken:
            covered.add((broken[key], *key))
        inode = case.tree.entries.get(key, 0)
        found = _say_inode(case.versions, inode)
        yield DiffRow(_path(case.versions, key), expected, found, key in broken)


def _expected_name(floors: Floors, key: NameKey, versions: list[NameVersion]) -> str | None:
    """What the name must be, or may be instead; None: nothing is promised of it."""
    durable = [n for n, v in enumerate(versions) if v.sure and (v.event.id, key) in floors.names]
    if not durable:
        return None
    base = versions[durable[-1]]
    later = [v for v in versions[durable[-1] + 1 :] if floors.visible(v.event)]
    sync = floors.versions.history.by_id.get(floors.names[base.event.id, key])
    by = f", by {say_op(sync)}" if sync else ""
    more = f"; or what {' or '.join(say_op(v.event) for v in later[:3])} left" if later else ""
    return f"{_say_inode(floors.versions, base.inode)}{by}{more}"


def _say_inode(versions: Versions, inode: int) -> str:
    if inode == UNKNOWN:
        return "some file"
    return versions.label(inode) if inode else "no such name"


def _path(versions: Versions, key: NameKey) -> str:
    """`d/a`: where the name is, by the names its directories were made with."""
    parts, directory = [key[1]], key[0]
    for _ in range(_MAX_DEPTH):
        born = versions.files[directory].born if directory in versions.files else None
        if born is None:
            break
        directory, name = touched_names(born)[0]
        parts.append(name)
    return "/".join(reversed(parts))


# ---------------------------------------------------------------------------------------- data


def _data(case: Case, dossier: Dossier, covered: set[tuple[str, int, str]]) -> Iterator[DiffRow]:
    """Ranges of files that are promised, or wrong; neighbours that say the same are one row."""
    for path, node in case.tree.files():
        file = case.versions.files.get(node.inode)
        if node.kind != "file" or file is None or case.versions.is_opaque(node.inode):
            continue
        if any(case.floors.visible(event) for event in file.shifted):
            continue  # Its words have moved: they are judged as a whole, and a violation says how.
        rows = _merged(_pieces(case, path, file, node.runs))
        if any(row.broken for _, row in rows):
            covered.add(("data", node.inode, ""))
        for (start, end), row in rows:
            yield DiffRow(f"{path} {start}..{end}", row.expected, row.found, row.broken)


def _pieces(
    case: Case, path: str, file: FileVersions, runs: tuple[Run, ...]
) -> Iterator[tuple[tuple[int, int], DiffRow]]:
    floors, origins = FileFloors(case, file), Origins(case.versions)
    edges = sorted(floors.edges() | {edge for v in file.data for edge in (v.start, v.end)})
    for run in runs:
        for piece in split(run, edges):
            begin_ns, sync = floors.floor(piece.start, piece.end)
            violation = None if piece.op == FOREIGN else check_piece(case, path, file, floors, origins, piece)
            broken = violation is not None or piece.op == FOREIGN
            if begin_ns or broken:
                expected = _expected_data(case, file, begin_ns, sync)
                yield (piece.start, piece.end), DiffRow(path, expected, _found_data(case, piece), broken)


def _expected_data(case: Case, file: FileVersions, begin_ns: int, sync: int) -> str:
    op = next((v.event for v in file.data if v.event.begin_ns == begin_ns), None)
    if op is None:
        return "zeroes, or data of an op on this file"
    call = case.versions.history.by_id.get(sync)
    by = f", by {say_op(call)}" if call and call.id != op.id else ""
    return f"{say_op(op)} or later{by}"


def _found_data(case: Case, piece: Run) -> str:
    if piece.op == FOREIGN:
        return "bytes nobody wrote"
    event = case.versions.history.by_id.get(piece.op)
    moved = f", moved by {piece.shift} bytes" if piece.shift else ""
    return "zeroes" if piece.op == ZERO or event is None else say_op(event) + moved


def _merged(rows: Iterator[tuple[tuple[int, int], DiffRow]]) -> list[tuple[tuple[int, int], DiffRow]]:
    merged: list[tuple[tuple[int, int], DiffRow]] = []
    for (start, end), row in rows:
        if merged and merged[-1][0][1] == start and merged[-1][1] == row:
            merged[-1] = ((merged[-1][0][0], end), row)
        else:
            merged.append(((start, end), row))
    return merged


def describe_diff(dossier: Dossier) -> Iterator[str]:
    """Lines of `triage diff`; `!` marks what is broken."""
    if dossier.tree is None:
        yield "no recovered tree was kept with this finding: only the broken promises"
    rows = diff_tree(dossier)
    for row in rows:
        if row.broken:
            yield f"! {row.subject}"
            yield f"    expected:  {row.expected}"
            yield f"    recovered: {row.found}"
        else:
            yield f"  {row.subject}: {row.found}  (expected: {row.expected})"
    yield f"{sum(row.broken for row in rows)} of {len(rows)} promises broken"
