"""A first root for kernels that have 9p and virtio as modules: busybox, the modules, a script of a few lines.

Format: a cpio archive of the "newc" kind (Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from fuzzer.errors import InputError, MissingCapabilityError
from fuzzer.target.guest import with_dependencies

BUSYBOX = Path("/bin/busybox")
_MODULES = ("virtio_pci", "9pnet_virtio", "9p")
_DIRECTORY, _FILE = 0o040755, 0o100755
_TRAILER = "TRAILER!!!"


def write_initramfs(path: Path, modules: Path) -> Path:
    """Write the archive to `path`. `modules` holds one directory, named by the kernel's release."""
    if not BUSYBOX.exists():
        raise MissingCapabilityError("busybox is not installed", hint="apt-get install busybox-static")
    releases = [found.parent for found in modules.glob("*/modules.dep")]
    if len(releases) != 1:
        raise InputError(f"{modules} holds the modules of {len(releases)} kernels, not of one")
    files = list(dict.fromkeys(file for name in _MODULES for file in with_dependencies(releases[0], name)))
    with path.open("wb") as archive:
        for member in _members(files):
            archive.write(member)
    return path


def _members(modules: list[Path]) -> Iterator[bytes]:
    for directory in ("bin", "lib", "proc", "root"):
        yield _member(directory, _DIRECTORY, b"")
    yield _member("bin/busybox", _FILE, BUSYBOX.read_bytes())
    for module in modules:
        yield _member(f"lib/{module.name}", _FILE, module.read_bytes())
    yield _member("init", _FILE, _script([module.name for module in modules]).encode())
    yield _member(_TRAILER, 0, b"")


def _script(modules: list[str]) -> str:
    """Load, mount what the kernel's own parameters say, and go on there with the same arguments."""
    return "\n".join(
        [
            "#!/bin/busybox sh",
            "set -e",
            "busybox mount -t proc proc /proc",
            *(f"busybox insmod /lib/{shlex.quote(name)}" for name in modules),
            "for word in $(busybox cat /proc/cmdline); do case $word in",
            "rootflags=*) flags=${word#rootflags=};; init=*) init=${word#init=};; esac; done",
            "busybox umount /proc",
            "busybox mount -t 9p -o ro,$flags root /root",
            'exec busybox switch_root /root "$init" "$@"',
            "",
        ]
    )


def _member(name: str, mode: int, data: bytes) -> bytes:
    """One archive member: a header of hexadecimal fields, the name, the data, each padded to 4 bytes."""
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08x" % value for value in fields) + name.encode() + b"\0"
    return header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4)
