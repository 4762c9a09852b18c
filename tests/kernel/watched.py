"""Runs of a workload through the normal pipeline, with a look at the crash states it judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from fuzzer.campaign.examine import examine
from fuzzer.campaign.examiner import Examination, Examiner, Place
from fuzzer.campaign.execute import Execution, execute
from fuzzer.campaign.lane import Lane
from fuzzer.state.recovery import Recovery
from fuzzer.state.tree import Node, Tree
from fuzzer.workload.text import parse
from fuzzer.writelog.crash import LIVE
from fuzzer.writelog.dirtylog import needs_replay
from fuzzer.writelog.points import Plan, Points


@dataclass(frozen=True)
class Shown:
    """A crash state after the last op had returned: what it shows by path, and its inodes at the end of
    the workload by path."""

    tree: Tree
    made: dict[str, int]

    def at(self, path: str) -> Node | None:
        """What the path leads to; None: nothing."""
        return dict(self.tree.paths()).get(path)

    def has(self, path: str) -> bool:
        return self.at(path) is not None

    def size(self, path: str) -> int:
        node = self.at(path)
        return -1 if node is None else node.size

    def zeros(self, path: str, start: int, end: int) -> bool:
        """True if nothing is at [start, end) of the file: no words, or behind its end."""
        node = self.at(path)
        assert node is not None, path
        return all(run.op == 0 or run.end <= start or run.start >= end for run in node.runs)

    def entries(self) -> set[str]:
        """Every name as `path=what it was called at the end of the workload`."""
        called: dict[int, str] = {}
        for path, inode in self.made.items():
            called.setdefault(inode, path)
        return {f"{path}={called.get(n.inode, '?')}" for path, n in self.tree.paths() if path != "."}


@dataclass(frozen=True)
class Watched:
    """A run, its verdicts, and what it showed."""

    execution: Execution
    examination: Examination
    after: tuple[Shown, ...]
    replayed: int
    """How many crash states had a log to replay."""

    def errnos(self, *names: str) -> list[int]:
        return [event.errno for event in self.execution.history.events if event.op.name in names]


def watch(
    monkeypatch: pytest.MonkeyPatch, lane: Lane, text: str, fs: str, points: Points = Points.WRITE
) -> Watched:
    """Run a workload text (from its header's second line on) once, and judge every crash state."""
    seen: list[tuple[Place, Recovery]] = []
    judge_at = Examiner.judge_at

    def judged(examiner: Examiner, place: Place, recovery: Recovery) -> None:
        seen.append((place, recovery))
        judge_at(examiner, place, recovery)

    with monkeypatch.context() as patch:
        patch.setattr(Examiner, "judge_at", judged)
        execution = execute(lane, parse(f"powercut 1\nfs: {fs}\n{text}"))
        examination = examine(lane, execution, Plan((points,)))
    made = {path: node.inode for path, node in execution.live.tree.paths()} if execution.live.tree else {}
    last_ns = max(event.end_ns for event in execution.history.events)
    after = [r.tree for at, r in seen if at.cut != LIVE and at.cut.returned_before_ns > last_ns]
    assert after, "no crash state after the last op"
    shown = tuple(Shown(tree, made) for tree in after if tree is not None)
    replayed = sum(at.image is not None and bool(needs_replay(at.image, fs)) for at, _ in seen)
    return Watched(execution, examination, shown, replayed)


Sees = Callable[[Shown], bool]
