"""The generator: the same arguments give the same text, everything is valid, and the mix is as meant."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
from functools import cache

import pytest

from fuzzer.campaign.source import Generated
from fuzzer.errors import InputError
from fuzzer.workload import tables
from fuzzer.workload.generate import generate
from fuzzer.workload.model import Actor, Draw, Resolver, Workload, make_op
from fuzzer.workload.ops import OPS, Role
from fuzzer.workload.scene import Scene
from fuzzer.workload.text import format, parse
from fuzzer.workload.validate import validate

COUNT = 2000


@cache
def sample() -> tuple[Workload, ...]:
    return tuple(generate(1, index, ("btrfs", "xfs")[index % 2]) for index in range(COUNT))


def counted(workload: Workload) -> list[Actor]:
    return [actor for actor in workload.actors if actor.loop is not None]


def total(workload: Workload) -> int:
    return sum((actor.loop or 0) * len(actor.ops) for actor in counted(workload))


def test_same_arguments_same_text_in_any_process() -> None:
    code = "from fuzzer.workload.generate import generate; from fuzzer.workload.text import format\n"
    code += "print(''.join(format(generate(3, i, fs)) for i in range(20) for fs in ('btrfs', 'xfs')), end='')"
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PYTHONHASHSEED": "99"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    here = "".join(format(generate(3, i, fs)) for i in range(20) for fs in ("btrfs", "xfs"))
    assert other.stdout.decode() == here


def test_each_argument_matters() -> None:
    assert len({format(generate(*a, "xfs")).split("\n", 2)[2] for a in ((1, 1), (1, 2), (2, 1))}) == 3
    assert generate(1, 1, "xfs") != generate(1, 1, "btrfs").with_fs("xfs")


def test_all_are_valid_and_round_trip() -> None:
    for workload in sample():
        validate(workload)
        assert parse(format(workload)) == workload


def test_unknown_file_system_is_bad_input() -> None:
    with pytest.raises(InputError, match="no workloads for 'ext4'"):
        generate(1, 1, "ext4")


def test_every_op_appears() -> None:
    seen = {op.name for workload in sample() for op in workload.iter_ops()}
    assert seen == set(OPS)


def test_every_op_has_one_row() -> None:
    assert sorted(row.name for row in tables.ROWS) == sorted(set(OPS) - {"barrier"})


def test_ops_of_another_file_system_do_not_appear() -> None:
    for workload in sample():
        if workload.fs == "xfs":
            assert not any(op.name == "balance" for op in workload.iter_ops())
        else:
            modes = {op["mode"] for op in workload.iter_ops() if op.name == "fallocate"}
            assert not modes & {"collapse", "insert", "unshare"}


def test_every_value_of_every_choice_appears() -> None:
    seen = {(op.name, key, value) for w in sample() for op in w.iter_ops() for key, value in op.args}
    for spec in OPS.values():
        for param in spec.params:
            missing = [choice for choice in param.choices if (spec.name, param.name, choice) not in seen]
            assert not missing, (spec.name, param.name)


def test_small_workloads_are_the_rule() -> None:
    totals = [total(workload) for workload in sample()]
    assert 15 <= statistics.median(totals) <= 30
    assert min(totals) >= 2
    assert max(totals) <= 200
    assert sum(t <= 60 for t in totals) > 0.8 * COUNT


def test_about_every_third_op_makes_something_durable() -> None:
    shares = []
    for workload in sample():
        ops = [op for actor in counted(workload) for op in actor.ops for _ in range(actor.loop or 0)]
        durable = sum(op.is_durability_point for op in ops)
        assert durable
        shares.append(durable / len(ops))
    assert 0.2 < statistics.mean(shares) < 0.5


def test_shapes() -> None:
    actors = [len(counted(workload)) for workload in sample()]
    environment = [actor for w in sample() for actor in w.actors if actor.loop is None]
    assert 0.05 * COUNT < actors.count(1) < 0.16 * COUNT
    assert set(actors) == {1, 2, 3, 4}
    assert 0.4 * COUNT < len(environment) < 0.7 * COUNT
    assert all(len(w.actors) == 1 for w in sample() if len(counted(w)) == 1)
    assert {actor.loop for w in sample() for actor in counted(w)} == {1, 2, 3, 4, 5}


def test_environment_actors_leave_the_cpus_alone() -> None:
    for actor in (actor for w in sample() for actor in w.actors if actor.loop is None):
        assert 100 <= actor.ops[-1].number("us") <= 5000
        roles = {Role.NAMES} if actor.name == "crowd" else {Role.ENVIRONMENT}
        assert {op.spec.role for op in actor.ops[:-1]} == roles


def test_scheduling_is_disturbed_now_and_then() -> None:
    actors = [actor for w in sample() for actor in w.actors]
    assert {actor.sched for actor in actors} == {"other", "idle", "throttled"}
    assert {actor.cpu for actor in actors} == {None, 0, 1}
    plain = [w for w in sample() if all(a.cpu is None and a.sched == "other" for a in w.actors)]
    assert len(plain) > 0.8 * COUNT


def test_actors_share_files() -> None:
    """In nearly all concurrent workloads, two actors name the same path."""
    meetings = []
    for workload in sample():
        paths = [
            {value for op in actor.ops for key, value in op.args if key in ("path", "from", "to")}
            for actor in counted(workload)
        ]
        if len(paths) > 1:
            meetings.append(any(a & b for i, a in enumerate(paths) for b in paths[:i]))
    assert statistics.mean(meetings) > 0.8


def test_loops_draw_and_barriers_meet() -> None:
    draws = [v for w in sample() for op in w.iter_ops() for _, v in op.args if isinstance(v, Draw)]
    assert len(draws) > 50
    for workload in sample():
        users = [a for a in workload.actors for op in a.ops if op.name == "barrier"]
        assert len(users) != 1
        assert len({actor.loop for actor in users}) <= 1


def test_options_are_mostly_default_and_all_used() -> None:
    for fs in ("btrfs", "xfs"):
        mine = [workload for workload in sample() if workload.fs == fs]
        exchanging = [tables.EXCHANGING] if fs == "xfs" else []
        for used, table, special in (
            ([w.mkfs for w in mine], tables.MKFS[fs], exchanging),
            ([w.mount for w in mine], tables.MOUNT[fs], []),
        ):
            both = {f"{tables.GROWING} {tables.EXCHANGING}"}
            assert set(used) - both == {choice for _, choice in table} | set(special)
            assert used.count("") > len(used) / 2


def test_some_concurrent_workloads_hold_io_back() -> None:
    delayed = [w.delay for w in sample() if w.delay]
    assert 0.05 * COUNT < len(delayed) < 0.25 * COUNT
    assert set(delayed) == {text for _, text in tables.DELAYS if text}
    assert all(len(w.actors) > 1 for w in sample() if w.delay)
    assert not any(Generated(1, ("xfs",), delays=False).workload(i).delay for i in range(100))


def test_some_setups_have_more() -> None:
    names = [{str(value) for op in w.setup for _, value in op.args} for w in sample()]
    for wanted in ("n" * 255, "/".join(["deep"] * tables.EXTRA_DEPTH), f"link-{tables.EXTRA_LINKS - 1:0240}"):
        assert 10 < sum(wanted in found for found in names) < 0.1 * COUNT


def test_growfs_has_room() -> None:
    growing = [w for w in sample() for op in w.iter_ops() if op.name == "growfs"]
    assert growing
    assert {(w.fs, w.mkfs) for w in growing} == {("xfs", tables.GROWING)}


def test_setup_usually_ends_synced() -> None:
    ends = [workload.setup[-1].is_durability_point for workload in sample()]
    assert 0.75 * COUNT < sum(ends) < 0.97 * COUNT


def test_generated_ops_resolve_within_their_ranges() -> None:
    for workload in sample()[:100]:
        for number, actor in enumerate(workload.actors, 1):
            for iteration in range(actor.loop or 3):
                ops = Resolver(workload, number).iteration(iteration)
                validate(Workload(fs=workload.fs, actors=(Actor("a", ops),)))


def test_scene_follows_names_and_sizes() -> None:
    scene = Scene(random.Random(1), "btrfs")

    def run(name: str, /, **values: str | int) -> None:
        scene.apply(make_op(name, values))

    run("mkdir", path="d")
    run("create", path="d/a")
    run("write", path="d/a", off=4096, len=8)
    run("create", path="b")
    run("rename", **{"from": "d", "to": "e"})
    assert (scene.directories, scene.sizes) == (["e"], {"e/a": 4104, "b": 0})
    run("rename", **{"from": "b", "to": "e/a", "flags": "exchange"})
    assert scene.sizes == {"b": 4104, "e/a": 0}
    run("link", **{"from": "b", "to": "c"})
    run("unlink", path="b")
    run("truncate", path="c", size=16)
    run("fallocate", path="c", off=0, len=4096, mode="keep")
    assert scene.sizes == {"e/a": 0, "c": 16}
    run("rmdir", path="e")
    assert scene.directories == []


@pytest.mark.parametrize("beside", ["remount_ro", "dwrite"])
def test_nobody_makes_a_file_system_read_only_beside_a_balance(beside: str) -> None:
    """Neither as a pair nor by chance: `validate`, which `generate` ends with, refuses it on btrfs."""
    made = [generate(5, index, "btrfs", pair=f"balance+{beside}") for index in range(300)]
    assert all(any(op.name == "balance" for op in workload.iter_ops()) for workload in made)


def test_ranges_are_exchanged_where_the_file_system_can() -> None:
    exchanging = [w for w in sample() if any(op.name == "exchange_range" for op in w.iter_ops())]
    assert 0 < len(exchanging) < 0.05 * COUNT
    assert all(tables.EXCHANGING in w.mkfs for w in exchanging)
    assert all("xfs-exchange" in w.capabilities for w in sample() if tables.EXCHANGING in w.mkfs)
    assert any(tables.EXCHANGING not in w.mkfs for w in sample() if w.fs == "xfs")
