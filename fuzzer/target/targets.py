"""Targets: the machines a campaign can run on besides this one, each a kernel in a guest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fuzzer.errors import InputError
from fuzzer.target.kernels import Kernel, find_kernel
from fuzzer.target.machine import Plan

HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kernel, and the machine it gets. `name` is what the user called it."""

    name: str
    kernel: Kernel
    cpus: int
    memory_mib: int
    boot_s: float
    silent_s: float
    """How long a guest may take for one workload and its crash states."""
    jobs: int | None
    """How many guests are good; None: one for each CPU we may use."""
    switches: Mapping[str, str] = field(default_factory=dict)
    """Known bugs to have on, and parameters of theirs: name to value."""

    @property
    def bugs(self) -> str:
        """The known bugs it has on, as `switched_on` tells in the guest."""
        return "+".join(sorted(bug for bug in self.kernel.bugs if self.switches.get(bug, "0") != "0"))

    def plan(self) -> Plan:
        """How to boot one."""
        return self.kernel.plan(cpus=self.cpus, memory_mib=self.memory_mib)


def target_of(kernel: Kernel) -> Target:
    """A kernel and the machine it gets by default."""
    return _machine(f"{kernel.kind}:{kernel.name}", kernel)


def find_target(name: str) -> Target | None:
    """`host` (None), `uml`, `uml:KERNEL` or `qemu:KERNEL`, where KERNEL is as `find_kernel` takes it.

    `,BUG` or `,PARAMETER=VALUE` behind it switches on what the kernel can (`kernel list`).
    """
    if name == HOST:
        return None
    machine, *words = name.split(",")
    kind, _, kernel_name = machine.partition(":")
    if kind not in ("uml", "qemu") or (kind == "qemu" and not kernel_name):
        raise InputError(f"no target {name!r}", hint="host, uml, uml:KERNEL or qemu:KERNEL")
    kernel = find_kernel(kernel_name or kind)
    if kernel.kind != kind:
        raise InputError(f"{kernel.name} is a kernel for {kernel.kind}, not for {kind}")
    return replace(_machine(name, kernel), switches=_switches(kernel, words))


def _machine(name: str, kernel: Kernel) -> Target:
    if kernel.kind == "uml":
        # It has one CPU, so it is made faster by another guest, not by more memory or time.
        return Target(
            name=name, kernel=kernel, cpus=1, memory_mib=2048, boot_s=180.0, silent_s=400.0, jobs=None
        )
    # Emulated, it is 10 to 20 times slower than this machine, and two CPUs of it keep two of ours busy.
    return Target(name=name, kernel=kernel, cpus=2, memory_mib=3072, boot_s=400.0, silent_s=2000.0, jobs=1)


def _switches(kernel: Kernel, words: list[str]) -> dict[str, str]:
    """`BUG` is on; parameters begin with the name of their bug."""
    found = {name: value or "1" for name, _, value in (word.partition("=") for word in words)}
    for name in found:
        if not any(name == bug or name.startswith(f"{bug}-") for bug in kernel.bugs):
            has = f"it has {', '.join(kernel.bugs)}" if kernel.bugs else "see `powercut kernel build`"
            raise InputError(f"{kernel.name} has no bug {name!r} to switch on", hint=has)
    return found
