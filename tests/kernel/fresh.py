"""Fresh mounts for tests that run workloads: a small file system on a private loop device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzzer.kernel.actors import run_workload
from fuzzer.kernel.libc import mount
from fuzzer.kernel.loop import private_minor
from fuzzer.kernel.mkfs import make_fs
from fuzzer.kernel.mount import mounted, unmount
from fuzzer.kernel.workarea import RunArea
from fuzzer.state.history import Event, History
from fuzzer.workload.model import Actor, Op, Value, Workload, make_op


@dataclass(frozen=True)
class Fresh:
    """A new, empty file system, mounted on `path`."""

    fs: str
    area: RunArea
    device: str
    path: Path

    def remount(self) -> None:
        """Unmount and mount again: nothing is left in caches."""
        unmount(self.path)
        mount(self.device, str(self.path), self.fs)

    def run(self, workload: Workload, deadline_s: float = 20.0) -> History:
        return run_workload(workload, self.path, fs=self.fs, cgroup=None, deadline_s=deadline_s)

    def run_ops(self, *ops: Op, setup: tuple[Op, ...] = ()) -> tuple[Event, ...]:
        """Run ops one after the other in one actor; the events of these ops."""
        history = self.run(Workload(setup=setup, actors=(Actor("one", ops),)))
        assert history.killed == ()
        return tuple(event for event in history.events if event.actor == 1)


@contextmanager
def fresh_file_system(area: RunArea, image: Path, fs: str, options: str = "") -> Iterator[Fresh]:
    """Make one, with options of mkfs, and mount it."""
    with private_minor(area) as minor, minor.attached(image) as device:
        make_fs(device, fs, options)
        with mounted(device, area.mkdir("mnt"), fs) as path:
            yield Fresh(fs, area, device, path)


def op(name: str, /, **values: Value) -> Op:
    """`make_op` with keywords; `source` stands for the parameter called `from`."""
    if "source" in values:
        values["from"] = values.pop("source")
    return make_op(name, values)
