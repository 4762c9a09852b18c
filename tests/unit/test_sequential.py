"""The sweep's space: its size, that nothing is in it twice, and that everything in it makes sense."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

from fuzzer.campaign.source import Swept
from fuzzer.errors import InputError
from fuzzer.workload.model import Workload
from fuzzer.workload.sweep import Space
from fuzzer.workload.sweep_tables import core_ops
from fuzzer.workload.text import format, parse
from fuzzer.workload.validate import validate

SIZES = {("btrfs", 1): 812, ("xfs", 1): 872, ("btrfs", 2): 2626624, ("xfs", 2): 3052984}
DRAWN = 600
_LAST = ("symlink", "rename", "unlink", "mkdir")


@cache
def space(fs: str, length: int) -> Space:
    return Space(fs, length)


@cache
def some(fs: str, length: int) -> tuple[Workload, ...]:
    """All of length 1, a sample of length 2."""
    numbers = space(fs, length).sample(DRAWN, 5)
    return tuple(space(fs, length)[number] for number in numbers)


each = pytest.mark.parametrize(("fs", "length"), list(SIZES))


@each
def test_size_is_known(fs: str, length: int) -> None:
    """A table that changes shows here; so does a rule that lets nothing through."""
    assert len(space(fs, length)) == SIZES[fs, length]


@each
def test_all_are_different_valid_and_round_trip(fs: str, length: int) -> None:
    texts = {format(workload) for workload in some(fs, length)}
    assert len(texts) == len(some(fs, length)) == min(DRAWN, SIZES[fs, length])
    for workload in some(fs, length):
        validate(workload)
        assert parse(format(workload)) == workload
        assert workload.fs == fs


@each
def test_shape(fs: str, length: int) -> None:
    """One actor: `length` core ops, a sync call at the end and at most one after each op."""
    for workload in some(fs, length):
        (actor,) = workload.actors
        roles = ["s" if op.name in ("fsync", "fdatasync", "sync") else "c" for op in actor.ops]
        assert "".join(roles) in ({"cs"} if length == 1 else {"ccs", "cscs"})
        assert [op.name for op in workload.setup].count("syncfs") <= 1


@pytest.mark.parametrize("fs", ["btrfs", "xfs"])
def test_every_core_op_comes_first_and_second(fs: str) -> None:
    names = {core.op.name for core in core_ops(fs)}
    assert names == {
        *("create", "mkdir", "symlink", "link", "rename", "unlink", "rmdir", "setxattr", "removexattr"),
        *("write", "dwrite", "mwrite", "truncate", "fallocate"),
    }
    for length in (1, 2):
        for place in range(length):
            assert {cores[place].op.name for cores, _ in space(fs, length)._pairs} == names


def test_what_ace_finds_known_bugs_with_is_in_it() -> None:
    """fstests generic/348, generic/322, generic/039 (as link, unlink) and generic/341 (as rename, mkdir)."""
    wanted = {
        1: ("symlink foo A/foo\n  fsync A", "rename A/foo A/bar\n  fsync A/bar"),
        2: (
            "link A/foo A/bar\n  sync\n  unlink A/bar\n  fsync A/foo",
            "rename A B\n  mkdir A\n  fsync A",
        ),
    }
    for length, bodies in wanted.items():
        whole, end = space("btrfs", length), 0
        texts: list[str] = []
        for cores, next_end in whole._pairs:
            if cores[0].op.name in ("symlink", "rename", "link") and cores[-1].op.name in _LAST:
                texts += [format(whole[number]) for number in range(end, next_end)]
            end = next_end
        for body in bodies:
            assert any(text.endswith(f"actor one\n  {body}\n") for text in texts), body


def test_same_arguments_same_texts_in_any_process() -> None:
    code = "from fuzzer.campaign.source import Swept; from fuzzer.workload.text import format\n"
    code += "s = Swept(('xfs',), 2, 50, 7)\n"
    code += "print(''.join(format(s.workload(i)) for i in range(s.total)), end='')"
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PYTHONHASHSEED": "99"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    source = Swept(("xfs",), 2, 50, 7)
    here = "".join(format(source.workload(i)) for i in range(source.total))
    assert other.stdout.decode() == here


def test_a_sample_is_drawn_from_everywhere() -> None:
    """Each tenth of the space gets its share; another seed draws others."""
    whole = space("xfs", 2)
    numbers = whole.sample(2000, 1)
    assert len(set(numbers)) == 2000
    shares = [sum(n * 10 // len(whole) == tenth for n in numbers) for tenth in range(10)]
    assert min(shares) > 140
    assert len(set(numbers) & set(whole.sample(2000, 2))) < 20
    assert list(space("xfs", 1).sample(10**6, 1)) == list(range(872))


def test_a_sweep_of_both_file_systems_has_each_once() -> None:
    source = Swept(("btrfs", "xfs"), 1)
    assert source.sizes == {"btrfs": 812, "xfs": 872}
    assert source.total == 812 + 872
    assert [source.workload(i).fs for i in (0, 811, 812, 1683)] == ["btrfs", "btrfs", "xfs", "xfs"]


@pytest.mark.parametrize(("fs", "length"), [("ext4", 1), ("xfs", 3), ("xfs", 0)])
def test_unknown_is_bad_input(fs: str, length: int) -> None:
    with pytest.raises(InputError, match="no sweep of length"):
        Space(fs, length)


def test_numbers_end() -> None:
    for number in (-1, 812):
        with pytest.raises(IndexError):
            space("btrfs", 1)[number]
