"""Throttled actors: processes that may run for 2 ms of every 10, and so stop often, anywhere, for long.

CFS bandwidth control (Documentation/scheduler/sched-bwc.rst). Unlike an idle one, a throttled actor stops on
an idle machine, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzzer.kernel.cgroup import add_process, find_hierarchy, new_group, read_field, write_file
from fuzzer.kernel.workarea import RunArea

_PERIOD_US, _QUOTA_US = 10_000, 2_000


@dataclass(frozen=True, slots=True)
class Throttle:
    """A group whose processes share the quota."""

    path: Path

    def add(self, pid: int) -> None:
        """Move a process in."""
        add_process(self.path, pid)

    @property
    def times(self) -> int:
        """How often it was stopped."""
        return read_field(self.path / "cpu.stat", "nr_throttled")


@contextmanager
def throttle(owner: RunArea | str) -> Iterator[Throttle]:
    """A group with a CPU quota; see `cgroup.new_group`. MissingCapabilityError without a cpu controller."""
    root, version = find_hierarchy("cpu")
    with new_group(owner, root, lambda path: None) as path:
        if version == 1:
            write_file(path / "cpu.cfs_period_us", str(_PERIOD_US))
            write_file(path / "cpu.cfs_quota_us", str(_QUOTA_US))
        else:
            write_file(path / "cpu.max", f"{_QUOTA_US} {_PERIOD_US}")
        yield Throttle(path)
