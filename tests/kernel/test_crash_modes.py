"""Every mode of cutting the power, on real file systems: healthy ones stay silent, planted bugs show."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from fuzzer.campaign.again import build_state, crash_again, record_recovery
from fuzzer.campaign.examine import Reexamination, examine, examine_one, faults_for
from fuzzer.campaign.examiner import Examiner, Forbidden, Place
from fuzzer.campaign.execute import Execution, execute
from fuzzer.campaign.finding import load_finding, make_finding, save_finding
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.recover import Look
from fuzzer.campaign.run import recheck
from fuzzer.campaign.session import origin
from fuzzer.campaign.smallest import smallest
from fuzzer.errors import InputError
from fuzzer.state.recovery import Recovery
from fuzzer.workload.text import parse
from fuzzer.writelog.crash import NO_FAULTS, Again, CrashState, Cut, Faults, Kept, StateBuilder, cut_of
from fuzzer.writelog.format import log_digest
from fuzzer.writelog.points import Plan, Points, crash_points, parse_plan
from fuzzer.writelog.recipe import format_recipe, parse_recipe
from oracles import OWN, Judgement

pytestmark = pytest.mark.kernel

_WORKLOAD = """powercut 1
setup
  mkdir d
  create d/a
  write d/a 0 64K
  sync
actor one
  write d/a 0 16K
  fsync d/a
  create b
  write b 0 32K
  fsync b
  rename b d/c
  fsync d
  create e
  sync
"""


@pytest.fixture(scope="module")
def executed() -> Callable[[str], Execution]:
    """One execution of the workload per file system."""

    @cache
    def run(fs: str) -> Execution:
        with open_lane("fuse") as lane:
            return execute(lane, parse(_WORKLOAD).with_fs(fs))

    return run


@pytest.mark.parametrize("points", ["subset", "torn", "recovery", "fsync,subset,torn"])
def test_a_healthy_file_system_survives_every_mode(
    points: str, fs: str, executed: Callable[[str], Execution]
) -> None:
    with open_lane("fuse") as lane:
        simple = examine(lane, executed(fs), Plan())
        found = examine(lane, executed(fs), parse_plan(points, 60))
    assert [(f.state, f.judgement.violations) for f in found.forbidden] == []
    assert found.unique > simple.unique
    assert 20 < found.states < 60 + 16


def test_the_same_log_gives_the_same_states(fs: str, executed: Callable[[str], Execution]) -> None:
    plan = parse_plan("fsync,subset,torn", 40)
    with open_lane("fuse") as lane:
        first, second = (examine(lane, executed(fs), plan) for _ in range(2))
    assert (first.states, first.unique) == (second.states, second.unique)


def _unrecovered(execution: Execution) -> CrashState:
    """A state with work for recovery: everything of the last sync point but one."""
    points = crash_points(execution.log, execution.history, Points.FSYNC, execution.log.start)
    return CrashState(points[-2], Kept.EVERYTHING)


def _look(execution: Execution) -> Look:
    workload = execution.workload
    return Look(fs=workload.fs, mount_options="", known=execution.history.known_ids())


def test_recovery_is_cut_at_its_own_writes(fs: str, executed: Callable[[str], Execution]) -> None:
    """One and two levels deep, always judged by the promises of the first cut."""
    execution = executed(fs)
    state = _unrecovered(execution)
    image = StateBuilder(execution.base, execution.log, execution.log.start).at(state)
    asked: list[Cut] = []

    def judge(recovery: Recovery, cut: Cut) -> Judgement:
        asked.append(cut)
        return Judgement((), 1, 0)

    def file(place: Place, judgement: Judgement, recovery: Recovery) -> Forbidden:
        raise AssertionError("nothing is wrong")

    with open_lane("fuse") as lane:
        log = record_recovery(lane, image, _look(execution))
        assert log is not None
        assert sum(entry.is_write for entry in log.entries) > 3, "recovery has something to do"
        assert any(entry.is_flush for entry in log.entries)
        examiner = _Watched(lane, _look(execution), judge, file)
        examiner.places = []
        place = Place(state, cut_of(execution.log.entries, state, execution.history), image)
        crash_again(lane, examiner, [place], random.Random(1), lambda: False)
    states = [one.state for one in examiner.places if one.state is not None]
    assert {_depth(one) for one in states} == {1, 2}
    assert set(asked) == {cut_of(execution.log.entries, state, execution.history)}
    assert len({one.image.digest for one in examiner.places if one.image}) > 4
    start = execution.log.start
    for one, state in zip(examiner.places, states, strict=True):
        assert len(one.recoveries) == _depth(state)
        assert parse_recipe(json.loads(json.dumps(format_recipe(state)))) == state
        images = build_state(execution.base, execution.log, start, state, NO_FAULTS, one.recoveries)
        assert one.image is not None
        assert [i.digest for i in images] == [i.digest for i in (*one.before, one.image)]


class _Watched(Examiner):
    """An examiner that remembers what it looked at."""

    places: list[Place]

    def look_at(self, place: Place) -> bool:
        self.places.append(place)
        return super().look_at(place)


def _depth(state: CrashState) -> int:
    return 0 if state.again is None else 1 + _depth(state.again.state)


def test_a_crash_during_recovery_is_judged_again_from_its_logs(
    fs: str, tmp_path: Path, executed: Callable[[str], Execution]
) -> None:
    """What was lost before the first crash is missing after the second, too."""
    execution, canary = executed(fs), "lose-block"
    facts = origin(points="recovery", canary=canary, recorder="fuse")
    faults = faults_for(execution, parse_plan(facts.points), canary)
    with open_lane("fuse") as lane:
        (outer, *_) = examine(lane, execution, Plan(), canary).forbidden
        assert outer.state is not None
        start = execution.log.start
        (image,) = build_state(execution.base, execution.log, start, outer.state, faults, ())
        log = record_recovery(lane, image, _look(execution))
        assert log is not None
        last = max(entry.index for entry in log.entries if entry.is_write)
        inner = Again(log_digest(log), CrashState(last, Kept.EVERYTHING))
        state = CrashState(outer.state.point, outer.state.kept, again=inner)
        forbidden = examine_one(lane, execution, state, faults, (log,))
        assert forbidden is not None
        assert forbidden.rule_and_kind == outer.rule_and_kind
        place = save_finding(tmp_path, make_finding(execution, forbidden, facts), execution, forbidden)
        again = recheck(lane, load_finding(place))
        assert again is not None
        assert again.state == state
        assert again.rule_and_kind == forbidden.rule_and_kind
        (place / "recovery-1.log.gz").unlink()
        with pytest.raises(InputError, match="recovery 1"):
            recheck(lane, load_finding(place))


def test_a_missing_flush_before_a_commit_shows_only_in_a_choice_of_writes(
    fs: str, executed: Callable[[str], Execution]
) -> None:
    with open_lane("fuse") as lane:
        assert examine(lane, executed(fs), Plan((Points.FSYNC,)), "weak-flush").forbidden == ()
        assert examine(lane, executed(fs), Plan((Points.FLUSH,)), "weak-flush").forbidden == ()
        found = examine(lane, executed(fs), Plan((Points.SUBSET,)), "weak-flush").forbidden
    assert found
    assert all(one.state is not None and isinstance(one.state.kept, tuple) for one in found)


def test_findings_are_kept_in_their_smallest_state(fs: str, executed: Callable[[str], Execution]) -> None:
    """Found in whatever was drawn; what is left are the writes that had to be lost."""
    execution, plan = executed(fs), Plan((Points.SUBSET,))
    faults = faults_for(execution, plan, "weak-flush")
    with open_lane("fuse") as lane:
        found = examine(lane, execution, plan, "weak-flush").forbidden[0]
        retry = Reexamination(lane, execution, faults, OWN)
        first = smallest(retry, found)
        assert (first.bucket, first.state) == (found.bucket, smallest(retry, found).state)
        assert found.state is not None
        assert first.state is not None
        again = examine_one(lane, execution, first.state, faults)
    assert again is not None
    assert again.bucket == found.bucket
    assert first.state.point <= found.state.point
    lost = [len(_lost(execution, faults, state)) for state in (first.state, found.state)]
    assert lost[0] <= min(2, lost[1]), "one block of metadata, or both copies of one"


def _lost(execution: Execution, faults: Faults, state: CrashState) -> set[int]:
    builder = StateBuilder(execution.base, execution.log, execution.log.start, faults)
    opened = {entry.index for entry in builder.may_be_lost(state.point)}
    kept = {Kept.NOTHING: set[int](), Kept.EVERYTHING: opened}
    return opened - (kept[state.kept] if isinstance(state.kept, Kept) else set(state.kept))
