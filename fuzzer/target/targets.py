"""Targets: the machines a campaign can run on besides this one, each a kernel in a guest."""

from __future__ import annotations

from dataclasses import dataclass

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

    def plan(self) -> Plan:
        """How to boot one."""
        return self.kernel.plan(cpus=self.cpus, memory_mib=self.memory_mib)


def find_target(name: str) -> Target | None:
    """`host` (None), `uml`, `uml:KERNEL` or `qemu:KERNEL`, where KERNEL is as `find_kernel` takes it."""
    if name == HOST:
        return None
    kind, _, kernel_name = name.partition(":")
    if kind not in ("uml", "qemu") or (kind == "qemu" and not kernel_name):
        raise InputError(f"no target {name!r}", hint="host, uml, uml:KERNEL or qemu:KERNEL")
    kernel = find_kernel(kernel_name or kind)
    if kernel.kind != kind:
        raise InputError(f"{kernel.name} is a kernel for {kernel.kind}, not for {kind}")
    if kind == "uml":
        # It has one CPU, so it is made faster by another guest, not by more memory or time.
        return Target(
            name=name, kernel=kernel, cpus=1, memory_mib=2048, boot_s=180.0, silent_s=400.0, jobs=None
        )
    # Emulated, it is 10 to 20 times slower than this machine, and two CPUs of it keep two of ours busy.
    return Target(name=name, kernel=kernel, cpus=2, memory_mib=3072, boot_s=400.0, silent_s=2000.0, jobs=1)
