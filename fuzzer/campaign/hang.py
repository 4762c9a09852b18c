"""Hangs as findings: what ran, and where in the kernel it stands."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path

from fuzzer.campaign.examiner import Forbidden
from fuzzer.campaign.execute import Execution
from fuzzer.campaign.finding import Finding, Origin, save_finding
from fuzzer.errors import HangError
from fuzzer.state.history import History
from fuzzer.state.recovery import Recovery
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format as format_workload
from fuzzer.writelog.image import Image
from fuzzer.writelog.joined import RunLog
from oracles import Judgement, Violation

_SOURCE = "no system call of a workload may block for ever on a healthy device"


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
