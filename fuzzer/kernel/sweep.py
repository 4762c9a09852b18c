"""The sweep: removes what killed runs left behind, and nothing else.

A run is dead when its journal's owner is. Only what carries the dead run's id is touched (see
`workarea`), and loop numbers its journal says it still holds.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fuzzer.errors import InfrastructureError, LeakError, PowercutError
from fuzzer.kernel import libc, procfs
from fuzzer.kernel.journal import RUN_ROOT, LeftBehind, journal_path, note_hang, read_journals
from fuzzer.kernel.knobs import set_knobs_back
from fuzzer.kernel.loop import clear_loop, remove_minor
from fuzzer.kernel.process import run, wait_until
from fuzzer.kernel.workarea import RUN_VARIABLE, mark, process_name

_STEP_S = 10.0
"""Deadline of each step of the clean-up of one run."""

_CALLS = 6
"""Functions named of a process that hangs, the innermost first."""

_FUSECTL = Path("/sys/fs/fuse/connections")


def sweep() -> list[str]:
    """Clean up after every dead run; says what was removed.

    A run with a process that hangs in the kernel keeps what it holds until the machine restarts. That is
    said once; it is no reason not to work beside it. One sweep at a time on a machine; the others wait
    for it (60 s). LeakError at the end if something else of a dead run could not be removed.
    """
    if not RUN_ROOT.is_dir():
        return []
    removed: list[str] = []
    stuck: list[str] = []
    with _only_one():
        if set_knobs_back():
            removed.append("values of /proc/sys/vm")
        for dead in read_journals():
            if dead.alive or (dead.hangs and any(_hanging(dead))):
                continue
            try:
                removed += _sweep_run(dead)
            except (PowercutError, OSError) as error:
                hung = "; ".join(_hanging(dead))
                if hung:
                    removed += _leave(dead, hung)
                else:
                    stuck.append(f"run {dead.run_id}: {error} {getattr(error, 'hint', '')}".rstrip())
    if stuck:
        raise LeakError(
            f"a killed run left what cannot be removed: {'; '.join(stuck)}",
            hint="if a file system hangs in the kernel, only a restart of the machine frees it",
        )
    return removed


@contextmanager
def _only_one() -> Iterator[None]:
    fd = os.open(RUN_ROOT / "sweep.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def locked() -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    try:
        if not wait_until(locked, 60.0):
            raise InfrastructureError("another sweep does not end")
        yield
    finally:
        os.close(fd)


def _sweep_run(dead: LeftBehind) -> list[str]:
    """Every step removes what the next ones would trip over: users first, then layers top down."""
    removed: list[str] = []
    steps: tuple[Callable[[LeftBehind], Iterable[str]], ...] = (
        _kill_processes,
        _abort_fuse,
        _thaw,
        _unmount_nested,
        _remove_dm,
        _detach_loops,
        _remove_minors,
        # Again: FUSE mounts were busy as long as a loop device had its backing file there.
        _unmount_nested,
        _remove_cgroups,
        _remove_area,
    )
    for step in steps:
        removed += step(dead)
    return [f"run {dead.run_id}: {what}" for what in removed]


def _processes(dead: LeftBehind) -> set[int]:
    """Who belongs to the run, as far as it can be told."""
    name = process_name(dead.run_id)
    victims = {
        pid
        for pid in procfs.processes()
        if procfs.comm(pid) == name or procfs.has_variable(pid, RUN_VARIABLE, dead.run_id)
    }
    for entry in dead.values("process"):
        pid, ticks = str(entry).split()
        if str(procfs.start_ticks(int(pid))) == ticks:
            victims.add(int(pid))
    return victims - {os.getpid()}


def _hanging(dead: LeftBehind) -> Iterator[str]:
    """The run's processes that were killed and do not die, and where in the kernel they are."""
    for pid in sorted(_processes(dead)):
        if procfs.is_blocked(pid):
            calls = [line.split()[-1].partition("+")[0] for line in procfs.kernel_stack(pid).splitlines()]
            yield f"process {pid} in {' < '.join(calls[:_CALLS])}"


def _kill_processes(dead: LeftBehind) -> Iterator[str]:
    yield from _kill(_processes(dead))


def _kill(victims: set[int]) -> Iterator[str]:
    for pid in sorted(victims):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            yield f"process {pid}"
    # Not fatal here: one that hangs in a FUSE request dies once the connection is aborted, and one
    # that never dies shows up as the holder of what it keeps busy.
    wait_until(lambda: all(procfs.start_ticks(pid) is None for pid in victims), 1.0)


def _abort_fuse(dead: LeftBehind) -> Iterator[str]:
    for path in abort_fuse(dead.directory):
        yield f"FUSE connection of {path}"


def _leave(dead: LeftBehind, hung: str) -> Iterator[str]:
    """Note that a run cannot be cleaned up, and take it out of the way of others as far as possible.

    mkfs.btrfs asks for the file behind each loop device of the machine, and fails if it is on a FUSE
    mount without a server (test_dev_for_mkfs, mkfs/common.c); if it is gone, all is well.
    """
    for mount in _fuse_mounts(dead.directory):
        run(["umount", "--lazy", "--no-canonicalize", str(mount.path)], timeout_s=_STEP_S, check=False)
    note_hang(dead.run_id, hung)
    yield f"run {dead.run_id}: hangs until this machine restarts: {hung}"


def _fuse_mounts(directory: Path) -> list[procfs.Mount]:
    return [mount for mount in procfs.mounts_under(directory) if mount.fs.split(".")[0] == "fuse"]


def abort_fuse(directory: Path) -> list[Path]:
    """Fail all requests of the FUSE mounts below `directory`: nothing waits for a server that is gone.

    Returns the mount points.
    """
    connections = _fuse_mounts(directory)
    aborted = []
    if connections and not any(_FUSECTL.iterdir()):
        libc.mount("none", str(_FUSECTL), "fusectl")
    for mount in connections:
        # The connection's number is the mount's device number (fuse_ctl_add_conn, fs/fuse/control.c).
        with suppress(FileNotFoundError):
            (_FUSECTL / str(mount.minor) / "abort").write_text("1")
            aborted.append(mount.path)
    return aborted


def _thaw(dead: LeftBehind) -> Iterator[str]:
    """Let go of file systems that an actor was freezing, or had frozen, when it was killed.

    Else every sync(2) on the machine waits for ever: xfs writes back all metadata before it is frozen, and
    retries what fails as long as it is not shut down (xfs_ail_push_all_sync, xfs_buf_ioend_handle_error).
    One descriptor for both, as nothing can be opened after the shutdown.
    """
    for mount in procfs.mounts_under(dead.directory):
        if mount.fs == "xfs":
            argv = ["xfs_io", "-x", "-r", "-c", "shutdown", "-c", "thaw", str(mount.path)]
        elif mount.fs == "btrfs":
            argv = ["fsfreeze", "--unfreeze", str(mount.path)]
        else:
            continue
        if run(argv, timeout_s=_STEP_S, check=False).status == 0:
            yield f"freeze of {mount.path}"


def _unmount_nested(dead: LeftBehind) -> Iterator[str]:
    for mount in procfs.mounts_under(dead.directory):
        waits_for_loop = mount.fs.split(".")[0] == "fuse" and _backs_a_loop(mount.path)
        if mount.path != dead.directory and not waits_for_loop:
            yield from _unmount(mount.path)


def _unmount(path: Path) -> Iterator[str]:
    """Unmount through umount(8): umount(2) on a hung file system would never let us go again."""

    def gone() -> bool:
        argv = ["umount", "--no-canonicalize", "--internal-only", str(path)]
        return run(argv, timeout_s=_STEP_S, check=False).status == 0 or not _is_mounted(path)

    if not wait_until(gone, _STEP_S):
        raise LeakError(f"{path} is still mounted", hint=procfs.who_holds(str(path)))
    yield f"mount {path}"


def _is_mounted(path: Path) -> bool:
    return any(mount.path == path for mount in procfs.mounts())


def _backs_a_loop(directory: Path) -> bool:
    return any(Path(file).is_relative_to(directory) for file in procfs.loop_backing_files().values())


def _remove_dm(dead: LeftBehind) -> Iterator[str]:
    ours = [name for name in procfs.dm_names() if name.startswith(mark(dead.run_id) + "-")]
    # A device may sit on another one of ours: whatever is still in use is tried again.
    for _ in range(len(ours)):
        for name in list(ours):
            if run(["dmsetup", "remove", name], timeout_s=_STEP_S, check=False).status == 0:
                ours.remove(name)
                yield f"device {name}"
    if ours:
        raise LeakError(f"dmsetup cannot remove {', '.join(ours)}")


def _detach_loops(dead: LeftBehind) -> Iterator[str]:
    for number, backing in procfs.loop_backing_files().items():
        if not Path(backing).is_relative_to(dead.directory):
            continue
        if not clear_loop(number, _STEP_S):
            raise LeakError(f"loop{number} cannot be detached", hint=procfs.who_holds(f"/dev/loop{number}"))
        yield f"loop{number} of {backing}"


def _remove_minors(dead: LeftBehind) -> Iterator[str]:
    for number in map(int, dead.values("loop")):
        # `losetup -f` hands out any idle device, so a stranger may be using the number by now.
        if number in procfs.loop_backing_files() or not Path(f"/sys/block/loop{number}").exists():
            continue
        if not remove_minor(number, _STEP_S):
            raise LeakError(f"loop{number} cannot be removed", hint=procfs.who_holds(f"/dev/loop{number}"))
        yield f"loop number {number}"


def _remove_cgroups(dead: LeftBehind) -> Iterator[str]:
    roots = {mount.path for mount in procfs.mounts() if mount.fs in ("cgroup", "cgroup2")}
    for root in sorted(roots):
        for top in root.glob(f"{mark(dead.run_id)}*"):
            for directory, _, _ in os.walk(top, topdown=False):
                yield from _remove_cgroup(Path(directory))


def _remove_cgroup(group: Path) -> Iterator[str]:
    def removed() -> bool:
        try:
            group.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False  # EBUSY: its last process is still on its way out
        return True

    with suppress(FileNotFoundError):
        yield from _kill({int(pid) for pid in (group / "cgroup.procs").read_text().split()})
        if not wait_until(removed, _STEP_S):
            raise LeakError(f"cgroup {group} cannot be removed")
        yield f"cgroup {group}"


def _remove_area(dead: LeftBehind) -> Iterator[str]:
    if _is_mounted(dead.directory):
        yield from _unmount(dead.directory)
    if dead.directory.is_dir():
        dead.directory.rmdir()
    journal_path(dead.run_id).unlink()
    yield "journal"
