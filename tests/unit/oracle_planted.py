"""Bugs planted in the model, seen as a campaign sees them: a workload runs, crashes, is judged and filed.

The model needs no kernel, so what a campaign would find, file and minimize can be measured in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from dossiers import btrfs_super, make_log
from oracle_bugs import Bug
from oracle_disk import Btrfs
from oracle_runner import Runner, Snapshot

from fuzzer.triage.bucket import Label, label
from fuzzer.triage.facts import Crash, Evidence
from fuzzer.workload.model import Workload
from fuzzer.writelog.joined import RunLog
from fuzzer.writelog.model import Flag
from fuzzer.writelog.superblock import BTRFS_SUPER_OFFSET
from oracles import build_versions


class Planted(Runner):
    """A run with a bug in it. `broken` are its crashes, each with the bug's damage done."""

    def __init__(self, bug: Bug, fs: str, seed: int, workload: Workload | None = None) -> None:
        super().__init__(seed, fs, choose=bug.choose, workload=workload)
        self.bug = bug
        self.broken: list[Snapshot] = []
        self._damage = random.Random(seed)
        self._flushes: list[int] = []
        self._watch()
        if bug.in_disk:
            bug.in_disk(self)

    def _watch(self) -> None:
        """Remember when the disk is asked to flush. A bug planted later that leaves the flush out is not
        seen to."""
        flush = self.disk.flush

        def watched() -> None:
            self._flushes.append(self.now)
            flush()

        self.disk.flush = watched  # type: ignore[method-assign]

    def crash(self) -> Snapshot:
        snapshot = super().crash()
        broken = self.bug.plant(self, snapshot, self._damage)
        if broken:
            self.broken.append(broken)
        return snapshot

    def findings(self) -> Iterator[tuple[Label, bool]]:
        """What each crash that is forbidden is filed under; does it show what the bug's row waits for?"""
        for snapshot in self.broken:
            violations = self.judge(snapshot, self.bug.in_tree).violations
            if violations:
                commits = tuple(self.disk.commits) if isinstance(self.disk, Btrfs) else None
                evidence = Evidence(self.fs, build_versions(self.history(), commits), self._log())
                shown = {(violation.rule, violation.kind) for violation in violations}
                found = label(violations, evidence, Crash(snapshot.cut, True), ())
                yield found, bool(shown & self.bug.expected)

    def _log(self) -> RunLog:
        """The log of a device that saw a commit at each flush."""
        head = btrfs_super(1, 0)
        commits = (
            ((Flag.FLUSH, 0, b"", t, t), (Flag.FUA, BTRFS_SUPER_OFFSET, head, t, t)) for t in self._flushes
        )
        return make_log((Flag.FLUSH, 0, b"", 1, 1), *(piece for pair in commits for piece in pair))


def run_planted(bug: Bug, fs: str, seed: int, workload: Workload | None = None) -> Planted:
    """Run the workload (or one made from the seed) as the seed schedules it; crash it at its end as well."""
    run = Planted(bug, fs, seed, workload)
    run.run()
    run.crash()
    return run
