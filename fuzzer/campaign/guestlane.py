"""A lane in a guest, the host's side: boots it, passes on what it reports, and says how it was lost.

The campaign's directory is the one the guest can write to, so findings arrive complete, and what it is
at is on this machine's disk before it runs (`queue.py`). A guest that panics, falls silent or is gone is
a finding candidate with that workload and its console; the coordinator starts a fresh one.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from fuzzer.campaign.examiner import Forbidden, Place
from fuzzer.campaign.execute import Execution
from fuzzer.campaign.finding import Finding, Origin, make_finding, save_finding
from fuzzer.campaign.inguest import save_task
from fuzzer.campaign.queue import Queue
from fuzzer.campaign.worker import STUCK, FuzzOptions
from fuzzer.errors import LostWorkerError, PowercutError
from fuzzer.kernel.children import CRASHED, Send, stop_signals
from fuzzer.state.history import History
from fuzzer.state.recovery import Recovery
from fuzzer.target.machine import PANICS, Guest, Pending, open_guest
from fuzzer.target.targets import Target
from fuzzer.triage.bucket import label
from fuzzer.triage.facts import Crash, Evidence
from fuzzer.triage.known import load_known
from fuzzer.workload.text import parse
from fuzzer.writelog.crash import LIVE
from fuzzer.writelog.image import Image
from fuzzer.writelog.joined import RunLog
from oracles import Judgement, Violation
from oracles.kernel_log import title
from oracles.races import build_versions

PROGRAM = "fuzzer.campaign.inguest"
LOST = 72
"""Exit status of a worker whose guest was no good, for whatever reason."""

_POLL_S = 0.05
_RELEASE = re.compile(r"\bLinux version (\S+)")
_SOURCE = "no workload, and no crash state of a healthy device, may take the kernel down"


def work_in_guest(options: FuzzOptions, target: Target, number: int, first: int, send: Send) -> int:
    """As `worker.work`, in a guest of its own: reports in lines, returns the status of that worker.

    STUCK if the guest was lost or hangs, of which a finding was reported; LOST if it did not come as far
    as a workload.
    """
    queue = Queue(options.directory / "queue", number)
    queue.clear()
    task = queue.directory / f"task-{number}"
    save_task(task, options)
    try:
        with open_guest(target.plan(), exchange=options.directory, boot_s=target.boot_s) as guest:
            left_s = max(1.0, options.deadline - time.monotonic())
            words = (str(task.resolve()), str(number), str(first), f"{left_s:.1f}")
            argv, limit_s = (sys.executable, "-m", PROGRAM, *words), left_s + target.silent_s
            pending = guest.start(argv, timeout_s=limit_s, switches=target.switches)
            status = _attend(guest, pending, queue, options, target.silent_s, send)
    except LostWorkerError as error:
        sys.stderr.write(f"{error}\n{error.hint}\n")
        return LOST
    finally:
        task.unlink()
    if status != STUCK:
        queue.clear()
    return status


def _attend(
    guest: Guest, pending: Pending, queue: Queue, options: FuzzOptions, silent_s: float, send: Send
) -> int:
    """Pass on what the guest reports until it is done, lost or no longer wanted."""
    try:
        with stop_signals() as asked_to_stop:
            for line in _lines(guest, pending, silent_s):
                if line:
                    send(line)
                if asked_to_stop():
                    return 0  # It is killed; what it found is here.
            return _status(pending)
    except LostWorkerError as error:
        if not queue.path("workload").exists():
            raise
        finding, descends = _save_lost(queue, error, guest.console(), options)
        event = {"event": "finding", "canary": "", "descends": descends, **finding.summary()}
        send(json.dumps(event))
        return STUCK


def _lines(guest: Guest, pending: Pending, silent_s: float) -> Iterator[str]:
    """What the guest reports, and "" whenever it has nothing to report for a moment."""
    heard = time.monotonic()
    done = False
    while not done:
        done = pending.is_done()
        lines = list(pending.read_lines())
        if lines:
            heard = time.monotonic()
        elif time.monotonic() - heard > silent_s:
            raise guest.lost(f"reports nothing for {silent_s:.0f} s")
        yield from lines
        if not (lines or done):
            yield ""
            time.sleep(_POLL_S)


def _status(pending: Pending) -> int:
    """Exit status of the guest's program; what went wrong in it was our own fault, and is told."""
    ended = pending.result()
    sys.stderr.write(ended.stderr)
    return CRASHED if ended.status == 1 else ended.status


# ----------------------------------------------------------------------------------------- lost guests


def _save_lost(
    queue: Queue, error: LostWorkerError, console: str, options: FuzzOptions
) -> tuple[Finding, str]:
    """Save a finding for a guest that is lost: what it was at, and the end of its console. With it comes
    what the workload descends from."""
    execution, place = _load(queue)
    lines = tuple(console.splitlines())
    violation = _violation(str(error), lines)
    without = options.target.bugs if options.target else ""
    evidence = Evidence(execution.workload.fs, build_versions(History(())), None, without)
    named = label([violation], evidence, Crash(LIVE, kernel_log=lines), load_known())
    forbidden = Forbidden(
        place.state,
        Judgement((violation,), 1, 0),
        Recovery(kernel_log=lines if place.state else ()),
        bucket=named.bucket,
        known=named.known,
        facts=named.facts,
        recoveries=place.recoveries,
    )
    execution = replace(execution, live=Recovery(kernel_log=() if place.state else lines))
    finding = make_finding(execution, forbidden, _origin(options, console))
    save_finding(options.directory / "findings", finding, execution, forbidden)
    return finding, execution.workload.descends


def _violation(how: str, console: tuple[str, ...]) -> Violation:
    """A panic goes by what the kernel said first; its bucket is that of the same words in a kernel log."""
    panic = next((at for at, line in enumerate(console) if any(word in line for word in PANICS)), None)
    return Violation(
        rule="guest" if panic is None else "kernel-log",
        kind="lost" if panic is None else title(console[panic:]),
        subject="the kernel",
        promised="it runs every workload and recovers every crash state",
        found=how,
        source=_SOURCE,
    )


def _load(queue: Queue) -> tuple[Execution, Place]:
    """What the guest was at; only the workload if it was still writing down the rest."""
    try:
        return queue.load()
    except (OSError, ValueError, PowercutError):
        path = queue.path("workload")
        workload = parse(path.read_text(), str(path))
        return Execution(workload, History(()), Image(0), RunLog((), 0, ()), Recovery()), Place(None, LIVE)


def _origin(options: FuzzOptions, console: str) -> Origin:
    release = _RELEASE.search(console)
    kernel = release[1] if release else ""
    points = str(options.plan) if options.plan else options.origin.points
    return replace(options.origin, kernel=kernel, points=points, canary="")
