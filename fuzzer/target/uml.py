"""User-mode-linux: a kernel as a process of this one, for what this kernel lacks.

Debian's package `user-mode-linux` boots in seconds and has device-mapper with log-writes, btrfs and
xfs. It sees the host's files through hostfs. It has one CPU and is not preemptible: races inside the
kernel that need two of either do not happen in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fuzzer.errors import MissingCapabilityError
from fuzzer.kernel.process import PATH
from fuzzer.target.machine import GuestResult, Plan, init_arguments, run_in_guest

PROGRAM = "linux.uml"
_MODULES = Path("/usr/lib/uml/modules")
_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--", "sh", "-c", '"$@"; exit $?', "sh")
"""In a pid namespace a guest cannot leave a process behind, even if we are killed: two of its helper
processes would not notice. The shell is process 1 there, because the guest ends a panic with signals to
itself, to which a process 1 is immune (pid_namespaces(7))."""


def installed_uml() -> Path | None:
    """The program of the package."""
    found = shutil.which(PROGRAM, path=PATH)
    return Path(found) if found else None


def uml_plan(*, program: Path | None = None, modules: Path | None = None, memory_mib: int = 2048) -> Plan:
    """How to boot `program`, by default that of the package. Needs root, for a pid namespace."""
    found = program or installed_uml()
    if found is None:
        raise MissingCapabilityError(f"{PROGRAM} is not installed", hint="apt-get install user-mode-linux")

    def command_line(directory: Path, writable: Sequence[Path]) -> list[str]:
        return [
            *_NAMESPACE,
            str(found),
            f"mem={memory_mib}M",
            *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
            *("con=null", "con0=null,fd:1", "ssl=null"),
            f"uml_dir={directory}",
            "umid=guest",
            *init_arguments(directory),
        ]

    return Plan("UML", command_line, _mount, (modules or _MODULES,))


def _mount(number: int, path: Path) -> tuple[str, str, str]:
    return "hostfs", "none", str(path)


def run_in_uml(
    argv: Sequence[str],
    *,
    exchange: Path,
    timeout_s: float,
    memory_mib: int = 2048,
    environment: Mapping[str, str] | None = None,
) -> GuestResult:
    """Boot a guest for one command; see `Guest.run`. `timeout_s` covers boot to power-off."""
    plan = uml_plan(memory_mib=memory_mib)
    return run_in_guest(plan, argv, exchange=exchange, timeout_s=timeout_s, environment=environment)
