"""Check: how a script tells that the bug shows, as a condition in shell words.

What is tested is that the forbidden thing is there (this name is gone, these bytes are old), not that all
promises hold: a reproducer shows one bug. Paths are below `{mnt}`; `{notes}` begins the name of files in
which a note taken during the run is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fuzzer.errors import InputError
from fuzzer.state.history import Event
from fuzzer.state.tree import Node
from fuzzer.triage.dossier import Dossier
from fuzzer.triage.export.place import Place, pattern, place_of, row_of

_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")
_SIZE, _MODE, _BLOCKS, _INODE = "%s", "%a", "%b", "%i"
_HINT = "powercut triage repro shows it; a script can tell names, data, sizes, modes and reserved blocks"


@dataclass(frozen=True, slots=True)
class Note:
    """What to keep in the file `name` after the op at `place`: `stat -c FORMAT` of `path`."""

    place: Place
    name: str
    path: str
    format: str

    @property
    def command(self) -> str:
        return f"stat -c {self.format} {under(self.path)} > {{notes}}{self.name}"


@dataclass(frozen=True, slots=True)
class Check:
    """`condition` is true if the bug shows; `message` says what it is; `after` is how it is looked for
    in words. `needs_mount`: the recovered file system has to be there to look at."""

    condition: str
    message: str
    notes: tuple[Note, ...] = ()
    needs_mount: bool = True


def under(path: str) -> str:
    """`{mnt}/d/a`, which a shell takes for one word, and xfs_io too, also between quotes.

    InputError for other names: workloads are untrusted, and what is written here is run as root.
    """
    if not _PLAIN.fullmatch(path):
        raise InputError(f"the name {path!r} is not plain enough for a script", hint="letters, digits, ._/-")
    return "{mnt}" if path == "." else "{mnt}/" + path


def plain(text: str) -> str:
    """One line that ends no comment, of a shell or of C."""
    text = text.replace("*/", "* /")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def make_check(dossier: Dossier) -> Check:
    """The check for the first broken promise a script can test. InputError if there is none."""
    for violation in dossier.saved.finding.violations:
        found = _check(dossier, violation)
        if found is not None:
            condition, notes, needs_mount = found
            message = f"{violation['subject']}: promised {violation['promised']}; found {violation['found']}"
            return Check(condition, plain(message), notes, needs_mount)
    raise InputError(f"no script can tell {dossier.saved.finding.bucket}", hint=_HINT)


_Found = tuple[str, tuple[Note, ...], bool]


def _check(dossier: Dossier, violation: Mapping[str, str | int]) -> _Found | None:
    rule, kind = str(violation["rule"]), str(violation["kind"])
    if rule == "mountable":
        return "[ $mounted -ne 0 ]", (), False
    if violation["name"] and not kind.startswith(("half-", "rename-")):
        return _name(dossier, violation)
    path, node = _file(dossier, int(violation["inode"]))
    if path is None or node is None:
        return None
    if int(violation["offset"]) >= 0:
        return _data(dossier, violation, path)
    if kind.startswith("size"):
        return f"[ $(stat -c {_SIZE} {under(path)}) -eq {node.size} ]", (), True
    if rule == "mode":
        return f"[ $(stat -c {_MODE} {under(path)}) = {node.mode:o} ]", (), True
    if rule == "prealloc":
        return _blocks(dossier, violation, path)
    return None


def _file(dossier: Dossier, inode: int) -> tuple[str, Node] | tuple[None, None]:
    """Where the inode was after the crash; on a live mount, what the last op on it called it."""
    if dossier.tree is not None:
        found = next(((path, node) for path, node in dossier.tree.files() if node.inode == inode), None)
        if found is not None:
            return found
    return None, None


def _event(dossier: Dossier, violation: Mapping[str, str | int], role: str) -> Event | None:
    return dossier.saved.history.by_id.get(int(violation[role]))


def _name(dossier: Dossier, violation: Mapping[str, str | int]) -> _Found | None:
    directory, _ = _file(dossier, int(violation["inode"]))
    if directory is None:
        return None
    path = str(violation["name"]) if directory == "." else f"{directory}/{violation['name']}"
    seen = _event(dossier, violation, "seen")
    inode = (
        dossier.tree.entries.get((int(violation["inode"]), str(violation["name"]))) if dossier.tree else None
    )
    if not inode:
        return f"[ ! -e {under(path)} ] && [ ! -L {under(path)} ]", (), True
    if seen is None:
        return None
    made = next((p.name for p in seen.op.spec.params if p.name in ("to", "path")), "")
    place = place_of(seen, dossier.saved.workload)
    note = Note(place, "wrong-inode", seen.op.text(made), _INODE)
    return f'[ "$(stat -c {_INODE} {under(path)} 2>&1)" = "$(cat {{notes}}{note.name})" ]', (note,), True


def _data(dossier: Dossier, violation: Mapping[str, str | int], path: str) -> _Found:
    offset = int(violation["offset"])
    byte = f"$(od -A n -t u1 -j {offset} -N 1 {under(path)})"
    seen = _event(dossier, violation, "seen")
    if seen is not None:
        place = place_of(seen, dossier.saved.workload)
        wrong = pattern(row_of(place, dossier.saved.workload), place.iteration)
        return f"[ {byte} -eq {wrong} ]", (), True
    if violation["kind"] != "foreign-data":
        return f"[ {byte} -eq 0 ]", (), True
    # Any byte that no op of the workload writes there.
    rows = sum(1 for _ in dossier.saved.workload.iter_ops())
    known = "|".join(["0", *(str(pattern(row)) for row in range(rows))])
    return f"! [[ {byte} =~ ^\\ *({known})$ ]]", (), True


def _blocks(dossier: Dossier, violation: Mapping[str, str | int], path: str) -> _Found | None:
    """Fewer blocks than the file had when the call that promised them returned."""
    sync = _event(dossier, violation, "sync")
    if sync is None:
        return None
    note = Note(place_of(sync, dossier.saved.workload), "blocks", path, _BLOCKS)
    return f"[ $(stat -c {_BLOCKS} {under(path)}) -lt $(cat {{notes}}{note.name}) ]", (note,), True
