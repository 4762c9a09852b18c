"""Hangs as findings: what ran, and where in the kernel it stands."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

from fuzzer.campaign.examiner import Forbidden
from fuzzer.campaign.execute import Execution
from fuzzer.campaign.finding import Finding, Origin, make_finding, save_finding
from fuzzer.campaign.queue import Queue
from fuzzer.errors import HangError
from fuzzer.state.history import History
from fuzzer.state.recovery import Recovery
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format as format_workload
from fuzzer.writelog.image import Image
from fuzzer.writelog.joined import RunLog
from oracles import Judgement, Violation

_SOURCE = "no system call of a workload may block for ever on a healthy device"


def save_blocked(queue: Queue, step: str, stacks: dict[str, str], directory: Path, origin: Origin) -> Finding:
    """Save a finding for a worker that stands in the kernel: in mount(2), umount(2), a look at the tree.

    `step` is the phase it is in, `stacks` are its kernel stack and those of all that is blocked too.
    """
    execution, place = queue.load()
    state = place.state
    own = next(iter(stacks.values()), "")
    kind, where = f"{_call(own, step)}-hang", _where(own)
    violation = Violation(
        rule="hang",
        kind=kind,
        subject="the file system",
        promised="it mounts, unmounts and answers",
        found=f"a process is in {_call(own, step)} and does not come back, at {where}",
        source=_SOURCE,
    )
    lines = tuple(f"{name}: {line}" for name, stack in stacks.items() for line in stack.splitlines())
    forbidden = Forbidden(
        state,
        Judgement((violation,), 1, 0),
        Recovery(kernel_log=lines if state else ()),
        bucket=f"{execution.workload.fs}/hang/{kind}",
        recoveries=place.recoveries,
    )
    execution = replace(execution, live=Recovery(kernel_log=() if state else lines))
    finding = make_finding(execution, forbidden, origin)
    save_finding(directory, finding, execution, forbidden)
    return finding


def _call(stack: str, step: str) -> str:
    """The system call it is in, if it is one of these, else the phase.

    umount(2) does its work on the way back to user space (cleanup_mnt in fs/namespace.c).
    """
    if "sys_umount" in stack or " cleanup_mnt+" in stack:
        return "umount"
    return "mount" if "sys_mount" in stack else step.replace(" ", "-")


def _where(stack: str) -> str:
    """The innermost function of a kernel stack as /proc/PID/stack shows it."""
    line = next((line for line in stack.splitlines() if "[<0>]" in line), "unknown")
    return line.strip().removeprefix("[<0>] ").split("+")[0]


def save_hang(directory: Path, workload: Workload, error: HangError, origin: Origin) -> Finding:
    """Save a finding for actors that do not die; their kernel stacks become its kmsg.txt."""
    stacks = [f"{name}: {line}" for name, stack in error.stacks.items() for line in stack.splitlines()]
    where = next((line.split(": ", 1)[1].strip() for line in stacks if "[<0>]" in line), "unknown")
    violation = Violation(
        rule="hang",
        kind="actor-stuck",
        subject=", ".join(sorted(error.stacks)) or "an actor",
        promised="every system call returns",
        found=f"killed and still in the kernel, at {where.removeprefix('[<0>] ')}",
        source=_SOURCE,
    )
    bucket = f"{workload.fs}/hang/{where.removeprefix('[<0>] ').split('+')[0]}"
    finding = Finding(
        id=f"{workload.fs}-hang-{hashlib.sha256(format_workload(workload).encode()).hexdigest()[:8]}",
        bucket=bucket,
        fs=workload.fs,
        oracle="hang",
        title=f"{violation.subject}: {violation.found}",
        ops=sum(1 for _ in workload.iter_ops()),
        violations=(violation.to_json(),),
        **asdict(origin),
    )
    history = error.history if isinstance(error.history, History) else History(())
    live = Recovery(kernel_log=tuple(stacks))
    execution = Execution(workload, history, Image(0), RunLog((), 0, ()), live)
    forbidden = Forbidden(None, Judgement((violation,), 1, 0), live, bucket=bucket)
    save_finding(directory, finding, execution, forbidden)
    return finding
