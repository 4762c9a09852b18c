"""The judge against a model file system: silent where it crashes legally, loud where it has a bug."""

from __future__ import annotations

import os
import random

import pytest
from oracle_bugs import BUGS, Bug
from oracle_runner import Runner, random_append_or_whiteout

LEGAL_HISTORIES = int(os.environ.get("POWERCUT_HISTORIES", "700"))
"""Per file system, a third with forty ops or more. After a change of the judge set the environment
variable to 100000: bugs of judge and model alike have shown up as late as that."""

BUG_HISTORIES = 1500
"""A planted bug must be found within so many histories."""

_SLICES = 10
_PLANTED = [(bug, on) for bug in BUGS for on in bug.fs]


@pytest.mark.parametrize("part", range(_SLICES))
def test_legal_crashes_are_allowed(fs: str, part: int) -> None:
    for seed in range(part, LEGAL_HISTORIES, _SLICES):
        runner = Runner(seed, fs, actors=2 + seed % 3, ops=6 + seed % 17)
        runner.run()
        for snapshot in (*runner.snapshots, runner.live_snapshot()):
            violations = runner.judge(snapshot).violations
            assert not violations, (seed, fs, snapshot.cut, violations[0])


def test_legal_crashes_are_allowed_with_appends_and_whiteouts(fs: str) -> None:
    for seed in range(LEGAL_HISTORIES // 5):
        runner = Runner(seed, fs, 2 + seed % 3, ops=6 + seed % 17, choose=random_append_or_whiteout)
        runner.run()
        for snapshot in (*runner.snapshots, runner.live_snapshot()):
            violations = runner.judge(snapshot).violations
            assert not violations, (seed, fs, snapshot.cut, violations[0])


@pytest.mark.parametrize(("bug", "on"), _PLANTED, ids=[f"{bug}, {on}" for bug, on in _PLANTED])
def test_planted_bug_is_found(bug: Bug, on: str) -> None:
    seen: set[tuple[str, str]] = set()
    for seed in range(BUG_HISTORIES):
        seen |= _violations(bug, Runner(seed, on, choose=bug.choose), random.Random(seed))
        if seen & bug.expected:
            return
    pytest.fail(f"{bug.name} on {on}: expected one of {sorted(bug.expected)}, saw {sorted(seen)}")


def _violations(bug: Bug, runner: Runner, rng: random.Random) -> set[tuple[str, str]]:
    if bug.in_disk:
        bug.in_disk(runner)
    runner.run()
    seen: set[tuple[str, str]] = set()
    for snapshot in runner.snapshots[-1:]:
        broken = bug.plant(runner, snapshot, rng)
        if broken:
            seen |= {(v.rule, v.kind) for v in runner.judge(broken, bug.in_tree).violations}
    return seen
