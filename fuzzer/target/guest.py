"""Process 1 of a guest: makes the machine usable, runs commands for the host, powers off when told.

Started by the guest's kernel as `python -m fuzzer.target.guest DIRECTORY`. The root is the host's,
read-only; the directories named in the job are the only ones that can be written. The host asks by
putting `N.json` into DIRECTORY and is answered with `N.stdout`, `N.stderr` and, last, `N.done`. Whatever
goes wrong here itself ends in a traceback on the console and a kernel panic, which the host reports.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzzer.kernel import libc
from fuzzer.kernel.process import wait_until

JOB, READY = "job.json", "ready"
MODULES = (
    "crc32c_generic",  # libcrc32c does not load without it, and modules.dep does not say so
    *("loop", "fuse", "dm-log-writes", "dm-flakey", "dm-delay", "dm-thin-pool", "btrfs", "xfs"),
)
SWITCH = "powercut_"
"""How the parameters of our patches begin (corpus/switches.patch); those of counters end in `_hits`."""

_POLL_S = 0.02
_REAP_S = 10.0


def main(directory: Path) -> None:
    """Serve the host until it says power off."""
    # First: our tmpfs on /run hides the directory until it is mounted itself.
    job = json.loads((directory / JOB).read_text())
    _mount_pseudo_file_systems()
    for path, kind, source, options in job["mounts"]:
        Path(path).mkdir(parents=True, exist_ok=True)
        libc.mount(source, path, kind, options=options)
    for name in MODULES:
        _load_module([Path(root) for root in job["module_roots"]], name)
    (directory / READY).touch()
    for number in itertools.count():
        command = _wait_for(directory / f"{number}.json")
        if not command:
            libc.power_off()
        answer = _run(command, directory / f"{number}.stdout", directory / f"{number}.stderr")
        _put(directory / f"{number}.done", json.dumps(answer))


def _mount_pseudo_file_systems() -> None:
    libc.mount("proc", "/proc", "proc")
    libc.mount("sysfs", "/sys", "sysfs")
    if not Path("/dev").is_mount():
        libc.mount("devtmpfs", "/dev", "devtmpfs")
    Path("/dev/shm").mkdir()
    libc.mount("tmpfs", "/dev/shm", "tmpfs")
    libc.mount("tmpfs", "/run", "tmpfs")
    libc.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    has = Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    for controller in {"memory", "cpu"}.intersection(has):
        Path("/sys/fs/cgroup/cgroup.subtree_control").write_text(f"+{controller}")
    with suppress(OSError):  # A kernel without it has no use for it either.
        libc.mount("debugfs", "/sys/kernel/debug", "debugfs")


def _load_module(roots: list[Path], name: str) -> None:
    """Load a module and what it needs; one that is not there is built in, or will be missed by a probe."""
    for root in roots:
        directory = root / os.uname().release
        if (directory / "modules.dep").exists():
            for path in with_dependencies(directory, name):
                _insert(path)


def with_dependencies(directory: Path, name: str) -> Iterator[Path]:
    """Module files in the order to load them in: modules.dep lists the nearest dependency first."""
    for line in (directory / "modules.dep").read_text().splitlines():
        module, _, needs = line.partition(":")
        if Path(module).name.partition(".")[0].replace("_", "-") == name.replace("_", "-"):
            yield from (directory / path for path in reversed([module, *needs.split()]))


def _insert(path: Path) -> None:
    with path.open("rb") as file:
        try:
            libc.finit_module(file.fileno())
        except FileExistsError:
            return  # Loaded already, as another one's dependency.


def _wait_for(path: Path) -> dict[str, Any]:
    while not path.exists():
        time.sleep(_POLL_S)
    return dict(json.loads(path.read_text()))


def _put(path: Path, text: str) -> None:
    """Make the file appear with all of its content."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.rename(path)


# ------------------------------------------------------------------------------------------- commands


def _run(command: dict[str, Any], stdout: Path, stderr: Path) -> dict[str, Any]:
    """Run one command; nothing of it is left when this returns, but for processes that cannot die."""
    unknown = _set_switches(command["switches"])
    if unknown:
        return {"error": f"this kernel has no switch {', '.join(unknown)}"}
    with stdout.open("wb") as out, stderr.open("wb") as err:
        try:
            process = subprocess.Popen(
                command["argv"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=command["environment"],
                cwd=command["cwd"],
                start_new_session=True,
            )
        except OSError as error:
            return {"error": f"cannot start {command['argv'][0]}: {error}"}
        try:
            status = process.wait(command["timeout_s"])
        except subprocess.TimeoutExpired:
            status = None
    return {"status": status, "stuck": _kill_all(), "hits": read_hits()}


def _kill_all() -> list[str]:
    """End every other process, as only process 1 can; names and kernel stacks of those that stay."""
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    return [] if wait_until(_reaped, _REAP_S) else list(_stuck())


def _reaped() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _stuck() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) > 1:
            with suppress(OSError):
                if (entry / "cmdline").read_bytes():
                    yield f"{(entry / 'comm').read_text()}{(entry / 'stack').read_text()}"


# ------------------------------------------------------------------------------------------- switches


def _parameters() -> dict[str, Path]:
    """Our patches' parameters, by their name in the workload's spelling."""
    found = Path("/sys/module").glob(f"*/parameters/{SWITCH}*")
    return {path.name.removeprefix(SWITCH).replace("_", "-"): path for path in found}


def _set_switches(wanted: dict[str, str]) -> list[str]:
    """Set these, everything else off and all counters to zero; names this kernel does not have."""
    parameters = _parameters()
    for name, path in parameters.items():
        path.write_text(wanted.get(name, "0"))
    return sorted(set(wanted) - set(parameters))


def switched_on() -> str:
    """The known bugs that are on in the running kernel, in the workloads' spelling, joined by `+`."""
    parameters = _parameters()
    bugs = sorted(name for name in parameters if f"{name}-hits" in parameters)
    return "+".join(name for name in bugs if parameters[name].read_text().strip() == "Y")


def read_hits() -> dict[str, int]:
    """The counters of the known bugs of the running kernel, in the workloads' spelling."""
    return {
        name.removesuffix("-hits"): int(path.read_text())
        for name, path in _parameters().items()
        if name.endswith("-hits")
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
