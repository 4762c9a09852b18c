"""Debian's own kernels, fetched as packages and unpacked into the cache: nothing is installed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from fuzzer.errors import InfrastructureError, MissingCapabilityError
from fuzzer.kernel.process import run
from fuzzer.target.build import Say
from fuzzer.target.kernels import Kernel, save, store

PACKAGES = ("linux-image-amd64", "user-mode-linux")
_APT_S, _UNPACK_S = 900.0, 300.0


def fetch(package: str, *, say: Say) -> Kernel:
    """Fetch a package of PACKAGES; the kernel has its name."""
    started = time.monotonic()
    if shutil.which("apt-get") is None:
        raise MissingCapabilityError("packages are fetched by apt-get, on Debian")
    directory = store() / package
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    real = _image_package() if package == "linux-image-amd64" else package
    say(f"fetching {real}")
    run(("apt-get", "download", real), timeout_s=_APT_S, cwd=directory)
    archive = _only(directory, "*.deb")
    run(("dpkg-deb", "-x", str(archive), str(directory)), timeout_s=_UNPACK_S)
    archive.unlink()
    kernel = _kernel(package, directory, round(time.monotonic() - started, 1))
    save(kernel)
    return kernel


def _image_package() -> str:
    """The package behind the metapackage: the image whose version the archive offers now."""
    said = run(("apt-cache", "depends", "--important", "linux-image-amd64"), timeout_s=60).stdout
    names = [line.split()[-1] for line in said.splitlines() if "linux-image-" in line and "Depends" in line]
    if not names:
        raise InfrastructureError("apt knows no linux-image-amd64", hint="apt-get update")
    return names[0]


def _kernel(package: str, directory: Path, seconds: float) -> Kernel:
    if package == "user-mode-linux":
        modules = directory / "usr/lib/uml/modules"
        image, kind = directory / "usr/bin/linux.uml", "uml"
    else:
        modules = directory / "lib/modules"
        image, kind = _only(directory / "boot", "vmlinuz-*"), "qemu"
    release = _only(modules, "*").name
    if not (modules / release / "modules.dep").exists():
        # Debian makes it when the package is installed; depmod(8) looks for lib/modules under its base.
        run(("depmod", "-b", str(modules.parents[1]), release), timeout_s=_UNPACK_S)
    return Kernel(
        name=package,
        kind=kind,
        image=str(image),
        release=release,
        modules=str(modules),
        seconds=seconds,
    )


def _only(directory: Path, pattern: str) -> Path:
    found = list(directory.glob(pattern))
    if len(found) != 1:
        raise InfrastructureError(f"{directory} has {len(found)} of {pattern}, not one")
    return found[0]
