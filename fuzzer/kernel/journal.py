"""The journal of a run: who owns it and what it holds, kept where a killed run cannot take it along.

One file of JSON lines a run, `/run/powercut/<run id>.jsonl`: a head that names the owner, then one
line for each resource taken or given back. It exists before the first resource does.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fuzzer.kernel.procfs import mount_namespaces, start_ticks

RUN_ROOT = Path("/run/powercut")
_HANG = "hang"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_HEADLESS_S = 60.0
"""Age at which a journal without a head belongs to a run that died while it wrote the head."""


@dataclass(frozen=True, slots=True)
class Journal:
    """An open journal; only its owner writes."""

    run_id: str
    _fd: int
    _held: set[tuple[str, int | str]] = field(default_factory=set)

    def note(self, kind: str, value: int | str) -> None:
        """Record that the run now holds a resource. Call it right after taking the resource."""
        self._append({"take": kind, "value": value})
        self._held.add((kind, value))

    def forget(self, kind: str, value: int | str) -> None:
        """Record that a resource is given back. Call it right *before*: a name given back may be
        someone else's a moment later, and a sweep must not take it for ours."""
        self._append({"give": kind, "value": value})
        self._held.discard((kind, value))

    @property
    def is_clean(self) -> bool:
        """Everything was given back. Processes need not be: one that has ended holds nothing."""
        held = {kind for kind, _ in self._held} - {"process"}
        return not held and not (RUN_ROOT / self.run_id).exists()

    def _append(self, line: dict[str, int | str]) -> None:
        os.write(self._fd, json.dumps(line).encode() + b"\n")


@contextmanager
def open_journal(run_id: str) -> Iterator[Journal]:
    """Create the run's journal; at the end remove it, unless something of the run is left."""
    RUN_ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = journal_path(run_id)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        journal = Journal(run_id, fd)
        journal._append({"run": run_id, **_identity(os.getpid())})
        try:
            yield journal
        finally:
            if journal.is_clean:
                path.unlink()
    finally:
        os.close(fd)


def journal_path(run_id: str) -> Path:
    return RUN_ROOT / f"{run_id}.jsonl"


def _identity(pid: int) -> dict[str, int | str]:
    return {
        "boot": _BOOT_ID.read_text().strip(),
        "pid_namespace": str(Path("/proc/self/ns/pid").readlink()),
        "mount_namespace": str(Path("/proc/self/ns/mnt").readlink()),
        "pid": pid,
        "start_ticks": start_ticks(pid) or 0,
    }


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """A journal as a sweep reads it. `held` are the (kind, value) pairs taken and not given back."""

    run_id: str
    owner_pid: int
    alive: bool
    held: tuple[tuple[str, int | str], ...]

    @property
    def directory(self) -> Path:
        return RUN_ROOT / self.run_id

    def values(self, kind: str) -> tuple[int | str, ...]:
        return tuple(value for a_kind, value in self.held if a_kind == kind)

    @property
    def hangs(self) -> str:
        """What of it hangs in the kernel, if a sweep came to know that."""
        return "; ".join(map(str, self.values(_HANG)))


def note_hang(run_id: str, what: str) -> None:
    """Record in the journal of a dead run that it cannot be cleaned up, and why."""
    with journal_path(run_id).open("a") as file:
        file.write(json.dumps({"take": _HANG, "value": what}) + "\n")


def read_journals() -> Iterator[LeftBehind]:
    """All journals on this machine, of living and dead runs."""
    for path in sorted(RUN_ROOT.glob("*.jsonl")):
        try:
            text, age_s = path.read_text(), time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue
        yield parse_journal(path.stem, text, age_s)


def parse_journal(run_id: str, text: str, age_s: float) -> LeftBehind:
    """Read a journal's text. A torn last line is a resource that was never taken (see `note`)."""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    if not lines:
        return LeftBehind(run_id, 0, alive=age_s < _HEADLESS_S, held=())
    head, *entries = lines
    held: dict[tuple[str, int | str], None] = {}
    for entry in entries:
        if "take" in entry:
            held[entry["take"], entry["value"]] = None
        else:
            held.pop((entry["give"], entry["value"]), None)
    return LeftBehind(run_id, head["pid"], _is_alive(head), tuple(held))


def _is_alive(head: dict[str, int | str]) -> bool:
    mine = _identity(os.getpid())
    if head["boot"] != mine["boot"]:
        return False
    if head["pid_namespace"] != mine["pid_namespace"]:
        # A container that shares our /run: its pids say nothing here, so its things are left alone.
        return True
    theirs = head.get("mount_namespace")
    if theirs != mine["mount_namespace"] and theirs in mount_namespaces():
        # Its mounts are out of reach here and keep its devices busy: who lives there has to clean up.
        return True
    return start_ticks(int(head["pid"])) == head["start_ticks"]
