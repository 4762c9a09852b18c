"""Examiner: recovers crash states, equal images once, judges them, and keeps what is forbidden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fuzzer.campaign.lane import CrashLane
from fuzzer.campaign.recover import SHALLOW, Depth, Look, depth_of, recover
from fuzzer.state.recovery import Recovery
from fuzzer.state.view import View
from fuzzer.triage.bucket import planted
from fuzzer.triage.facts import Facts
from fuzzer.writelog.crash import CrashState, Cut
from fuzzer.writelog.format import Log
from fuzzer.writelog.image import Image
from oracles import Judgement, Tally


@dataclass(frozen=True, slots=True)
class Place:
    """What is judged: a crash state with its times and image, or the live mount through a view.

    `recoveries` are the logs `state.again` counts in, the outermost first; `before` are the images those
    recoveries started from.
    """

    state: CrashState | None
    cut: Cut
    image: Image | None = None
    view: View = View.CACHE
    recoveries: tuple[Log, ...] = ()
    before: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class Forbidden:
    """A state that broke a promise; see `Place`. `state` is None for the live mount (no crash at all).

    The first violation of `judgement` gives it its title; `facts` are about that one, `known` is the id
    of the known bug behind it (empty: none), and `bucket` the group it is filed under.
    """

    state: CrashState | None
    judgement: Judgement
    recovery: Recovery
    view: View = View.CACHE
    bucket: str = ""
    known: str = ""
    facts: Facts = field(default_factory=dict)
    recoveries: tuple[Log, ...] = ()

    def filed(self, fs: str, canary: str) -> tuple[str, str]:
        """Bucket and known bug. What `canary` did is no known bug, however much it looks like one."""
        if not canary:
            return self.bucket, self.known
        return planted(fs, self.judgement.violations[0], self.facts, canary), ""

    @property
    def rule_and_kind(self) -> tuple[str, str]:
        first = self.judgement.violations[0]
        return first.rule, first.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What came of one log: counts, and the first forbidden state of each bucket."""

    states: int
    unique: int
    tally: Tally
    forbidden: tuple[Forbidden, ...]


@dataclass(slots=True)
class Examiner:
    """Looks at the crash states of one log, and keeps the first of each bucket.

    `judge` says what is wrong with a recovery at a cut, `file` makes that a finding; `report` gets each
    finding that is kept, as it is found. `announce` is told of a state before the kernel sees it. `check`
    is asked about each state that mounts, and may have nothing to say.
    """

    lane: CrashLane
    look: Look
    judge: Callable[[Recovery, Cut], Judgement]
    file: Callable[[Place, Judgement, Recovery], Forbidden]
    report: Callable[[Forbidden], None] = lambda _: None
    announce: Callable[[Place], None] = lambda _: None
    check: Callable[[Place], Judgement | None] = lambda _: None
    seen: dict[int, Recovery] = field(default_factory=dict)
    found: dict[str, Forbidden] = field(default_factory=dict)
    states: int = 0
    tally: Tally = field(default_factory=Tally)
    _judged_at: dict[Cut, list[Recovery]] = field(default_factory=dict)

    def look_at(self, place: Place) -> bool:
        """Recover (or remember) and judge one crash state. False if its image was not new."""
        assert place.image is not None
        recovery = self.seen.get(place.image.digest)
        if recovery is None:
            self.look_again(place, depth_of(place.image) if self.look.check else SHALLOW)
        else:
            self.judge_at(place, recovery)
        self._check(place, self.seen[place.image.digest])
        return recovery is None

    def _check(self, place: Place, recovery: Recovery) -> None:
        judgement = self.check(place) if recovery.tree is not None else None
        if judgement is not None:
            self.take(place, judgement, recovery)

    def look_again(self, place: Place, depth: Depth) -> None:
        """Recover and judge one crash state, whatever is remembered of it."""
        assert place.image is not None
        self.announce(place)
        recovery = recover(self.lane, place.image, self.look, depth)
        self.seen[place.image.digest] = recovery
        self.judge_at(place, recovery)

    def judge_at(self, place: Place, recovery: Recovery) -> None:
        """Judge what a recovery showed, unless an equal one was judged at an equal cut."""
        self.states += place.view is View.CACHE  # other views are of the same state
        before = self._judged_at.setdefault(place.cut, [])
        if recovery in before:
            return
        before.append(recovery)
        with self.lane.times.phase("judge"):
            judgement = self.judge(recovery, place.cut)
        self.take(place, judgement, recovery)

    def take(self, place: Place, judgement: Judgement, recovery: Recovery) -> None:
        """Count a judgement, and keep it if it is the first of its bucket."""
        self.tally.add(judgement)
        if judgement.violations:
            forbidden = self.file(place, judgement, recovery)
            if forbidden.bucket not in self.found:
                self.found[forbidden.bucket] = forbidden
                self.report(forbidden)

    def result(self) -> Examination:
        """What was found so far."""
        return Examination(
            states=self.states,
            unique=len(self.seen),
            tally=self.tally,
            forbidden=tuple(self.found.values()),
        )
