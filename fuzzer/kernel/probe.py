"""What this machine can do. Every answer comes from trying the thing, never from comparing versions."""

from __future__ import annotations

import errno
import fcntl
import importlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from fuzzer.errors import InputError, MissingCapabilityError, PowercutError
from fuzzer.kernel import libc, procfs
from fuzzer.kernel.kmsg import KernelLog
from fuzzer.kernel.loop import private_minor
from fuzzer.kernel.mkfs import make_fs
from fuzzer.kernel.mount import mounted
from fuzzer.kernel.process import PATH, run
from fuzzer.kernel.throttle import throttle
from fuzzer.kernel.workarea import run_area

_SETUP = "scripts/setup installs it"
_LOOP_CTL_GET_FREE = 0x4C82
_KVM_GET_API_VERSION = 0xAE00
_XFS_QUOTA_STATISTICS = Path("/proc/fs/xfs/xqmstat")
_DM_CONTROL = Path("/dev/mapper/control")
_DM_VERSION, _DM_GET_TARGET_VERSION = 0xC138FD00, 0xC138FD11
_DM_IOCTL_BYTES, _DM_DATA_START_AT, _DM_NAME_AT = 312, 16, 48
_TOOL_TIMEOUT_S = 10.0
_LEAST_XFS_BYTES = 300 << 20


@dataclass(frozen=True, slots=True)
class Capability:
    """One answer. `reason` says what was seen, `hint` how to get the capability (empty if `ok`)."""

    name: str
    ok: bool
    reason: str
    hint: str = ""


class _MissingError(Exception):
    """The probed thing is not there; the text says why."""


Probe = Callable[[], str]
"""Tries something: returns what was seen, or raises `_MissingError`, OSError or PowercutError."""


def _root() -> str:
    if os.geteuid() != 0:
        raise _MissingError(f"running as uid {os.geteuid()}")
    return "running as root"


def _loop() -> str:
    with _opened("/dev/loop-control", os.O_RDWR) as control:
        return f"LOOP_CTL_GET_FREE says {fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"


def _fuse() -> str:
    with _opened("/dev/fuse", os.O_RDWR):
        return "/dev/fuse opens"


def _pyfuse3() -> str:
    try:
        module = importlib.import_module("pyfuse3")
    except ImportError as error:
        raise _MissingError(str(error)) from None
    return f"imports, version {module.__version__}"


def _file_system(fs: str) -> str:
    """mount(2) looks up the type, loading its module, before it looks for the device (do_new_mount)."""
    try:
        libc.mount("/nonexistent", "/", fs)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise _MissingError("the kernel does not know it") from None
        if error.errno != errno.EPERM:
            return "the kernel knows it"
    if fs not in Path("/proc/filesystems").read_text().split():
        raise _MissingError("not in /proc/filesystems, and only root can try to load it")
    return "in /proc/filesystems"


def _tool(*argv: str) -> str:
    if shutil.which(argv[0], path=PATH) is None:
        raise _MissingError(f"no program {argv[0]}")
    done = run(argv, timeout_s=_TOOL_TIMEOUT_S)
    return done.output.strip().splitlines()[0]


def _device_mapper() -> str:
    version = _dm_ioctl(_DM_VERSION)[:12]
    numbers = [int.from_bytes(version[at : at + 4], "little") for at in (0, 4, 8)]
    return f"interface {'.'.join(map(str, numbers))}"


def _dm_log_writes() -> str:
    """DM_GET_TARGET_VERSION loads the target's module, as loading a table would (drivers/md/dm-ioctl.c)."""
    try:
        _dm_ioctl(_DM_GET_TARGET_VERSION, "log-writes")
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENXIO):
            raise _MissingError("device-mapper has no target log-writes") from None
        raise
    return "device-mapper has the target log-writes"


def _dm_ioctl(command: int, name: str = "") -> bytes:
    """One device-mapper ioctl: struct dm_ioctl, room for the answer behind it."""
    argument = bytearray(16 << 10)
    argument[0:12] = b"\x04\0\0\0" + bytes(8)  # interface version 4.0.0: every kernel with major 4 agrees
    argument[12:16] = len(argument).to_bytes(4, "little")
    argument[_DM_DATA_START_AT : _DM_DATA_START_AT + 4] = _DM_IOCTL_BYTES.to_bytes(4, "little")
    argument[_DM_NAME_AT : _DM_NAME_AT + len(name)] = name.encode()
    if not _DM_CONTROL.exists():
        _make_dm_control()
    with _opened(_DM_CONTROL, os.O_RDWR) as control:
        fcntl.ioctl(control, command, argument)
    return bytes(argument)


def _make_dm_control() -> None:
    """Load device-mapper where nothing has yet, and have dmsetup make the node where no udev does."""
    if shutil.which("modprobe", path=PATH):
        run(("modprobe", "-q", "dm-mod"), timeout_s=_TOOL_TIMEOUT_S, check=False)
    if "device-mapper" not in Path("/proc/misc").read_text().split():
        raise _MissingError("the kernel has no device-mapper")
    if not _DM_CONTROL.exists():
        run(("dmsetup", "version"), timeout_s=_TOOL_TIMEOUT_S)


def _memcg_v1() -> str:
    for mount in procfs.mounts():
        if mount.fs == "cgroup" and "memory" in mount.super_options.split(","):
            return _try_cgroup(mount.path, "memory.limit_in_bytes")
    raise _MissingError("no cgroup v1 mount with the memory controller")


def _memcg_v2() -> str:
    for mount in procfs.mounts():
        if mount.fs == "cgroup2":
            return _try_cgroup(mount.path, "memory.max")
    raise _MissingError("no cgroup2 mount")


def _try_cgroup(root: Path, limit: str) -> str:
    group = root / f"powercut-probe-{os.getpid()}"
    group.mkdir()
    try:
        if not (group / limit).exists():
            raise _MissingError(f"a new group in {root} has no {limit}")
        (group / limit).write_text(str(1 << 30))
    finally:
        group.rmdir()
    return f"a limit can be set in {root}"


def _cpu_quota() -> str:
    with throttle(f"powercut-probe-{os.getpid()}") as group:
        return f"a quota can be set in {group.path.parent}"


def _drop_caches() -> str:
    with _opened("/proc/sys/vm/drop_caches", os.O_WRONLY):
        return "/proc/sys/vm/drop_caches opens for writing"


def _kmsg() -> str:
    with KernelLog.open() as log:
        log.read()
    return "/dev/kmsg can be read"


def _xfs_quota() -> str:
    """xfs makes the file as it is loaded, if it was built with CONFIG_XFS_QUOTA (xfs_init_procfs)."""
    _file_system("xfs")
    if not _XFS_QUOTA_STATISTICS.exists():
        raise _MissingError(f"no {_XFS_QUOTA_STATISTICS}")
    return f"{_XFS_QUOTA_STATISTICS} is there"


def _xfs_exchange() -> str:
    """Only a mount tells: mkfs may know it and the kernel not."""
    with run_area() as area, private_minor(area) as minor:
        image = area.path / "probe.img"
        image.touch()
        os.truncate(image, _LEAST_XFS_BYTES)
        with minor.attached(image) as device:
            try:
                make_fs(device, "xfs", "-i exchange=1")
            except InputError:
                raise _MissingError("mkfs.xfs does not know -i exchange=1") from None
            with mounted(device, area.mkdir("probe"), "xfs"):
                return "mkfs.xfs -i exchange=1 makes what the kernel mounts"


def _kvm() -> str:
    with _opened("/dev/kvm", os.O_RDWR) as kvm:
        version = fcntl.ioctl(kvm, _KVM_GET_API_VERSION)
    return f"/dev/kvm opens (API {version}); whether guests run is only known by booting one"


_PROBES: dict[str, tuple[Probe, str]] = {
    "root": (_root, "run it as root, for example with sudo"),
    "loop": (_loop, "needs root and the kernel's loop driver; in a container, --privileged"),
    "fuse": (_fuse, "needs the kernel's fuse driver; in a container, --device /dev/fuse"),
    "pyfuse3": (_pyfuse3, _SETUP),
    "device-mapper": (_device_mapper, "modprobe dm-mod; or use the FUSE recorder"),
    "dm-log-writes": (_dm_log_writes, "modprobe dm-log-writes; or use the FUSE recorder"),
    "btrfs": (partial(_file_system, "btrfs"), "modprobe btrfs, or use xfs"),
    "xfs": (partial(_file_system, "xfs"), "modprobe xfs, or use btrfs"),
    "mkfs.btrfs": (partial(_tool, "mkfs.btrfs", "--version"), f"{_SETUP} (package btrfs-progs)"),
    "mkfs.xfs": (partial(_tool, "mkfs.xfs", "-V"), f"{_SETUP} (package xfsprogs)"),
    "btrfs-check": (partial(_tool, "btrfs", "--version"), f"{_SETUP} (package btrfs-progs)"),
    "xfs_repair": (partial(_tool, "xfs_repair", "-V"), f"{_SETUP} (package xfsprogs)"),
    "xfs-quota": (_xfs_quota, "only needed by workloads that mount xfs with quotas (CONFIG_XFS_QUOTA)"),
    "xfs-exchange": (_xfs_exchange, "only needed by exchange_range: xfsprogs 6.10 and Linux 6.10"),
    "memcg-v1": (_memcg_v1, "only needed where there is no memcg-v2"),
    "memcg-v2": (_memcg_v2, "needs the memory controller in cgroup2's cgroup.subtree_control"),
    "cpu-quota": (_cpu_quota, "only needed by workloads that throttle actors (CONFIG_CFS_BANDWIDTH)"),
    "drop_caches": (_drop_caches, "needs root and a writable /proc/sys"),
    "kmsg": (_kmsg, "needs root; in a container, --privileged"),
    "kvm": (_kvm, "only makes guests faster; needs virtualization"),
    "uml": (partial(_tool, "linux.uml", "--version"), f"{_SETUP} (package user-mode-linux)"),
    "qemu": (partial(_tool, "qemu-system-x86_64", "--version"), "apt-get install qemu-system-x86"),
}

NAMES = tuple(_PROBES)
"""All capabilities, in the order doctor shows them."""


@cache
def probe(name: str) -> Capability:
    """Try one capability; KeyError if there is none of that name. Tried once a process."""
    attempt, hint = _PROBES[name]
    try:
        return Capability(name, True, attempt())
    except _MissingError as missing:
        return Capability(name, False, str(missing), hint)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return Capability(name, False, f"{error.strerror}{where}", hint)
    except PowercutError as error:
        return Capability(name, False, str(error), hint)


def probe_all() -> tuple[Capability, ...]:
    """Every capability, in the order of `NAMES`."""
    return tuple(probe(name) for name in NAMES)


def missing(names: Iterable[str]) -> tuple[Capability, ...]:
    """Those of `names` that this machine lacks. `memcg` means version 1 or 2."""
    return tuple(found for found in map(_probe_either, names) if not found.ok)


def _probe_either(name: str) -> Capability:
    if name != "memcg":
        return probe(name)
    one, two = probe("memcg-v1"), probe("memcg-v2")
    if one.ok or two.ok:
        return one if one.ok else two
    return Capability("memcg", False, f"v1: {one.reason}; v2: {two.reason}", two.hint)


def require(*names: str) -> None:
    """MissingCapabilityError, with reasons and hints, unless this machine has all of `names`."""
    lacking = missing(names)
    if lacking:
        raise MissingCapabilityError(
            "missing here: " + "; ".join(f"{found.name} ({found.reason})" for found in lacking),
            hint="; ".join(f"{found.name}: {found.hint}" for found in lacking),
        )


FS_NEEDS = {"btrfs": ("btrfs", "mkfs.btrfs", "btrfs-check"), "xfs": ("xfs", "mkfs.xfs", "xfs_repair")}
RECORDER_NEEDS = {"fuse": ("fuse", "pyfuse3"), "dm": ("dm-log-writes",)}
"""Capabilities by file system, and by recorder."""


def fuzz_blockers(capabilities: Iterable[Capability]) -> tuple[str, ...]:
    """What keeps `fuzz` from running: root, loop, kmsg, one recorder and one file system are needed."""
    has = {found.name for found in capabilities if found.ok}
    blockers = [name for name in ("root", "loop", "kmsg") if name not in has]
    for what, choices in (("recorder", RECORDER_NEEDS), ("file system", FS_NEEDS)):
        if not any(has.issuperset(needs) for needs in choices.values()):
            ways = " or ".join("+".join(needs) for needs in choices.values())
            blockers.append(f"a {what} ({ways})")
    return tuple(blockers)


@contextmanager
def _opened(path: str | Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
