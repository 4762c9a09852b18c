"""Mutations: valid, different, the same for the same seed; and how a campaign mixes them in."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from functools import cache

from fuzzer.campaign.corpus import load_corpus
from fuzzer.campaign.source import Generated
from fuzzer.workload.model import Workload
from fuzzer.workload.mutate import mutate
from fuzzer.workload.text import format, parse
from fuzzer.workload.validate import validate

_SEEDS = load_corpus()
_BOTH = ("btrfs", "xfs")


@cache
def _mutations(count: int) -> list[tuple[Workload, Workload]]:
    found = []
    for number in range(count):
        rng = random.Random(f"test/{number}")
        seed = rng.choice(_SEEDS)
        found.append((seed, mutate(rng, seed, _SEEDS, seed.fs or rng.choice(_BOTH))))
    return found


def test_mutations_are_valid_and_round_trip() -> None:
    for _, mutation in _mutations(400):
        validate(mutation)
        assert parse(format(mutation)) == mutation


def test_nearly_all_differ_from_their_seed_and_from_each_other() -> None:
    pairs = _mutations(400)
    changed = [(s.setup, s.actors, s.mkfs, s.mount, s.memory) for s, _ in pairs]
    mutated = [(m.setup, m.actors, m.mkfs, m.mount, m.memory) for _, m in pairs]
    assert sum(a == b for a, b in zip(changed, mutated, strict=True)) <= 4
    assert len(set(mutated)) >= 395


def test_a_mutation_says_what_it_descends_from() -> None:
    slugs = {seed.descends for seed in _SEEDS}
    of_two = 0
    for seed, mutation in _mutations(400):
        parents = mutation.descends.split()
        assert parents[0] == seed.descends
        assert set(parents) <= slugs
        of_two += len(parents) > 1
    assert of_two > 40, "actors of other entries are taken in"


def test_each_sort_of_change_happens() -> None:
    """Counts what only one sort of change can do; each has to come up in 400 mutations."""
    seen: Counter[str] = Counter()
    for seed, mutation in _mutations(400):
        seen["actor"] += len(mutation.actors) > len(seed.actors)
        seen["setup"] += len(mutation.setup) > len(seed.setup)
        seen["mkfs"] += mutation.mkfs != seed.mkfs
        seen["mount"] += mutation.mount != seed.mount
        seen["memory"] += mutation.memory != seed.memory
        pairs = list(zip(seed.actors, mutation.actors, strict=False))
        seen["loop"] += any((b.loop or 0) > (a.loop or 0) for a, b in pairs)
        seen["more ops"] += any(len(b.ops) > len(a.ops) for a, b in pairs)
        seen["fewer ops"] += any(len(b.ops) < len(a.ops) for a, b in pairs)
        same = [
            (x, y) for a, b in pairs if len(a.ops) == len(b.ops) for x, y in zip(a.ops, b.ops, strict=True)
        ]
        seen["other op"] += any(x.name != y.name for x, y in same)
        seen["other argument"] += any(x.name == y.name and x != y for x, y in same)
    assert all(seen.values()), seen
    assert len(seen) == 10


def test_same_seed_same_text_in_any_process() -> None:
    code = (
        "from fuzzer.campaign.corpus import load_corpus; from fuzzer.campaign.source import Generated\n"
        "from fuzzer.workload.text import format\n"
        "s = Generated(3, ('btrfs', 'xfs'), load_corpus(), 70)\n"
        "print(''.join(format(s.workload(i)) for i in range(60)), end='')"
    )
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PYTHONHASHSEED": "99"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    source = Generated(3, _BOTH, _SEEDS, 70)
    assert other.stdout.decode() == "".join(format(source.workload(i)) for i in range(60))


def test_a_campaign_has_the_share_that_was_asked_for() -> None:
    for share in (0, 1, 40, 100):
        source = Generated(5, _BOTH, _SEEDS, share)
        of_corpus = [bool(source.workload(index).descends) for index in range(200)]
        assert sum(of_corpus) == 2 * share
    assert not any(Generated(5, _BOTH, (), 40).workload(index).descends for index in range(20))


def test_each_entry_runs_as_it_is_on_each_of_its_file_systems() -> None:
    wanted = Counter((w.descends, fs) for w in _SEEDS for fs in _BOTH if w.fs in ("", fs))
    source = Generated(5, _BOTH, _SEEDS, 100)
    plain = Counter(
        (w.descends, w.fs) for w in map(source.workload, range(2 * len(wanted))) if w.title and w.why
    )
    assert plain == wanted
    later = [source.workload(index) for index in range(2 * len(wanted), 2 * len(wanted) + 100)]
    assert 0 < sum(bool(w.why) for w in later) < 50, "then mostly mutations"


def test_generated_workloads_do_not_depend_on_the_corpus() -> None:
    """So a finding of `fuzz` is made again by its seed and index, whatever was added to the corpus."""
    mixed, alone = Generated(5, _BOTH, _SEEDS, 40), Generated(5, _BOTH)
    new = [index for index in range(100) if not mixed.workload(index).descends]
    assert len(new) == 60
    assert all(mixed.workload(index) == alone.workload(index) for index in new)
