"""The corpus of documented races that comes with a checkout."""

from __future__ import annotations

from pathlib import Path

import fuzzer
from fuzzer.errors import InputError
from fuzzer.workload.model import Workload
from fuzzer.workload.text import parse_bytes

_DIRECTORY = Path(fuzzer.__file__).parent.parent / "corpus"


def load_corpus() -> tuple[Workload, ...]:
    """All entries, by path; none where powercut is installed without its checkout."""
    return tuple(parse_bytes(p.read_bytes(), str(p)) for p in sorted(_DIRECTORY.glob("*/*.workload")))


def workload_of(bug: str) -> Path:
    """The file of the workload that has this name; InputError if there is none."""
    for path in _DIRECTORY.glob(f"*/{bug}.workload"):
        return path
    raise InputError(f"there is no workload {bug} in {_DIRECTORY}", hint="run powercut from a checkout")
