"""Process 1 of a guest: makes the machine usable, runs one command, says how it ended, powers off.

Started by the guest's kernel as `python -m fuzzer.target.guest JOB_DIRECTORY`. The root is the host's,
read-only; the directories named in the job are the only ones that can be written. Whatever goes
wrong here ends in a traceback on the console and a kernel panic, which the host reports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fuzzer.kernel import libc

MODULES = ("loop", "fuse", "dm-log-writes", "dm-flakey", "dm-thin-pool")
MODULE_ROOTS = (Path("/usr/lib/uml/modules"), Path("/lib/modules"))
JOB, STATUS, STDOUT, STDERR = "job.json", "status", "stdout", "stderr"


def main(directory: Path) -> None:
    """Run the job in `directory` and power off."""
    # First: our tmpfs on /run hides the directory until it is mounted itself.
    job = json.loads((directory / JOB).read_text())
    _mount_pseudo_file_systems()
    for writable in job["writable"]:
        _mount_host_directory(Path(writable))
    for name in MODULES:
        _load_module(name)
    status = _run(job, directory)
    (directory / STATUS).write_text(f"{status}\n")
    libc.power_off()


def _mount_pseudo_file_systems() -> None:
    libc.mount("proc", "/proc", "proc")
    libc.mount("sysfs", "/sys", "sysfs")
    if not Path("/dev").is_mount():
        libc.mount("devtmpfs", "/dev", "devtmpfs")
    Path("/dev/shm").mkdir()
    libc.mount("tmpfs", "/dev/shm", "tmpfs")
    libc.mount("tmpfs", "/run", "tmpfs")
    libc.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    if "memory" in Path("/sys/fs/cgroup/cgroup.controllers").read_text().split():
        Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory")


def _mount_host_directory(path: Path) -> None:
    """Mount a directory of the host for writing, at its own path; our tmpfs on /run may hide it."""
    path.mkdir(parents=True, exist_ok=True)
    libc.mount("none", str(path), "hostfs", options=str(path))


def _load_module(name: str) -> None:
    """Load a module and what it needs; one that is not there is built in, or will be missed by a probe."""
    for root in MODULE_ROOTS:
        directory = root / os.uname().release
        if (directory / "modules.dep").exists():
            for path in _with_dependencies(directory, name):
                _insert(path)


def _with_dependencies(directory: Path, name: str) -> Iterator[Path]:
    """Module files in the order to load them in: modules.dep lists the nearest dependency first."""
    for line in (directory / "modules.dep").read_text().splitlines():
        module, _, needs = line.partition(":")
        if Path(module).name.partition(".")[0] == name:
            yield from (directory / path for path in reversed([module, *needs.split()]))


def _insert(path: Path) -> None:
    with path.open("rb") as file:
        try:
            libc.finit_module(file.fileno())
        except FileExistsError:
            return  # Loaded already, as another one's dependency.


def _run(job: dict[str, list[str]], directory: Path) -> int:
    with (directory / STDOUT).open("wb") as stdout, (directory / STDERR).open("wb") as stderr:
        done = subprocess.run(
            job["argv"],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=dict(pair.split("=", 1) for pair in job["environment"]),
            cwd=job["cwd"][0],
            check=False,
        )
    return done.returncode


if __name__ == "__main__":
    main(Path(sys.argv[1]))
