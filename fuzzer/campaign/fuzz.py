"""Fuzz: the coordinator of a campaign. Forks workers, indexes what they find, keeps them alive.

It is the database's only writer while the campaign runs, and the only one that talks to people.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fuzzer.campaign.coverage import GROUPS
from fuzzer.campaign.finding import load_facts
from fuzzer.campaign.guestlane import work_in_guest
from fuzzer.campaign.index import Index
from fuzzer.campaign.monitor import Monitor
from fuzzer.campaign.outcomes import Outcomes
from fuzzer.campaign.queue import set_aside
from fuzzer.campaign.worker import STUCK, FuzzOptions, save_stuck, work
from fuzzer.errors import LeakError, LostWorkerError
from fuzzer.kernel.beacon import Beacon, Doing, fail_recorded_devices
from fuzzer.kernel.children import CRASHED, Child, Send, fork_child, stop_signals
from fuzzer.kernel.sweep import sweep
from oracles import Tally

_TICK_S = 0.5
_SILENT_S = 300.0
"""A worker that reports nothing for this long is stuck in the kernel or lost."""
_END_S = 90.0
"""How long workers may take to end their state and release everything."""
_MAX_LOSSES = 5
_KILL_S = 5.0
"""How long a worker that hangs may take to die; if it does not, it is left behind."""


@dataclass(slots=True)
class Totals:
    """What the session did so far."""

    started: float
    counts: dict[str, int] = field(default_factory=dict)
    findings: int = 0
    known: int = 0
    """How many of the findings are known bugs."""
    hits: Counter[str] = field(default_factory=Counter)
    """Sightings per bucket, those of which no finding was kept included."""
    descends: Counter[str] = field(default_factory=Counter)
    """Sightings per corpus entry that the workload was made from."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Workloads that could not be run, by what they need and is not there."""
    canary_seen: set[str] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)
    outcomes: Outcomes = field(default_factory=Counter)
    covered: dict[str, set[str]] = field(default_factory=lambda: {group: set() for group in GROUPS})

    def add(self, event: Mapping[str, object]) -> None:
        for name in ("workloads", "crash_states", "unique_states"):
            self.counts[name] = self.counts.get(name, 0) + int(str(event.get(name, 0)))
        self.tally.add_json(event)
        ops = event["ops"]
        assert isinstance(ops, Mapping)
        self.outcomes.update(ops)
        for group, seen in self.covered.items():
            members = event.get(group, ())
            assert isinstance(members, Iterable)
            seen.update(members)

    def credit(self, event: Mapping[str, object]) -> None:
        """A finding or another sighting: count it for its bucket, and for what its workload was made from."""
        self.hits[str(event["bucket"])] += 1
        self.descends.update(str(event.get("descends", "")).split())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


@dataclass(slots=True)
class _Campaign:
    options: FuzzOptions
    index: Index
    monitor: Monitor
    totals: Totals
    workers: dict[int, Child] = field(default_factory=dict)
    beacons: dict[int, Beacon] = field(default_factory=dict)
    heard: dict[int, float] = field(default_factory=dict)
    turns: dict[int, int] = field(default_factory=dict)
    """Per worker: the workload it is at. What is below all of them is done."""
    losses: int = 0
    hangs: int = 0

    def start(self, number: int) -> None:
        """Fork worker `number` where its sequence of workloads stands."""
        options, first, beacon = self.options, self.turns[number], Beacon()

        def run(send: Send) -> int:
            if options.target is not None:
                return work_in_guest(options, options.target, number, first, send)
            return work(options, number, first, send, beacon)

        self.beacons[number] = beacon
        self.workers[number] = fork_child(run)
        self.heard[number] = time.monotonic()

    def hear(self, number: int, line: str) -> None:
        """Take in one line of a worker."""
        event = json.loads(line)
        self.heard[number] = time.monotonic()
        if event["event"] in ("workload", "skipped"):
            self.turns[number] = event["index"] + self.options.jobs
        if event["event"] == "skipped":
            self.totals.skipped.update(event["missing"])
        elif event["event"] == "workload":
            covered = event.pop("coverage")  # many short texts, which nobody wants to read as they come
            self.totals.add(event | covered)
            self.index.add_counts(event | covered)
        elif event["event"] == "finding":
            self.index.put_finding(load_facts(self.index.findings_directory / event["id"]))
            event["hits"] = self.index.count_hit(event["bucket"])
            self.totals.findings += 1
            self.totals.known += bool(event["known"])
            self.totals.credit(event)
            if event["canary"]:
                self.totals.canary_seen.add(event["fs"])
        elif event["event"] == "minimized":
            self.index.put_finding(load_facts(self.index.findings_directory / event["id"]))
        elif event["event"] == "hit":
            self.totals.credit(event)
            event["hits"] = self.index.count_hit(event["bucket"])
        self.monitor.event(event)

    def left(self) -> str:
        """What is still to do, for people."""
        total = self.options.source.total
        if total is not None:
            return f"{max(0, total - min(self.turns.values()))} workloads"
        left_s = max(0, int(self.options.deadline - time.monotonic()))
        return f"{left_s // 60}:{left_s % 60:02}"

    def position(self) -> int:
        """Where the next session goes on. Of a source without end, what a slow worker left is not missed."""
        if self.options.source.total is None:
            return max(self.turns.values()) - self.options.jobs + 1
        return min(self.turns.values())

    def is_done(self) -> bool:
        """With a canary: it was seen on every file system asked for."""
        return bool(self.options.canary) and self.totals.canary_seen >= set(self.options.filesystems)


def fuzz(options: FuzzOptions, index: Index, monitor: Monitor, position: str = "next") -> Totals:
    """Run a campaign to its deadline, its source's end, Ctrl-C, or until its canary was found everywhere.

    `position` is the setting that keeps where it stands. LostWorkerError if workers keep dying.
    """
    died = set_aside(options.directory / "queue")
    if died is not None:
        monitor.say(f"an earlier session died; what it was at is in {died} (powercut replay takes its logs)")
    (options.directory / "queue").mkdir(parents=True, exist_ok=True)
    campaign = _Campaign(options, index, monitor, Totals(time.monotonic()))
    try:
        with stop_signals() as asked_to_stop:
            for number in range(options.jobs):
                campaign.turns[number] = options.first + number
                campaign.start(number)
            _run(campaign, asked_to_stop)
            _end(campaign)
    finally:
        for child in campaign.workers.values():
            child.kill(_END_S)
        index.change_setting(position, str(campaign.position()))
        _sweep(campaign)
    return campaign.totals


def _run(campaign: _Campaign, asked_to_stop: Callable[[], bool]) -> None:
    while campaign.workers:
        if asked_to_stop() or campaign.is_done():
            return
        _listen(campaign, _TICK_S)
        campaign.monitor.tick(campaign.totals, campaign.left())
        _watch(campaign)


def _listen(campaign: _Campaign, timeout_s: float) -> None:
    by_fd = {child.fd: number for number, child in campaign.workers.items()}
    for fd in select.select(list(by_fd), [], [], timeout_s)[0]:
        number = by_fd[fd]
        child = campaign.workers[number]
        for line in child.read_lines():
            campaign.hear(number, line)
        if child.status is not None:
            del campaign.workers[number]
            if child.status:
                _replace(campaign, number, child.status)


def _replace(campaign: _Campaign, number: int, status: int) -> None:
    """A worker died: clean up after it and go on with a new one."""
    campaign.losses += status != STUCK
    campaign.monitor.event({"event": "lost", "worker": number, "status": status})
    _sweep(campaign)
    if status == CRASHED or campaign.losses > _MAX_LOSSES:
        raise LostWorkerError(
            f"worker {number} ended with status {status}",
            hint=f"what it ran is in {campaign.options.directory}/queue/lane-{number}.workload",
        )
    # What it was at may be what ended it.
    campaign.turns[number] += campaign.options.jobs
    if time.monotonic() < campaign.options.deadline:
        campaign.start(number)


def _watch(campaign: _Campaign) -> None:
    """Give up workers that hang, and what has gone silent; the recorder dies with them."""
    silent_s = _SILENT_S
    if campaign.options.target is not None:
        # Who watches the guest says so first.
        silent_s += campaign.options.target.boot_s + campaign.options.target.silent_s
    for number, child in list(campaign.workers.items()):
        doing = campaign.beacons[number].overdue()
        if doing is not None:
            _give_up(campaign, number, child, doing)
        elif time.monotonic() - campaign.heard[number] > silent_s:
            child.kill(_END_S)
            del campaign.workers[number]
            _replace(campaign, number, -9)


def _give_up(campaign: _Campaign, number: int, child: Child, doing: Doing) -> None:
    """A worker is blocked in the kernel: that is a finding. Free it if that can be done, and go on."""
    finding = save_stuck(campaign.options, number, campaign.turns[number], child.pid, doing)
    campaign.hear(number, json.dumps({"event": "finding", "canary": "", **finding.summary()}))
    campaign.hangs += 1
    if not child.kill(_KILL_S):
        fail_recorded_devices(child.pid)
        if not child.kill(_KILL_S):
            os.close(child.fd)
    del campaign.workers[number]
    _replace(campaign, number, STUCK)


def _sweep(campaign: _Campaign) -> None:
    """Clean up after dead workers. What hung may stay until the machine restarts: that is told, no error."""
    try:
        sweep()
    except LeakError as error:
        if not campaign.hangs:
            raise
        campaign.monitor.say(f"{error}; {error.hint}")


def _end(campaign: _Campaign) -> None:
    for child in campaign.workers.values():
        child.terminate()
    deadline = time.monotonic() + _END_S
    while campaign.workers and time.monotonic() < deadline:
        _listen(campaign, _TICK_S)
