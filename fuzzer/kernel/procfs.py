"""What /proc and /sys say about processes, mounts and loop devices. Reads only.

Nothing here calls stat(2) on a mount: on a FUSE mount whose server hangs that call never returns.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_OCTAL = re.compile(r"\\([0-7]{3})")
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo (proc_pid_mountinfo(5)). `minor` is the device minor: for FUSE also the
    number of its connection in fusectl."""

    path: Path
    fs: str
    source: str
    minor: int
    super_options: str


def mounts(pid: int | str = "self") -> tuple[Mount, ...]:
    """All mounts of the process's mount namespace, in mount order."""
    return parse_mountinfo((_PROC / str(pid) / "mountinfo").read_text(errors="surrogateescape"))


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Parse the text of /proc/PID/mountinfo."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        device, path = left.split(" ")[2], left.split(" ")[4]
        fs, source, options = right.split(" ", 2)
        minor = int(device.partition(":")[2])
        found.append(Mount(Path(_unescape(path)), fs, _unescape(source), minor, options))
    return tuple(found)


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def mounts_under(directory: Path) -> tuple[Mount, ...]:
    """Mounts at or below `directory`, in the order in which they can be unmounted."""
    below = [mount for mount in mounts() if mount.path.is_relative_to(directory)]
    # Deepest first; of two mounts stacked on one path the later one is on top.
    order = sorted(range(len(below)), key=lambda index: (-len(below[index].path.parts), -index))
    return tuple(below[index] for index in order)


def processes() -> Iterator[int]:
    """Process ids of everything visible, ourselves included."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def start_ticks(pid: int) -> int | None:
    """Start time in clock ticks since boot; None if there is no such living process.

    With the pid it names a process for good: wall-clock changes do not touch it (proc_pid_stat(5)).
    """
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except _GONE:
        return None
    # The command name may hold spaces and parentheses; everything after the last ")" is regular.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def comm(pid: int) -> str:
    """The process's command name; empty if it is gone."""
    try:
        return (_PROC / str(pid) / "comm").read_text(errors="replace").rstrip("\n")
    except _GONE:
        return ""


def has_variable(pid: int, name: str, value: str) -> bool:
    """Whether a process was started with this environment variable (proc_pid_environ(5))."""
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{name}={value}".encode() in variables


def mount_namespaces() -> frozenset[str]:
    """The mount namespaces that visible processes live in (mount_namespaces(7)), as /proc names them."""
    found = set()
    for pid in processes():
        with suppress(OSError):
            found.add(str((_PROC / str(pid) / "ns/mnt").readlink()))
    return frozenset(found)


def is_blocked(pid: int) -> bool:
    """In uninterruptible sleep at this moment: signals, SIGKILL too, do not reach it."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except _GONE:
        return False
    return text[text.rindex(")") + 2] == "D"


def kernel_stack(pid: int) -> str:
    """Where in the kernel a process waits, as root sees it."""
    try:
        return (_PROC / str(pid) / "stack").read_text()
    except OSError as error:
        return f"(no stack: {error.strerror})\n"


@contextmanager
def _vanishing() -> Iterator[None]:
    """What is read in sysfs may go away meanwhile: the file is not there any more, or reading it is ENODEV
    (kernfs_get_active of fs/kernfs/file.c)."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EACCES):
            raise


def loop_backing_files() -> dict[int, str]:
    """Backing file by loop number, of all attached loop devices."""
    found = {}
    for directory in Path("/sys/block").glob("loop*"):
        with _vanishing():
            backing = (directory / "loop/backing_file").read_text(errors="surrogateescape")
            found[int(directory.name[4:])] = backing.rstrip("\n")
    return found


def dm_names() -> tuple[str, ...]:
    """Names of all device-mapper devices."""
    names = []
    for attribute in Path("/sys/block").glob("dm-*/dm/name"):
        with _vanishing():
            names.append(attribute.read_text().rstrip("\n"))
    return tuple(names)


def holders(*paths: str) -> tuple[str, ...]:
    """Who uses any of `paths` or something below: processes, mounts in any namespace, loop devices.

    One line of text each, for an error message.
    """
    found = []
    for number, backing in loop_backing_files().items():
        if _is_below(backing, paths):
            found.append(f"loop{number} (backing file {backing})")
    namespaces: set[str] = set()
    for pid in processes():
        with suppress(*_GONE):
            found += _held_by(pid, paths, namespaces)
    return tuple(found)


def who_holds(*paths: str) -> str:
    """`holders` as the hint of an error."""
    return "held by " + ("; ".join(holders(*paths)) or "nobody we can see")


def _held_by(pid: int, paths: tuple[str, ...], namespaces: set[str]) -> list[str]:
    directory = _PROC / str(pid)
    who = f"pid {pid} ({comm(pid)})"
    found = []
    for link in (directory / "cwd", directory / "root", directory / "exe", *(directory / "fd").iterdir()):
        with suppress(*_GONE):
            target = str(link.readlink())
            if _is_below(target, paths):
                found.append(f"{who} {link.name} {target}")
    namespace = str((directory / "ns/mnt").readlink())
    if namespace not in namespaces:
        namespaces.add(namespace)
        found += [
            f"mount {mount.path} ({mount.fs} of {mount.source}) seen by {who}"
            for mount in mounts(pid)
            if _is_below(mount.source, paths) or _is_below(str(mount.path), paths)
        ]
    return found


def _is_below(path: str, parents: tuple[str, ...]) -> bool:
    return any(path == parent or path.startswith(parent + "/") for parent in parents)
