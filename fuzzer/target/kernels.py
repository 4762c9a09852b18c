"""The kernels a guest can be booted with: built here, fetched, the installed user-mode-linux, or a file.

A kernel that was built or fetched is a directory in the cache with the image and `kernel.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzzer.errors import InputError, MissingCapabilityError
from fuzzer.target.machine import Plan
from fuzzer.target.qemu import qemu_plan
from fuzzer.target.uml import PROGRAM, installed_uml, uml_plan

_FACTS = "kernel.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel. `kind` is `qemu` (a bzImage) or `uml`; paths are absolute; `modules` holds a directory per
    release, "" if it needs none; `bugs` are the known bugs it can switch on."""

    name: str
    kind: str
    image: str
    release: str = ""
    modules: str = ""
    bugs: tuple[str, ...] = ()
    seconds: float = 0.0
    """How long making it took."""

    def plan(self, *, cpus: int, memory_mib: int) -> Plan:
        """How to boot it."""
        modules = Path(self.modules) if self.modules else None
        if self.kind == "uml":
            return uml_plan(program=Path(self.image), modules=modules, memory_mib=memory_mib)
        return qemu_plan(Path(self.image), modules=modules, cpus=cpus, memory_mib=memory_mib)


def cache_directory() -> Path:
    """Where sources, objects and kernels are kept: `$XDG_CACHE_HOME/powercut`, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "powercut"


def store() -> Path:
    """Where kernels lie, a directory each."""
    return cache_directory() / "kernels"


def save(kernel: Kernel) -> None:
    """Write down what is in the kernel's directory, last of all: without it there is no such kernel."""
    draft = store() / kernel.name / ".draft"
    draft.write_text(json.dumps(asdict(kernel), indent=1) + "\n")
    draft.rename(draft.with_name(_FACTS))


def known_kernels() -> Iterator[Kernel]:
    """All kernels in the cache by name, then the installed user-mode-linux."""
    for path in sorted(store().glob(f"*/{_FACTS}")):
        facts = json.loads(path.read_text())
        yield Kernel(**facts | {"bugs": tuple(facts["bugs"])})
    program = installed_uml()
    if program:
        yield Kernel(name="uml", kind="uml", image=str(program))


def find_kernel(name: str) -> Kernel:
    """A kernel by its name, or by the path of an image (one called linux or `*.uml` is user-mode-linux)."""
    found = {kernel.name: kernel for kernel in known_kernels()}
    if name in found:
        return found[name]
    path = Path(name)
    if path.is_file():
        kind = "uml" if path.name == "linux" or path.suffix == ".uml" else "qemu"
        return Kernel(name=path.name, kind=kind, image=str(path.resolve()))
    if name == "uml":
        raise MissingCapabilityError(f"{PROGRAM} is not installed", hint="apt-get install user-mode-linux")
    raise InputError(
        f"no kernel {name!r}: neither a file nor one of {', '.join(sorted(found)) or 'of the store'}",
        hint="powercut kernel build, or fetch, makes some; powercut kernel list shows them",
    )
