"""Catalog: the table in crashes/README.md, made of the reviewed findings beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import fuzzer
from fuzzer.campaign.finding import load_facts
from fuzzer.errors import InputError
from fuzzer.triage.known import Known

CRASHES = Path(fuzzer.__file__).parent.parent / "crashes"
"""Those of the checkout."""

_HEAD = "| finding | fs | title | kernel | rate |"
_ENTRY = re.compile(r"(\d{4})-(btrfs|xfs)-[a-z0-9-]+")
_ROW = re.compile(r"\| \[(\d{4})\]")
_NEEDED = ("finding.md", "repro.workload")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `seen` is (k, n): in k of n runs; n = 0: no run was kept, its line stays as it is.

    `without` is the fix that had been taken out of the kernel, if its bug was switched on.
    """

    number: str
    directory: str
    fs: str
    title: str
    kernel: str = ""
    seen: tuple[int, int] = (0, 0)
    without: str = ""

    def row(self) -> str:
        k, n = self.seen
        kernel = ".".join(self.kernel.split("-")[0].split(".")[:2])
        kernel += f" without {self.without}" if self.without else ""
        return f"| [{self.number}]({self.directory}) | {self.fs} | {self.title} | {kernel} | {k}/{n} |"


def entries(directory: Path, known: Sequence[Known]) -> Iterator[Entry]:
    """The reviewed findings in order. InputError names the one that is not whole, or not in known.toml."""
    bugs = {bug.id: bug for bug in known}
    for place in sorted(path for path in directory.iterdir() if path.is_dir()):
        match = _ENTRY.fullmatch(place.name)
        if match is None:
            raise InputError("not named NNNN-fs-words", place=str(place))
        for name in _NEEDED:
            if not (place / name).exists():
                raise InputError(f"there is no {name}", place=str(place))
        number, fs = match.groups()
        if number not in bugs:
            raise InputError(f"no bug {number} in known.toml", place=str(place))
        entry = Entry(number, place.name, fs, bugs[number].title)
        if (place / "finding.json").exists():
            facts = load_facts(place)
            without = bugs[number].fix if "without" in facts.facts else ""
            entry = replace(entry, kernel=facts.kernel, seen=facts.reproduced, without=without)
        yield entry


def with_table(text: str, found: Sequence[Entry]) -> str:
    """`text` with its table replaced. InputError if it has none."""
    before, head, after = text.partition(_HEAD)
    if not head:
        raise InputError("there is no table to replace", hint=f"its first line is {_HEAD}")
    rest = after.lstrip("\n").splitlines(keepends=True)
    old = {match[1]: line.rstrip("\n") for line in rest if (match := _ROW.match(line))}
    behind = "".join(line for line in rest if not line.startswith("|"))
    rows = (entry.row() if entry.seen[1] else old.get(entry.number, entry.row()) for entry in found)
    lines = [_HEAD, "|---|---|---|---|---|", *rows]
    return before + "\n".join(lines) + "\n" + behind
