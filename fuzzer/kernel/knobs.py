"""Knobs of the whole machine that a workload may turn: one run at a time, and always set back.

The values are written down before the first change, so that whoever comes next can set them back if
the run that holds them dies.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fuzzer.errors import InfrastructureError
from fuzzer.kernel.journal import RUN_ROOT
from fuzzer.kernel.process import wait_until
from fuzzer.workload.ops import KNOBS

_VM = Path("/proc/sys/vm")
_WAIT_S = 120.0
"""Another run that turns knobs ends within its own deadline."""

_COUNTERPARTS = {"dirty_bytes": "dirty_ratio", "dirty_background_bytes": "dirty_background_ratio"}
"""Of each pair only one is not 0, and setting one clears the other (mm/page-writeback.c)."""


@contextmanager
def kept_knobs() -> Iterator[None]:
    """Have the knobs for oneself; they are as before when the block ends.

    InfrastructureError if another run keeps them for too long.
    """
    RUN_ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = _open_lock()
    try:
        if not wait_until(lambda: _lock(fd), _WAIT_S):
            raise InfrastructureError(f"another run has held the knobs of /proc/sys/vm for {_WAIT_S:g} s")
        _set_back()
        _write_down()
        try:
            yield
        finally:
            _set_back()
    finally:
        os.close(fd)


def set_knobs_back() -> bool:
    """Set back what a dead run left; True if there was something to do."""
    fd = _open_lock()
    try:
        return _lock(fd) and _set_back()
    finally:
        os.close(fd)


def _open_lock() -> int:
    return os.open(RUN_ROOT / "knobs.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _lock(fd: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _record() -> Path:
    return RUN_ROOT / "knobs.json"


def _write_down() -> None:
    names = (*KNOBS, *_COUNTERPARTS)
    values = {name: (_VM / name).read_text().strip() for name in names if (_VM / name).exists()}
    for one, other in _COUNTERPARTS.items():
        values.pop(other if values.get(one, "0") != "0" else one, None)
    draft = _record().with_suffix(".new")
    draft.write_text(json.dumps(values))
    draft.rename(_record())


def _set_back() -> bool:
    if not _record().exists():
        return False
    for name, value in json.loads(_record().read_text()).items():
        if (_VM / name).read_text().strip() != value:
            (_VM / name).write_text(value)
    _record().unlink()
    return True
