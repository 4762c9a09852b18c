"""The corpus of documented races that comes with a checkout."""

from __future__ import annotations

from pathlib import Path

import fuzzer
from fuzzer.workload.model import Workload
from fuzzer.workload.text import parse_bytes

_DIRECTORY = Path(fuzzer.__file__).parent.parent / "corpus"


def load_corpus() -> tuple[Workload, ...]:
    """All entries, by path; none where powercut is installed without its checkout."""
    return tuple(parse_bytes(p.read_bytes(), str(p)) for p in sorted(_DIRECTORY.glob("*/*.workload")))
