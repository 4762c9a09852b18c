"""Mixes: each gives valid workloads of the kind it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from fuzzer.campaign.source import Generated
from fuzzer.errors import InputError
from fuzzer.workload.generate import generate
from fuzzer.workload.mixes import MIXES
from fuzzer.workload.model import Workload
from fuzzer.workload.ops import OPS, Role
from fuzzer.workload.options import FILE_SYSTEMS
from fuzzer.workload.text import format, parse

COUNT = 40


@cache
def sample(mix: str) -> tuple[Workload, ...]:
    return tuple(generate(7, i, fs, mix) for fs in MIXES[mix].filesystems for i in range(COUNT))


def shares(mix: str) -> Counter[str]:
    """Per mille of each op, and of each role, among the ops of counted actors."""
    names = [op.name for w in sample(mix) for a in w.actors if a.loop is not None for op in a.ops]
    found = Counter(names) + Counter(str(OPS[name].role) for name in names)
    return Counter({key: 1000 * n // len(names) for key, n in found.items()})


def environment(mix: str) -> Iterator[set[str]]:
    for workload in sample(mix):
        yield {op.name for actor in workload.actors if actor.loop is None for op in actor.ops}


@pytest.mark.parametrize("mix", MIXES)
def test_every_mix_is_valid_repeatable_and_on_file(mix: str) -> None:
    for workload in sample(mix):
        assert parse(format(workload)) == workload
    assert generate(7, 0, "btrfs", mix) == sample(mix)[0]
    assert MIXES[mix].summary
    assert set(MIXES[mix].likelier) <= set(OPS)


def test_a_mix_is_named_in_the_title() -> None:
    assert generate(7, 3, "xfs", "mmap").title == "generated 7/3/xfs mmap"
    assert generate(7, 3, "xfs").title == "generated 7/3/xfs"


def test_sequential_small() -> None:
    assert all(len(w.actors) == 1 and w.actors[0].loop == 1 for w in sample("sequential-small"))
    assert all(len(w.actors[0].ops) <= 9 and not w.delay for w in sample("sequential-small"))


def test_fsync_storm() -> None:
    assert all(len([a for a in w.actors if a.loop]) >= 3 for w in sample("fsync-storm"))
    assert shares("fsync-storm")[str(Role.SYNC)] > 1.5 * shares("any")[str(Role.SYNC)]


def test_namespace() -> None:
    assert shares("namespace")[str(Role.NAMES)] > 450
    assert shares("namespace")[str(Role.DATA)] < 120


@pytest.mark.parametrize(
    ("mix", "likes"),
    [
        ("direct-io", ("dwrite",)),
        ("mmap", ("mwrite", "msync")),
        ("reflink", ("clone", "copy_range", "dedupe")),
    ],
)
def test_mixes_that_like_some_ops(mix: str, likes: tuple[str, ...]) -> None:
    mine, all_others = shares(mix), shares("any")
    assert sum(mine[name] for name in likes) > max(200, 3 * sum(all_others[name] for name in likes))
    assert mine["write"] > 0


def test_balance_always_balances_and_only_btrfs_can() -> None:
    found = list(environment("balance"))
    assert sum("balance" in names for names in found) > 0.75 * len(found)
    assert sum("balance_ctl" in names for names in found) > 0.1 * len(found)
    with pytest.raises(InputError, match="mix balance is not for xfs"):
        generate(1, 1, "xfs", "balance")


def test_what_steers_a_balance_has_one_beside_it() -> None:
    for mix in ("any", "balance"):
        for workload in sample(mix):
            for actor in workload.actors:
                if any(op.name == "balance_ctl" for op in actor.ops):
                    others = (op for other in workload.actors if other is not actor for op in other.ops)
                    assert any(op.name == "balance" for op in others)


def test_memory_pressure() -> None:
    assert all(0 < w.memory <= 64 << 20 for w in sample("memory-pressure"))
    wanted = {"reclaim", "squeeze", "drop_caches", "evict", "compact", "knob"}
    assert all(names & wanted for names in environment("memory-pressure"))


def test_enospc_fills_a_small_device() -> None:
    for workload in sample("enospc"):
        filled = [op for op in workload.setup if op.name == "fallocate" and "fill" in op.text("path")]
        assert sum(op.number("len") for op in filled) > workload.size * 0.75
        assert workload.size == {"btrfs": 160 << 20, "xfs": 300 << 20}[workload.fs]


def test_unknown_mixes_are_refused() -> None:
    with pytest.raises(InputError, match="no mix 'nothing'"):
        generate(1, 1, "xfs", "nothing")


def test_a_campaign_of_a_mix_generates_it() -> None:
    source = Generated(1, FILE_SYSTEMS, mix="enospc")
    assert all(source.workload(i).title.endswith(" enospc") for i in range(8))
