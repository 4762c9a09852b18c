"""A finding for people: what was promised, what came back, and what the sync call did on the device."""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.campaign.finding import Saved
from fuzzer.state.history import Event, History
from fuzzer.triage.known import describe_known
from fuzzer.workload.text import format as format_workload
from fuzzer.workload.text import format_op
from fuzzer.writelog.joined import RunLog
from fuzzer.writelog.recipe import say_state
from oracles.kernel_log import is_alarm

_MINIMIZED = "minimized.workload"
_MAX_KERNEL_LINES = 12
_NEIGHBOURS = 6
"""Ops shown around the sync call."""


def describe(saved: Saved, log: RunLog | None) -> Iterator[str]:
    """Lines of `triage show`."""
    finding = saved.finding
    k, n = finding.reproduced
    yield f"{finding.id}  {finding.standing}  seen {k} of {n} runs  kernel {finding.kernel}"
    yield f"bucket {finding.bucket}" + (f"  (planted: {finding.canary})" if finding.canary else "")
    if saved.workload.descends:
        yield f"descends from {saved.workload.descends}"
    if finding.known:
        yield describe_known(finding.known)
    if finding.reason:
        yield f"{finding.status}: {finding.reason}"
    for violation in finding.violations:
        yield ""
        yield f"rule {violation['rule']}: {violation['kind']} on {violation['subject']}"
        yield f"  promised: {violation['promised']}"
        yield f"  found:    {violation['found']}"
        yield f"  source:   {violation['source']}"
        event = saved.history.by_id.get(int(violation["sync"]))
        if event is not None:
            yield from _describe_sync(event, saved.history, log)
    yield ""
    yield _describe_state(saved)
    yield ""
    yield from _describe_workload(saved)
    if finding.facts:
        yield ""
        yield "facts " + " ".join(f"{name}={value}" for name, value in sorted(finding.facts.items()))
    yield from _describe_kernel_log(saved.kernel_lines())


def _describe_workload(saved: Saved) -> Iterator[str]:
    if (saved.directory / _MINIMIZED).exists():
        yield f"minimized from {saved.finding.ops} ops:"
    yield from workload_lines(saved)


def workload_lines(saved: Saved) -> list[str]:
    """The minimized one, if there is one: the other is in the finding's directory."""
    minimized = saved.directory / _MINIMIZED
    return (minimized.read_text() if minimized.exists() else format_workload(saved.workload)).splitlines()


def alarm_lines(lines: list[str]) -> list[str]:
    """From the first alarm on; file systems log every mount, which helps nobody."""
    return lines[next((number for number, line in enumerate(lines) if is_alarm(line)), len(lines)) :]


def _describe_kernel_log(lines: list[str]) -> Iterator[str]:
    alarm = alarm_lines(lines)
    if alarm:
        yield ""
        yield "kernel log:"
        yield from (f"  {line}" for line in alarm[:_MAX_KERNEL_LINES])
    if len(alarm) > _MAX_KERNEL_LINES:
        yield f"  … {len(alarm) - _MAX_KERNEL_LINES} more lines in kmsg.txt"


def _describe_state(saved: Saved) -> str:
    state = saved.state
    if state is None:
        return f"seen on the live mount, {saved.view.words}, without a crash"
    return f"{say_state(state)} ({saved.finding.points} points)"


def _describe_sync(sync: Event, history: History, log: RunLog | None) -> Iterator[str]:
    """The ops around the sync call that made the promise, in order of their start."""
    yield "  around the sync call (us since it began; entries it had on the device):"
    events = sorted(history.events, key=lambda e: e.begin_ns)
    here = next(i for i, event in enumerate(events) if event.id == sync.id)
    for event in events[max(0, here - _NEIGHBOURS) : here + _NEIGHBOURS + 1]:
        mark = ">" if event.id == sync.id else " "
        begin = (event.begin_ns - sync.begin_ns) / 1000
        end = f"{(event.end_ns - sync.begin_ns) / 1000:.0f}" if event.returned else "never"
        yield f"  {mark} [{begin:8.0f} .. {end:>8}] actor {event.actor}: {format_op(event.op)}"
    if log is not None and sync.returned:
        yield f"    during the call the device saw {_seen_during(sync, log)}"


def _seen_during(sync: Event, log: RunLog) -> str:
    entries = [
        e for e in log.entries if e.done_ns and sync.begin_ns <= e.arrived_ns and e.done_ns <= sync.end_ns
    ]
    if not any(e.done_ns for e in log.entries):
        return "an unknown number of requests (this recorder has no times)"
    writes = sum(1 for e in entries if e.is_write)
    return f"{writes} writes and {sum(1 for e in entries if e.is_flush)} flushes"
