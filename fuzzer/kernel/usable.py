"""Probe of a recovered file system: can everything be removed, and can new files be made?"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

_PROBE = "powercut-probe"


def probe_usable(mountpoint: Path) -> tuple[str, ...]:
    """Remove everything, then create, write, fsync, rename and remove a file.

    Returns what failed, as `call ERRNO: path`; changes the file system.
    """
    errors: list[str] = []

    def attempt(call: str, path: str, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            errors.append(f"{call} {errno.errorcode.get(error.errno or 0, error.errno)}: {path}")

    for directory, subdirs, files in os.walk(mountpoint, topdown=False, onerror=_note(errors)):
        here = Path(directory)
        for name in files:
            attempt("unlink", name, (here / name).unlink)
        for name in subdirs:
            child = here / name
            attempt("rmdir", name, child.unlink if child.is_symlink() else child.rmdir)
    attempt("create", _PROBE, lambda: _use(mountpoint))
    return tuple(errors)


def _note(errors: list[str]) -> Callable[[OSError], None]:
    def note(error: OSError) -> None:
        errors.append(f"readdir {errno.errorcode.get(error.errno or 0, error.errno)}: {error.filename}")

    return note


def _use(mountpoint: Path) -> None:
    """Make a directory with a file in it, sync, move and remove both."""
    directory, old, new = mountpoint / _PROBE, mountpoint / _PROBE / "old", mountpoint / _PROBE / "new"
    directory.mkdir()
    fd = os.open(old, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.write(fd, bytes(8192))
        os.fsync(fd)
    finally:
        os.close(fd)
    old.rename(new)
    new.unlink()
    directory.rmdir()
