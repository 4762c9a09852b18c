"""QEMU: a kernel on an emulated machine, with as many CPUs as wanted; by KVM where that is to be had.

The guest's root is the host's, over 9p and read-only; each directory it may write to is another 9p
share. A kernel that has 9p over virtio built in (`powercut kernel build`) boots right into it; for one
that has them as modules a small first root with busybox loads these (`initramfs.py`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from fuzzer.errors import InputError, MissingCapabilityError
from fuzzer.kernel.process import PATH
from fuzzer.target.initramfs import write_initramfs
from fuzzer.target.machine import Plan, init_arguments

PROGRAM = "qemu-system-x86_64"
_KVM = Path("/dev/kvm")
_KVM_MODULES = (Path("/sys/module/kvm_intel"), Path("/sys/module/kvm_amd"))
"""Other backends of KVM exist that run only kernels made for them (kvm_pvm); a guest hangs there silently."""

_EMULATED = "max,-erms,-fsrm"
"""Without fast string moves the kernel copies user memory by words. The emulator would carry these moves
out byte by byte, and where a store through a mapping meets a write, half of each stamp would be left."""

ROOT_FLAGS = "trans=virtio,version=9p2000.L,msize=512000,cache=loose"
"""The host's files may be cached: nobody but the host changes them, and not those that run here."""
_SHARE_FLAGS = "trans=virtio,version=9p2000.L,msize=512000,cache=mmap"
"""Writes go through, so that the host sees them at once; shared mappings work (sqlite wants one)."""


def qemu_plan(
    image: Path, *, modules: Path | None = None, cpus: int = 2, memory_mib: int = 3072, extra: str = ""
) -> Plan:
    """How to boot a bzImage. `modules` is the directory its modules lie in, by release, if it needs any;
    `extra` are kernel parameters put behind ours."""
    program = shutil.which(PROGRAM, path=PATH)
    if program is None:
        raise MissingCapabilityError(f"{PROGRAM} is not installed", hint="apt-get install qemu-system-x86")
    if not image.is_file():
        raise InputError(f"there is no kernel image {image}")

    def command_line(directory: Path, writable: Sequence[Path]) -> list[str]:
        first_root = write_initramfs(directory / "initramfs", modules) if modules else None
        return [
            program,
            *_machine(cpus, memory_mib),
            *("-kernel", str(image.resolve())),
            *(("-initrd", str(first_root)) if first_root else ()),
            # Appended, because QEMU's own complaints go to the same file.
            *("-chardev", f"file,id=console,path={directory / 'console'},append=on"),
            *("-serial", "chardev:console"),
            *_share("root", Path("/"), read_only=True),
            *(word for n, path in enumerate(writable) for word in _share(_tag(n), path, read_only=False)),
            *("-append", " ".join(_parameters(directory, extra))),
        ]

    return Plan("QEMU", command_line, _mount, (modules,) if modules else ())


def has_kvm() -> bool:
    """True if guests can run at full speed here."""
    return os.access(_KVM, os.R_OK | os.W_OK) and any(path.exists() for path in _KVM_MODULES)


def _machine(cpus: int, memory_mib: int) -> list[str]:
    return [
        *("-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *(
            ("-accel", "kvm", "-cpu", "host")
            if has_kvm()
            else ("-accel", "tcg,thread=multi", "-cpu", _EMULATED)
        ),
        *("-smp", str(cpus), "-m", f"{memory_mib}M"),
        *("-device", "virtio-rng-pci"),
    ]


def _parameters(directory: Path, extra: str) -> list[str]:
    return [
        *("console=ttyS0", "root=root", "rootfstype=9p", f"rootflags={ROOT_FLAGS}", "ro"),
        # An oops ends the guest, so that it is seen at once and with its words; QEMU ends with it.
        *("oops=panic", "panic=-1", "mitigations=off"),
        # An emulated CPU may wait for a real one longer than RCU thinks right.
        "rcupdate.rcu_cpu_stall_suppress=1",
        *extra.split(),
        *init_arguments(directory),
    ]


def _tag(number: int) -> str:
    return f"share{number}"


def _share(tag: str, path: Path, *, read_only: bool) -> list[str]:
    only = ",readonly=on" if read_only else ""
    return [
        *("-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{only}"),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    ]


def _mount(number: int, path: Path) -> tuple[str, str, str]:
    return "9p", _tag(number), _SHARE_FLAGS
