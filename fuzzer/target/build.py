"""Building a kernel whose known bugs can be switched on: Debian's source package and our own patches.

Everything is kept in the cache: the unpacked source with the patches in it, the objects, the kernel. What
was interrupted goes on where it stopped; what did not change is not built again.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import fuzzer
from fuzzer.errors import InfrastructureError, InputError, MissingCapabilityError
from fuzzer.kernel.process import run
from fuzzer.target.kernels import Kernel, cache_directory, save, store

SOURCE_PACKAGE = "linux-source-6.1"
"""The patches are against this version; it is Debian 12's."""
TOOLS = (
    *("gcc", "make", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "perl", "patch", "tar", "xz-utils"),
    *("cpio", "kmod"),
)
KNOWN_BUGS = "known-bugs"
"""Name of the plain kernel; other variants are `known-bugs-VARIANT`."""
_SWITCHES = "switches.patch"
_BUG = re.compile(r"^\+POWERCUT_BUG\((\w+)\)", re.MULTILINE)
_TOUCHED = re.compile(r"^\+\+\+ b/(\S+)", re.MULTILINE)
_APT_S, _UNPACK_S, _MAKE_S = 900.0, 900.0, 4 * 3600.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """What a kernel is built for. `arguments` and `goal` are make's, `image` is what that makes."""

    kind: str
    """As `Kernel.kind`; also the name of the file with the settings that only this machine has."""
    arguments: tuple[str, ...]
    goal: str
    image: str

    def settings(self) -> str:
        """What a kernel for such a guest has to have."""
        here = Path(__file__).parent
        return "".join((here / f"{name}.config").read_text() for name in ("kernel", self.kind))


_PC = Machine("qemu", ("ARCH=x86_64",), "bzImage", "arch/x86/boot/bzImage")
_PROCESS = Machine("uml", ("ARCH=um", "SUBARCH=x86_64"), "linux", "linux")


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to build the same source; `more` settings than its machine needs."""

    machine: Machine
    more: str = ""

    def settings(self) -> str:
        """Its configuration, as KCONFIG_ALLCONFIG takes it."""
        return self.machine.settings() + self.more


VARIANTS = {
    "plain": Variant(_PC),
    "uml": Variant(_PROCESS),
    "kasan": Variant(
        _PC, "CONFIG_KASAN=y\nCONFIG_KASAN_GENERIC=y\nCONFIG_KASAN_INLINE=y\nCONFIG_KASAN_VMALLOC=y\n"
    ),
    "lockdep": Variant(_PC, "CONFIG_PROVE_LOCKING=y\nCONFIG_DEBUG_ATOMIC_SLEEP=y\n"),
}


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch of ours. `bugs`: names of the switches it defines, in the workloads' spelling."""

    path: Path
    text: str

    @property
    def bugs(self) -> tuple[str, ...]:
        return tuple(name.replace("_", "-") for name in _BUG.findall(self.text))

    @property
    def fs(self) -> str:
        """The file system whose bugs it switches; of code that many use, xfs is the one of ours."""
        return "btrfs" if any(name.startswith("fs/btrfs/") for name in _TOUCHED.findall(self.text)) else "xfs"


def patches(corpus: Path | None = None) -> tuple[Patch, ...]:
    """Our patches, the one all others need first; InputError without a checkout's corpus."""
    directory = corpus or Path(fuzzer.__file__).parents[1] / "corpus"
    switches = directory / _SWITCHES
    if not switches.exists():
        raise InputError(f"no patches in {directory}", hint="run powercut from a checkout")
    paths = [switches, *sorted(directory.glob("*/*.patch"))]
    return tuple(Patch(path, path.read_text()) for path in paths)


def build(variant: str, *, jobs: int, say: Say) -> Kernel:
    """Build a kernel and put it into the store; seconds when nothing changed, else minutes."""
    started = time.monotonic()
    name = KNOWN_BUGS if variant == "plain" else f"{KNOWN_BUGS}-{variant}"
    wanted, chosen = patches(), VARIANTS[variant]
    machine = chosen.machine
    _install_tools(say)
    version = _package_version()
    source = _patched_source(version, wanted, say)
    objects = cache_directory() / "build" / f"{name}-{version}"
    objects.mkdir(parents=True, exist_ok=True)
    make = ("nice", "-n", "10", "make", "-s", "-C", str(source), f"O={objects}", *machine.arguments)
    _configure(make, objects, chosen.settings())
    say(f"compiling {name} with {jobs} jobs (the first time it takes about 11 minutes of processor time)")
    run((*make, f"-j{jobs}", machine.goal), timeout_s=_MAKE_S)
    release = run((*make, "kernelrelease"), timeout_s=60).stdout.strip()
    directory = store() / name
    directory.mkdir(parents=True, exist_ok=True)
    image = directory / Path(machine.image).name
    # A guest may be running it: what it runs stays, under no name.
    image.unlink(missing_ok=True)
    shutil.copy(objects / machine.image, image)
    kernel = Kernel(
        name=name,
        kind=machine.kind,
        image=str(image),
        release=release,
        bugs=tuple(bug for patch in wanted for bug in patch.bugs),
        seconds=round(time.monotonic() - started, 1),
    )
    save(kernel)
    return kernel


def disk_bytes() -> int:
    """What the cache takes on disk."""
    paths = (path for path in cache_directory().rglob("*") if not path.is_symlink())
    return sum(path.stat().st_blocks * 512 for path in paths)


def _install_tools(say: Say) -> None:
    """What Debian calls by these names; elsewhere the programs have to be there."""
    if shutil.which("dpkg-query") is None:
        raise MissingCapabilityError(
            "the kernel is built from a Debian source package, on Debian",
            hint="a bzImage of your own works with `powercut kernel run PATH`",
        )
    missing = [name for name in (SOURCE_PACKAGE, *TOOLS) if not _is_installed(name)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise MissingCapabilityError(
            "packages are missing", hint=f"as root: apt-get install {' '.join(missing)}"
        )
    say(f"installing {' '.join(missing)}")
    apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300")
    run((*apt, "update"), timeout_s=_APT_S, check=False)
    run((*apt, "install", "-y", "--no-install-recommends", *missing), timeout_s=_APT_S)


def _is_installed(package: str) -> bool:
    query = ("dpkg-query", "-W", "-f", "${db:Status-Status}", package)
    return run(query, timeout_s=60, check=False).stdout == "installed"


def _package_version() -> str:
    query = ("dpkg-query", "-W", "-f", "${Version}", SOURCE_PACKAGE)
    return run(query, timeout_s=60).stdout.replace(":", "_")


# --------------------------------------------------------------------------------------------- source


def _patched_source(version: str, wanted: Sequence[Patch], say: Say) -> Path:
    """The source tree with exactly these patches in it.

    When they change it is unpacked anew, which is quick; files keep the dates they have in the
    package, so make compiles only what any of the patches touches, then or now.
    """
    top = cache_directory() / "source" / version
    tree, record = top / SOURCE_PACKAGE, top / "patches"
    text = "".join(patch.text for patch in wanted)
    before = record.read_text() if record.exists() else None
    if before == text:
        return tree
    say(f"unpacking {SOURCE_PACKAGE} {version}")
    record.unlink(missing_ok=True)
    if tree.exists():
        shutil.rmtree(tree)
    top.mkdir(parents=True, exist_ok=True)
    archive = f"/usr/src/{SOURCE_PACKAGE}.tar.xz"
    run(("tar", "-x", "-f", archive, "-C", str(top)), timeout_s=_UNPACK_S)
    for patch in wanted:
        run(("patch", "-s", "-p1", "-i", str(patch.path.resolve())), timeout_s=60, cwd=tree)
    for name in {*_TOUCHED.findall(before or ""), *_TOUCHED.findall(text)}:
        if (tree / name).exists():
            (tree / name).touch()
    record.write_text(text)
    return tree


# ---------------------------------------------------------------------------------------------- config


def _configure(make: Sequence[str], objects: Path, settings: str) -> None:
    """Everything that is not asked for is off, which is what makes the build short."""
    wanted = objects / "wanted.config"
    wanted.write_text(settings)
    run((*make, f"KCONFIG_ALLCONFIG={wanted}", "allnoconfig"), timeout_s=600)
    got = set((objects / ".config").read_text().splitlines())
    refused = [line for line in _settings(settings) if line not in got]
    if refused:
        raise InfrastructureError(f"the configuration does not take {', '.join(refused)}")


def _settings(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.startswith("CONFIG_"))
