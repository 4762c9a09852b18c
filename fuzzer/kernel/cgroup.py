"""Control groups of a run: where a controller is, and a group that is removed again. v1 and v2."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from fuzzer.errors import LeakError, MissingCapabilityError
from fuzzer.kernel.process import wait_until
from fuzzer.kernel.procfs import mounts
from fuzzer.kernel.workarea import RunArea

_REMOVE_S = 10.0


def find_hierarchy(controller: str) -> tuple[Path, int]:
    """Root of the hierarchy that has a controller, and its version: 1 or 2. MissingCapabilityError if
    there is none."""
    for mount in mounts():
        if mount.fs == "cgroup" and controller in mount.super_options.split(","):
            return mount.path, 1
        # Children get a controller only if the parent hands it down.
        if (
            mount.fs == "cgroup2"
            and controller in (mount.path / "cgroup.subtree_control").read_text().split()
        ):
            return mount.path, 2
    raise MissingCapabilityError(
        f"no {controller} cgroup controller",
        hint=f"mount a hierarchy with it, or write +{controller} to cgroup.subtree_control of the root",
    )


@contextmanager
def new_group(owner: RunArea | str, root: Path, emptied: Callable[[Path], None]) -> Iterator[Path]:
    """Make a group below `root`, remove it at the end; the processes in it must have ended by then.

    `owner` is the run's area, or a name to start the group's name with. `emptied` is called before the
    removal. LeakError if the group cannot be removed.
    """
    path = _make_directory(root, owner if isinstance(owner, str) else owner.mark)
    if not isinstance(owner, str):
        owner.note("cgroup", str(path))
    try:
        yield path
    finally:
        if not isinstance(owner, str):
            owner.forget("cgroup", str(path))
        emptied(path)
        _remove(path)


def add_process(path: Path, pid: int) -> None:
    """Move a process into the group."""
    write_file(path / "cgroup.procs", str(pid))


def read_field(path: Path, field: str) -> int:
    """A number of a file of `name value` lines."""
    pairs = (line.split() for line in path.read_text().splitlines())
    return next(int(value) for key, value in pairs if key == field)


def write_file(path: Path, text: str) -> None:
    """Unbuffered: the kernel's errno has to come from this write, not from a close."""
    with path.open("wb", buffering=0) as file:
        file.write(text.encode())


def _make_directory(root: Path, name: str) -> Path:
    for number in count():
        path = root / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("count() does not end")


def _remove(path: Path) -> None:
    """EBUSY for a moment after its last process."""

    def done() -> bool:
        try:
            path.rmdir()
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
        return True

    if not wait_until(done, _REMOVE_S):
        pids = (path / "cgroup.procs").read_text().split()
        raise LeakError(f"{path} cannot be removed", hint=f"processes in it: {', '.join(pids) or 'none'}")
