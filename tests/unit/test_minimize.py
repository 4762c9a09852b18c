"""Minimizing what shows only now and then, with a simulated bug; and the shrink passes by themselves."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from oracle_bugs import BUGS
from oracle_minimize import minimize_first
from strategies import workloads

from fuzzer.errors import InputError
from fuzzer.triage.minimize import Minimizer, Progress, load_progress, save_progress, size, tidy
from fuzzer.triage.sequential import FALSE_ACCEPT, FALSE_REJECT, GIVE, KEEP, Rate, decide
from fuzzer.workload.generate import generate
from fuzzer.workload.model import Actor, Op, Workload
from fuzzer.workload.shrink import PASSES, candidates, weight
from fuzzer.workload.text import format as format_workload
from fuzzer.workload.text import parse
from fuzzer.workload.validate import validate

# ---------------------------------------------------------------------------------- sequential test


@pytest.mark.parametrize("reference", [1.0, 0.5, 0.1])
@pytest.mark.parametrize(("fraction", "most_runs"), [(GIVE, 9), (KEEP, 45)])
@pytest.mark.parametrize("same", [True, False])
def test_wrong_decisions_are_as_rare_as_stated(
    reference: float, fraction: float, most_runs: int, same: bool
) -> None:
    """At the reference rate few are rejected, at a fraction of it few are accepted (2,000 trials)."""
    rng, wrong, runs, trials = random.Random(f"{reference}/{fraction}/{same}"), 0, 0, 2000
    for _ in range(trials):
        rate = Rate()
        while (decided := decide(rate, reference, fraction)) is None:
            rate = rate.add(rng.random() < (reference if same else reference * fraction))
        wrong += decided is not same
        runs += rate.runs
    assert wrong / trials <= (FALSE_REJECT if same else FALSE_ACCEPT) * 1.2
    assert runs / trials < most_runs / reference


def test_what_always_shows_is_rejected_at_the_first_miss() -> None:
    assert decide(Rate(0, 1), 1.0, KEEP) is False
    assert decide(Rate(8, 8), 1.0, KEEP) is True


def test_bounds_of_a_rate() -> None:
    assert Rate().lower_bound() == 0
    assert 0.4 < Rate(3, 3).lower_bound() < Rate(30, 30).lower_bound() < 1
    assert str(Rate(3, 4)) == "3 of 4 runs"


# ----------------------------------------------------------------------------------- simulated bugs

_BUG = (("one", "write"), ("one", "fsync"), ("two", "rename"))
"""An actor that writes and later syncs the same file, beside another that renames something."""


def _has_bug(workload: Workload) -> bool:
    return any(
        _writes_and_syncs(actor.ops)
        and any(op.name == "rename" for o in workload.actors if o is not actor for op in o.ops)
        for actor in workload.actors
    )


def _writes_and_syncs(ops: tuple[Op, ...]) -> bool:
    written: set[object] = set()
    for op in ops:
        if op.name == "write":
            written.add(op["path"])
        if op.name == "fsync" and op["path"] in written:
            return True
    return False


def _large(seed: int) -> Workload:
    """A generated workload of 40 ops and more with the bug in it."""
    for index in range(10_000):
        workload = generate(seed, index, "btrfs")
        if sum(1 for _ in workload.iter_ops()) >= 40 and _has_bug(workload):
            return workload
    raise AssertionError("no such workload")


def _minimize(workload: Workload, rate: float, seed: int) -> tuple[Minimizer, int]:
    """Minimize with a bug that shows at `rate`; the minimizer and how many runs it took."""
    rng = random.Random(seed)
    minimizer = Minimizer(
        progress=Progress(steps=[(workload, Rate())]),
        shows=lambda w: _has_bug(w) and rng.random() < rate,
    )
    minimizer.run()
    return minimizer, minimizer.progress.runs


@pytest.mark.parametrize(("rate", "most_runs"), [(1.0, 400), (0.5, 1500), (0.1, 8000)])
def test_cost_and_size(rate: float, most_runs: int) -> None:
    """Three ops are left. Measured medians: 128 runs at 1.0, 766 at 0.5, 3,361 at 0.1."""
    sizes, costs = [], []
    for seed in range(5):
        minimizer, runs = _minimize(_large(seed), rate, seed)
        best = minimizer.progress.best
        assert _has_bug(best)
        sizes.append(sum(1 for _ in best.iter_ops()))
        costs.append(runs)
    print(f"p={rate}: {sizes} ops, {costs} runs")  # noqa: T201
    assert median(sizes) == 3
    # With a bug that seldom shows, about one search in ten gives up early by bad luck.
    stuck = int(rate < 0.2)
    assert sorted(sizes)[-1 - stuck] <= 5
    assert median(costs) <= most_runs


_PLANTED = (
    *("loses a rename", "loses an exchange", "loses a hard link", "loses a clone", "zeroes a block"),
    *("corrupts xattrs", "a file at two names after rename", "loses an inode", "sync does nothing"),
)


def test_bugs_of_the_model_become_small() -> None:
    """Of each what it takes is left, and that shows as often. `oracle_minimize.py` does all of them."""
    sizes = []
    for bug, fs in ((one, fs) for one in BUGS for fs in one.fs if one.name in _PLANTED):
        done = minimize_first(bug, fs)
        assert done is not None, bug
        before, after = done.ops
        sizes.append(after)
        assert before == 31
        assert after <= 10, (bug, fs, after)
        assert decide(done.after, done.before.value, GIVE) is not False, (bug, fs, done.before, done.after)
    print(sizes)  # noqa: T201
    assert median(sizes) <= 5


def test_what_shows_too_seldom_is_run_in_a_loop() -> None:
    """Each write gives the bug a chance, and a loop of one gives as many as there were."""
    text = "powercut 1\nactor a\n" + "".join(f"  write a {n}K 4K\n" for n in range(0, 40, 4))
    rng = random.Random(1)

    def shows(w: Workload) -> bool:
        tries = sum((actor.loop or 1) * sum(op.name == "write" for op in actor.ops) for actor in w.actors)
        return rng.random() < 1 - 0.9**tries

    minimizer = Minimizer(progress=Progress(steps=[(parse(text), Rate())]), shows=shows)
    minimizer.run()
    rate = minimizer.measure_best(40)
    assert size(minimizer.progress.best) <= 6
    assert rate.value >= minimizer.progress.original.lower_bound()
    assert minimizer.progress.best.actors[0].loop != 1


def test_everything_is_made_simple() -> None:
    """Where nothing but three ops matters, all that is left is as plain as can be."""
    minimizer, _ = _minimize(_large(3), 1.0, 0)
    best = minimizer.progress.best
    assert (best.setup, best.mkfs, best.mount, best.memory, best.seed) == ((), "", "", 0, 0)
    assert [actor.loop for actor in best.actors] == [1, 1]
    lines = [line.strip() for line in format_workload(tidy(best)).splitlines() if line.startswith("  ")]
    assert sorted(lines) == ["fsync a", "rename a b", "write a 0 8"] or len(lines) == 3, lines
    assert format_workload(tidy(best)).count("actor") == 2


def test_a_rate_that_falls_with_every_op_left_out_is_kept_up() -> None:
    """A candidate that shows much more rarely is not taken, though it shows."""
    rng = random.Random(1)
    ops = tuple(
        op for _ in range(8) for op in parse("powercut 1\nactor a\n  write a 0 8\n  fsync a\n").actors[0].ops
    )
    minimizer = Minimizer(
        progress=Progress(steps=[(Workload(actors=(Actor("a", ops),)), Rate())]),
        shows=lambda w: rng.random() < 0.05 * sum(op.name == "fsync" for op in w.iter_ops()),
    )
    minimizer.run()
    left = sum(op.name == "fsync" for op in minimizer.progress.best.iter_ops())
    assert left >= 2, "0.05 an fsync, 0.4 at first: less than a third of that is too rare"


def test_what_was_luck_is_taken_back() -> None:
    """The original always shows, every other workload now and then: nothing can be left out."""
    workload, rng = _large(0), random.Random(4)
    minimizer = Minimizer(
        progress=Progress(steps=[(workload, Rate())]),
        shows=lambda w: w == workload or rng.random() < 0.2,
    )
    minimizer.run()
    rate = minimizer.measure_best(20)
    assert rate.value > 0.5


def test_what_never_shows_is_not_minimized() -> None:
    minimizer = Minimizer(progress=Progress(steps=[(_large(0), Rate())]), shows=lambda w: False)
    assert minimizer.run() is False
    assert len(minimizer.progress.steps) == 1


def test_on_a_kernel_without_the_bug_nothing_is_taken_back() -> None:
    done, _ = _minimize(_large(1), 1.0, 0)
    steps = list(done.progress.steps)
    for shows, wanted in ((lambda w: False, False), (_has_bug, True)):
        again = Minimizer(progress=done.progress, shows=shows)
        assert again.shows_still() is wanted
        assert done.progress.steps == steps


def test_what_shows_seldom_is_waited_for() -> None:
    """One of forty runs: it is given many more than one."""
    rng = random.Random(3)
    workload = _large(1)
    progress = Progress(steps=[(workload, Rate(2, 80))])
    found = [
        Minimizer(progress=progress, shows=lambda w: rng.random() < 0.025).shows_still() for _ in range(40)
    ]
    assert sum(found) > 30


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Stopped every 20 runs and started again from its file, it ends where one that ran through does."""
    workload, path = _large(1), tmp_path / "minimize.json"
    whole, runs = _minimize(workload, 1.0, 0)
    for _ in range(200):
        progress = load_progress(path, workload)
        left = [20]

        def shows(w: Workload, left: list[int] = left) -> bool:
            left[0] -= 1
            return _has_bug(w)

        minimizer = Minimizer(
            progress=progress,
            shows=shows,
            saved=lambda state: save_progress(path, state),
            stop=lambda left=left: left[0] <= 0,  # type: ignore[misc]
        )
        minimizer.run()
        if progress.done:
            break
    assert progress.done
    assert weight(progress.best)[:6] == weight(whole.progress.best)[:6]
    assert progress.runs <= runs * 3, "what was tried is not tried again"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"minimize": 1}', '{"minimize": 2}', '{"minimize": 2, "steps": []}']
)
def test_a_damaged_state_names_its_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "minimize.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_progress(path, _large(0))
    assert caught.value.place == str(path)


# ------------------------------------------------------------------------------------------- passes


@settings(max_examples=30)
@given(workloads())
def test_candidates_are_valid_simpler_and_different(workload: Workload) -> None:
    for name, one in PASSES:
        seen = set()
        for number, candidate in enumerate(candidates(one, workload)):
            validate(candidate)
            assert weight(candidate) < weight(workload), name
            seen.add(format_workload(candidate))
            assert len(seen) == number + 1, name
            if number == 20:
                break


_EXAMPLE = """powercut 1
fs: btrfs
mount: compress=zstd
setup
  mkdir d
  symlink x d/s
  create d/f
actor one loop=4
  write d/f 8K 64K sync=dsync
  barrier go
  fdatasync d/f
actor two loop=others
  barrier go
  rename d/f d/g flags=noreplace
"""

_HARSH = """powercut 1
fs: btrfs

actor one sched=idle
  otrunc f
  spin 20
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("actors", "actor one loop=4"),
        ("merge", "rename d/f d/g flags=noreplace\n  write d/f 8K 64K sync=dsync"),
        ("ops", "create d/f\n\nactor one"),
        ("loops", "actor one\n"),
        ("loops", "actor two\n"),
        ("options", "fs: btrfs\n\nsetup"),
        ("paths", "setup\n  mkdir d\n  symlink x d/s\n"),
        ("pairs", "setup\n  mkdir d\n  symlink x d/s\n"),
        ("kinds", "create d/s"),
        ("kinds", "fsync d/f"),
        ("flags", "write d/f 8K 64K\n"),
        ("flags", "rename d/f d/g\n"),
        ("names", "create f"),
        ("numbers", "write d/f 0 64K"),
        ("numbers", "write d/f 8K 4K"),
    ],
)
def test_a_pass_offers(name: str, expected: str) -> None:
    offered = [format_workload(w) for w in candidates(dict(PASSES)[name], parse(_EXAMPLE))]
    assert any(expected in text for text in offered), offered


@pytest.mark.parametrize(
    ("name", "expected"),
    [("kinds", "truncate f 0"), ("kinds", "sleep 20"), ("options", "actor one\n  otrunc f")],
)
def test_a_pass_offers_what_is_less_harsh(name: str, expected: str) -> None:
    """Maintainers ask for it: "a truncate to 0 achieves the same, O_TRUNC is not necessary"."""
    offered = [format_workload(w) for w in candidates(dict(PASSES)[name], parse(_HARSH))]
    assert any(expected in text for text in offered), offered
