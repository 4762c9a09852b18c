"""Memory cgroup of the actors: a limit, reclaim on demand, a limit lowered for a while. v1 and v2.

The recorder must stay outside: writeback that waits for memory its own recorder needs never ends.
"""

from __future__ import annotations

import errno
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzzer.kernel.cgroup import add_process, find_hierarchy, new_group, read_field, write_file
from fuzzer.kernel.workarea import RunArea


class MemoryCgroup(ABC):
    """A memory cgroup. Methods raise OSError with the kernel's answer."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        """0: none."""

    @property
    @abstractmethod
    def usage_bytes(self) -> int:
        """Memory charged now, page cache included."""

    @property
    @abstractmethod
    def oom_kills(self) -> int:
        """Processes the kernel killed here for lack of memory."""

    @abstractmethod
    def prepare(self) -> None:
        """Set the limit and what goes with it, on a new and empty group."""

    @abstractmethod
    def reclaim(self, size_bytes: int) -> int:
        """Have the kernel reclaim up to that much now; returns by how much the usage fell, which next
        to busy actors says little."""

    @abstractmethod
    def lower_limit(self, limit_bytes: int) -> None:
        """Reclaim down to a lower limit and keep to it until `restore_limit`."""

    @abstractmethod
    def restore_limit(self) -> None:
        """Back to the limit of the start. Always possible, and harmless if nothing was lowered."""

    @abstractmethod
    def drop_charges(self) -> None:
        """Reclaim all that can be, of a group without processes."""

    def add(self, pid: int) -> None:
        """Move a process in."""
        add_process(self.path, pid)

    def squeeze(self, limit_bytes: int, hold_s: float) -> None:
        """Lower the limit for a while. EBUSY on v1: memory in use does not go below it."""
        try:
            self.lower_limit(limit_bytes)
            time.sleep(hold_s)
        finally:
            self.restore_limit()

    def _read(self, name: str) -> str:
        return (self.path / name).read_text()

    def _field(self, name: str, field: str) -> int:
        return read_field(self.path / name, field)

    def _write(self, name: str, text: str) -> None:
        write_file(self.path / name, text)


class CgroupV1(MemoryCgroup):
    """The `memory` hierarchy of cgroup v1 (Documentation/admin-guide/cgroup-v1/memory.rst)."""

    @property
    def usage_bytes(self) -> int:
        return int(self._read("memory.usage_in_bytes"))

    @property
    def oom_kills(self) -> int:
        return self._field("memory.oom_control", "oom_kill")

    def prepare(self) -> None:
        # Without the OOM killer a system call that cannot be charged returns ENOMEM and a page fault
        # waits until the limit is raised again (mem_cgroup_oom in mm/memcontrol.c): under a squeeze
        # the actors stall for a moment instead of dying.
        self._write("memory.oom_control", "1")
        self.restore_limit()

    def reclaim(self, size_bytes: int) -> int:
        # Not memory.force_empty: it goes on while it finds anything, which next to a busy writer was
        # measured to take seconds. Lowering the limit does its share and returns. Not below what is no
        # page cache: the actors' own memory cannot be reclaimed, their system calls would get ENOMEM.
        usage = self.usage_bytes
        size_bytes = min(size_bytes, self._field("memory.stat", "cache"))
        try:
            self.lower_limit(usage - size_bytes)
        except OSError as error:
            # "Not all of it": what could be reclaimed has been (mem_cgroup_resize_max).
            if error.errno != errno.EBUSY:
                raise
        finally:
            self.restore_limit()
        return max(usage - self.usage_bytes, 0)

    def lower_limit(self, limit_bytes: int) -> None:
        self._write("memory.limit_in_bytes", str(limit_bytes))

    def restore_limit(self) -> None:
        self._write("memory.limit_in_bytes", str(self.limit_bytes or -1))

    def drop_charges(self) -> None:
        self._write("memory.force_empty", "0")


class CgroupV2(MemoryCgroup):
    """The unified hierarchy (Documentation/admin-guide/cgroup-v2.rst)."""

    @property
    def usage_bytes(self) -> int:
        return int(self._read("memory.current"))

    @property
    def oom_kills(self) -> int:
        return self._field("memory.events", "oom_kill")

    def prepare(self) -> None:
        self._write("memory.max", str(self.limit_bytes or "max"))

    def reclaim(self, size_bytes: int) -> int:
        usage = self.usage_bytes
        try:
            self._write("memory.reclaim", str(size_bytes))
        except OSError as error:
            # "If less bytes are reclaimed than the specified amount, -EAGAIN is returned."
            if error.errno != errno.EAGAIN:
                raise
        return max(usage - self.usage_bytes, 0)

    def lower_limit(self, limit_bytes: int) -> None:
        # memory.high throttles and reclaims but never kills; memory.max would.
        self._write("memory.high", str(limit_bytes))

    def restore_limit(self) -> None:
        self._write("memory.high", "max")

    def drop_charges(self) -> None:
        usage = self.usage_bytes
        if usage:
            self.reclaim(usage)


@contextmanager
def memory_cgroup(owner: RunArea | str, limit_bytes: int) -> Iterator[MemoryCgroup]:
    """Make a memory cgroup, remove it at the end: see `cgroup.new_group`.

    MissingCapabilityError if this machine has no memory controller.
    """
    root, version = find_hierarchy("memory")
    kind = CgroupV1 if version == 1 else CgroupV2
    # Giving the charges back: a group that has some takes long to remove.
    with new_group(owner, root, lambda path: kind(path, 0).drop_charges()) as path:
        cgroup = kind(path, limit_bytes)
        cgroup.prepare()
        yield cgroup
