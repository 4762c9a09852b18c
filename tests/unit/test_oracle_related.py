"""What an fsync on btrfs brings along, against the model: few histories of any ops ask for it, these do."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from oracle_disk import Btrfs
from oracle_runner import Runner

from fuzzer.workload.model import Op, Value, make_op
from oracles import PROFILES, build_versions
from oracles.floors import compute_floors
from oracles.related import NEW_DIRECTORY, PARTNER, add_related

HISTORIES = 400
_NAMES = ("a", "b", "c", "e/x", "e/g/y")
_SOURCES = {PROFILES["btrfs"].source(why): why for why in (NEW_DIRECTORY, PARTNER)}
Mix = tuple[tuple[int, str, dict[str, Value]], ...]


def _new_directories(rng: random.Random) -> Mix:
    return (
        (3, "mkdir", {"path": rng.choice(("e", "e/g"))}),
        (6, "create", {"path": rng.choice(_NAMES)}),
        (1, "symlink", {"target": "t", "path": rng.choice(_NAMES)}),
        (1, "unlink", {"path": rng.choice(_NAMES)}),
        (2, "link", {"from": "a", "to": rng.choice(_NAMES)}),
        (2, "fsync", {"path": rng.choice((".", ".", "e", "e/x", "a"))}),
    )


def _partners(rng: random.Random) -> Mix:
    one, other = rng.choice("aab"), rng.choice("bp")
    return (
        (5, "rename", {"from": one, "to": other}),
        (5, "create", {"path": "a"}),
        (1, "link", {"from": other, "to": "b"}),
        (1, "unlink", {"path": other}),
        (5, "fsync", {"path": rng.choice(("a", other))}),
    )


def _histories(
    mix: Callable[[random.Random], Mix], plant: Callable[[Btrfs], None]
) -> tuple[Counter[str], Counter[str]]:
    """(promises made, promises broken) by their reason, over all crashes."""

    def choose(rng: random.Random) -> Op:
        rows = mix(rng)
        _, name, values = rng.choices(rows, weights=[weight for weight, _, _ in rows])[0]
        return make_op(name, values)

    made: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for seed in range(HISTORIES):
        runner = Runner(seed, "btrfs", actors=1 + seed % 2, ops=6, choose=choose)
        assert isinstance(runner.disk, Btrfs)
        plant(runner.disk)
        runner.run()
        versions = build_versions(runner.history(), tuple(runner.disk.commits))
        for snapshot in runner.snapshots:
            floors = compute_floors(versions, snapshot.cut, PROFILES["btrfs"])
            add_related(floors)
            made.update(floors.reasons.values())
            broken.update(_SOURCES.get(v.source, "other") for v in runner.judge(snapshot).violations)
    return made, broken


@pytest.mark.parametrize(("mix", "why"), [(_new_directories, NEW_DIRECTORY), (_partners, PARTNER)])
def test_legal_crashes_keep_it(mix: Callable[[random.Random], Mix], why: str) -> None:
    made, broken = _histories(mix, lambda _: None)
    assert made[why] > 0, "nothing was asked for"
    assert not broken.keys() & {NEW_DIRECTORY, PARTNER}


@pytest.mark.parametrize(
    ("mix", "method", "why"),
    [(_new_directories, "_log_new_directory", NEW_DIRECTORY), (_partners, "_log_successor", PARTNER)],
)
def test_a_log_without_it_is_found(mix: Callable[[random.Random], Mix], method: str, why: str) -> None:
    _, broken = _histories(mix, lambda disk: setattr(disk, method, lambda _: None))
    assert broken[why] > 0
