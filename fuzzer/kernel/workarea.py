"""The run area: a run's id, its private tmpfs and its journal. Everything else a run takes lives here.

A run is recognised by its id in these places, and a sweep touches nothing without it: the directory
`/run/powercut/<id>`, the tmpfs `powercut-<id>`, the process name `pc-<id>` (or, of programs of the user, the
variable `POWERCUT_RUN=<id>`), and names of cgroups and device-mapper devices that start with `powercut-<id>`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from fuzzer.errors import LeakError
from fuzzer.kernel import libc
from fuzzer.kernel.journal import RUN_ROOT, Journal, open_journal
from fuzzer.kernel.mount import mount_tmpfs, unmount
from fuzzer.kernel.procfs import comm, mounts_under, start_ticks

_TMPFS_SHARE = 0.5
"""Part of the memory available at the start that the tmpfs may grow to; it takes only what is used."""


RUN_VARIABLE = "POWERCUT_RUN"
"""Environment variable that holds the run's id in programs of the user and all they start."""


def mark(run_id: str) -> str:
    """The name, or start of the name, of everything the run creates."""
    return f"powercut-{run_id}"


def process_name(run_id: str) -> str:
    """The command name of the run's processes; the kernel keeps 15 characters."""
    return f"pc-{run_id}"


@dataclass(frozen=True, slots=True)
class RunArea:
    """What a run owns. `path` is the root of its tmpfs."""

    run_id: str
    path: Path
    journal: Journal

    @property
    def mark(self) -> str:
        """Prefix for names of cgroups and device-mapper devices."""
        return mark(self.run_id)

    def mkdir(self, name: str) -> Path:
        """A new directory in the area."""
        directory = self.path / name
        directory.mkdir()
        return directory

    def note(self, kind: str, value: int | str) -> None:
        """Journal a resource just taken (kinds a sweep knows: `loop`; `process`, see below)."""
        self.journal.note(kind, value)

    def forget(self, kind: str, value: int | str) -> None:
        """Journal that a resource is about to be given back."""
        self.journal.forget(kind, value)

    def note_process(self, pid: int) -> None:
        """Journal a program we started (forked children are known by their command name)."""
        self.journal.note("process", f"{pid} {start_ticks(pid)}")


@contextmanager
def run_area() -> Iterator[RunArea]:
    """Make a run's area; at the end unmount and remove it.

    LeakError, naming the culprits, if something is still mounted in it or keeps it busy.
    """
    run_id = secrets.token_hex(4)
    path = RUN_ROOT / run_id
    with open_journal(run_id) as journal, _named_process(process_name(run_id)), _tmpfs(path, mark(run_id)):
        yield RunArea(run_id, path, journal)


@contextmanager
def _tmpfs(path: Path, name: str) -> Iterator[None]:
    path.mkdir(mode=0o700)
    try:
        mount_tmpfs(path, name, int(psutil.virtual_memory().available * _TMPFS_SHARE))
        try:
            yield
        finally:
            nested = [str(mount.path) for mount in mounts_under(path) if mount.path != path]
            if nested:
                raise LeakError(f"still mounted at the end of the run: {', '.join(nested)}")
            unmount(path)
    finally:
        # Still a mount point if it could not be unmounted; then it stays, for a sweep to find.
        if not path.is_mount():
            path.rmdir()


@contextmanager
def _named_process(name: str) -> Iterator[None]:
    before = comm(os.getpid())
    libc.prctl(libc.PR_SET_NAME, name.encode())
    try:
        yield
    finally:
        libc.prctl(libc.PR_SET_NAME, before.encode())
