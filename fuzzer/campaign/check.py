"""Check: a program of the user says whether a recovered tree is what an application may find.

It runs on the mounted, throw-away crash state and may write there. Exit status 0: fine; 1: not, and what
it printed says why; anything else is no verdict but an error, since the program itself went wrong.
"""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from dataclasses import dataclass, field

from fuzzer.campaign.examiner import Place
from fuzzer.campaign.lane import CrashLane
from fuzzer.campaign.recover import Look, recovery_options
from fuzzer.errors import InfrastructureError
from fuzzer.kernel.imagefile import store_image
from fuzzer.kernel.mount import mounted
from fuzzer.kernel.program import Ended, Program, run_program
from fuzzer.writelog.joined import RunLog
from fuzzer.writelog.marks import marks_before
from fuzzer.writelog.recipe import say_state
from oracles import Judgement, Violation

_MAX_TEXT = 4000
"""Characters of a checker's output that are kept as the text of a finding."""

_TREE_IS_FINE, _TREE_IS_NOT = 0, 1


@dataclass(frozen=True, slots=True)
class Checker:
    """The program, with an absolute path, and how long it may take for one tree."""

    argv: tuple[str, ...]
    timeout_s: float

    def __str__(self) -> str:
        return shlex.join(self.argv)


@dataclass(slots=True)
class Checks:
    """Runs the checker on crash states of one log: once for equal images after equal marks."""

    lane: CrashLane
    look: Look
    log: RunLog
    checker: Checker
    _done: set[tuple[int, int]] = field(default_factory=set)

    def __call__(self, place: Place) -> Judgement | None:
        """What the checker says of a state that mounts; None if it was asked already.

        InfrastructureError if it gives no verdict.
        """
        assert place.state is not None
        assert place.image is not None
        marks = marks_before(self.log.entries[self.log.start : place.state.point])
        key = (place.image.digest, len(marks))
        if key in self._done:
            return None
        self._done.add(key)
        with self.lane.times.phase("check"):
            ended = self._run(place, marks)
        if ended.killed or ended.status not in (_TREE_IS_FINE, _TREE_IS_NOT):
            how = f"did not end in {self.checker.timeout_s:g} s" if ended.killed else str(ended)
            raise InfrastructureError(
                f"no verdict: the checker {self.checker} {how} ({say_state(place.state)})",
                hint=_text(ended) or "a checker says 0 (fine) or 1 (not) by its exit status",
            )
        violations = (self._violation(ended),) if ended.status == _TREE_IS_NOT else ()
        return Judgement(violations, judged=1, no_promise=0, rules={"check": 1})

    def _run(self, place: Place, marks: tuple[bytes, ...]) -> Ended:
        assert place.state is not None
        assert place.image is not None
        lane, options = self.lane, recovery_options(self.look.fs, self.look.mount_options)
        said = lane.directory / "marks"
        said.write_bytes(b"".join(mark + b"\n" for mark in marks))
        store_image(place.image, lane.scratch)
        with ExitStack() as stack:
            device = stack.enter_context(lane.minor.attached(lane.scratch))
            mountpoint = stack.enter_context(mounted(device, lane.crash_mount, self.look.fs, options))
            program = Program(
                argv=self.checker.argv,
                cwd=mountpoint,
                environment={
                    "POWERCUT_MOUNT": str(mountpoint),
                    "POWERCUT_POINT": str(place.state.point),
                    "POWERCUT_MARKS": str(said),
                },
                timeout_s=self.checker.timeout_s,
            )
            return run_program(lane.area, program, keep_output=True)

    def _violation(self, ended: Ended) -> Violation:
        return Violation(
            rule="check",
            kind="failed",
            subject="the tree",
            promised="that the checker accepts it",
            found=_text(ended) or "the checker said no, and nothing more",
            source=f"--check {shlex.quote(str(self.checker))}",
        )


def _text(ended: Ended) -> str:
    return ended.output.strip()[-_MAX_TEXT:]
