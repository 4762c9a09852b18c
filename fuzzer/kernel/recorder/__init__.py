"""Recorders: block devices whose every write ends up in a dm-log-writes log.

Two of them, interchangeable: the kernel's log-writes target where there is device-mapper, a FUSE
server of ours under a loop device everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fuzzer.kernel.probe import missing, require
from fuzzer.kernel.recorder.base import RecordedDevice, Recorder
from fuzzer.kernel.recorder.dm import dm_recorder
from fuzzer.kernel.recorder.fuse import fuse_recorder
from fuzzer.kernel.workarea import RunArea

__all__ = ["KINDS", "RecordedDevice", "Recorder", "open_recorder"]

KINDS = ("auto", "dm", "fuse")


@contextmanager
def open_recorder(kind: str, area: RunArea) -> Iterator[Recorder]:
    """Open a recorder for as long as the block runs, self-tested.

    `kind` is one of `KINDS`; `auto` takes dm where it is to be had. MissingCapabilityError if this
    machine cannot, InfrastructureError if it should and does not.
    """
    if kind == "auto":
        kind = "fuse" if missing(["dm-log-writes"]) else "dm"
    if kind == "dm":
        require("dm-log-writes")
        with dm_recorder(area) as dm:
            yield dm
    else:
        require("fuse", "pyfuse3")
        with fuse_recorder(area) as fuse:
            yield fuse
