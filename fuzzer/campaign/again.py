"""Again: crashes while the kernel recovers from a crash.

What the kernel writes while it mounts a crash state is recorded like a workload, and the power is cut in
that log. Nobody asked for anything in between, so the promises are those of the first crash.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fuzzer.campaign.examiner import Examiner, Place
from fuzzer.campaign.lane import Lane
from fuzzer.campaign.recover import Look, recovery_options
from fuzzer.errors import InputError
from fuzzer.kernel.imagefile import store_image
from fuzzer.kernel.mount import mounted
from fuzzer.state.history import History
from fuzzer.writelog.crash import Again, CrashState, Faults, LogData, StateBuilder
from fuzzer.writelog.format import Log, log_digest, read_log
from fuzzer.writelog.image import Image
from fuzzer.writelog.points import Plan, Points
from fuzzer.writelog.sample import choose_states

_PER_RECOVERY = 8
"""States looked at per recorded recovery: a recording costs about as much as two of them."""

_DEEPER = 4
"""One state in this many is crashed once more, in the recovery from the second crash."""

_NO_HISTORY = History(())


@dataclass(slots=True)
class Sampler:
    """Keeps an even sample of the crash states offered to it, without knowing how many will come."""

    size: int
    rng: random.Random
    kept: list[Place]
    offered: int = 0

    def offer(self, place: Place) -> None:
        """Take it, perhaps instead of another."""
        self.offered += 1
        if len(self.kept) < self.size:
            self.kept.append(place)
        elif (number := self.rng.randrange(self.offered)) < self.size:
            self.kept[number] = place


def sampler(states: int, rng: random.Random) -> Sampler:
    """A sampler of the crash states to crash again if `states` are to be looked at in the end."""
    return Sampler(-(-states // _PER_RECOVERY), rng, [])


def crash_again(
    lane: Lane,
    examiner: Examiner,
    places: Sequence[Place],
    rng: random.Random,
    stop: Callable[[], bool],
) -> None:
    """Look at some states of the recovery of each place; `stop` is asked between states."""
    for place in places:
        inner = _states_of(lane, examiner, place, _PER_RECOVERY - _PER_RECOVERY // _DEEPER, rng, stop)
        if inner:
            _states_of(lane, examiner, rng.choice(inner), _PER_RECOVERY // _DEEPER, rng, stop)


def _states_of(
    lane: Lane,
    examiner: Examiner,
    outer: Place,
    wanted: int,
    rng: random.Random,
    stop: Callable[[], bool],
) -> list[Place]:
    """Look at `wanted` states of the recovery of `outer`; returns them."""
    assert outer.state is not None
    assert outer.image is not None
    if stop():
        return []
    examiner.announce(outer)
    log = record_recovery(lane, outer.image, examiner.look)
    if log is None:
        return []
    builder, digest = StateBuilder(outer.image, log), log_digest(log)
    plan = Plan((Points.FUA, Points.SUBSET), wanted)
    done: list[Place] = []
    for state in choose_states(log, _NO_HISTORY, plan, rng, fs=examiner.look.fs):
        if stop():
            break
        nested = _nest(outer.state, Again(digest, state))
        recoveries, before = (*outer.recoveries, log), (*outer.before, outer.image)
        done.append(Place(nested, outer.cut, builder.at(state), recoveries=recoveries, before=before))
        examiner.look_at(done[-1])
    return done


def _nest(state: CrashState, again: Again) -> CrashState:
    """`state` with one more cut, innermost."""
    if state.again is not None:
        again = replace(state.again, state=_nest(state.again.state, again))
    return replace(state, again=again)


def innermost(state: CrashState) -> CrashState:
    """The last cut of `state`, the one its recovery starts from."""
    return state if state.again is None else innermost(state.again.state)


def record_recovery(lane: Lane, image: Image, look: Look) -> Log | None:
    """The log of mounting `image` and unmounting it; None if it does not mount or nothing is written."""
    with lane.times.phase("record"):
        store_image(image, lane.disk)
        lane.log.unlink(missing_ok=True)
        options = recovery_options(look.fs, look.mount_options)
        with lane.recorder.record(lane.disk, lane.log) as recorded:
            try:
                with mounted(recorded.device, lane.crash_mount, look.fs, options):
                    pass
            except OSError:
                return None  # Judged already: the state was looked at before it was crashed again.
        log = read_log(lane.log, mapped=False)
    return log if any(entry.is_write for entry in log.entries) else None


def build_state(
    base: Image, log: LogData, start: int, state: CrashState, faults: Faults, recoveries: Sequence[Log]
) -> tuple[Image, ...]:
    """The images at each cut of a state, the last one to be judged.

    InputError if the log of a recovery is missing or another one.
    """
    images = [StateBuilder(base, log, start, faults).at(state)]
    again = state.again
    while again is not None:
        level = len(images)
        if level > len(recoveries) or log_digest(recoveries[level - 1]) != again.log:
            raise InputError(f"the log of recovery {level} of this crash state is not the recorded one")
        images.append(StateBuilder(images[-1], recoveries[level - 1]).at(again.state))
        again = again.state.again
    return tuple(images)
