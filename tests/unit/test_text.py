"""The text form: round trips, places of errors, and that no input does anything but InputError."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import workloads

from fuzzer.errors import ExitCode, InputError
from fuzzer.workload.model import Actor, Draw, Resolver, Workload, make_op
from fuzzer.workload.ops import OPS
from fuzzer.workload.parser import usage
from fuzzer.workload.text import MAX_TEXT, format, format_op, format_size, parse, parse_bytes
from fuzzer.workload.validate import validate

CORPUS = sorted((Path(__file__).parents[2] / "corpus").rglob("*.workload"))

FULL = """\
powercut 1
title: page release races fast fsync
why: The first sentence.
  A continued one,

    indented more, # not a comment
source: https://example.org/#anchor
kernels: 5.10 to 6.4
expect: data kernel-log
sure: not yet
descends: btrfs/one btrfs/two
requires: memcg drop_caches
fs: btrfs
size: 512M
mkfs: -n 16K -O ^no-holes
mount: commit=300,compress=zstd
memory: 64M
seed: 7

setup
  create a
  write a 0 64K
  symlink "a b" d/link
  sync

actor writer loop=20 cpu=1
  write a rand(0,60K,4K) 4K sync=dsync
  chmod a 0640
  create "with \\"quotes\\" and \\u00e9" mode=0600
  barrier go
  sleep rand(0,500,1)

actor reclaimer loop=others
  barrier go
  drop_caches level=1
  balance type=data usage=50
"""

MINIMAL = "powercut 1\n\nactor a\n  sync\n"


def test_full_text_is_canonical_and_complete() -> None:
    workload = parse(FULL)
    assert format(workload) == FULL
    assert workload.why == "The first sentence.\nA continued one,\n\n  indented more, # not a comment"
    assert workload.requires == ("memcg", "drop_caches")
    assert (workload.size, workload.memory, workload.seed) == (512 << 20, 64 << 20, 7)
    writer, reclaimer = workload.actors
    assert (writer.loop, writer.cpu, reclaimer.loop, reclaimer.cpu) == (20, 1, None, None)
    assert writer.ops[0]["off"] == Draw(0, 60 << 10, 4 << 10)
    assert writer.ops[1].number("mode") == 0o640
    assert writer.ops[2].text("path") == 'with "quotes" and é'
    assert reclaimer.ops[1].text("level") == "1"


def test_defaults_are_left_out() -> None:
    text = "powercut 1\nsize: 320M\nactor a loop=1\n  create f mode=0644\n  write f 0 4096 sync=none\n"
    assert format(parse(text)) == "powercut 1\n\nactor a\n  create f\n  write f 0 4K\n"


def test_comments_blanks_and_tabs_are_forgiven() -> None:
    text = "powercut 1 \n# c\n\n#\n\nactor a # c\n\t# c\n\n   sync\t# c\n# c\n  fsync\ta #c\n"
    assert format(parse(text)) == "powercut 1\n\nactor a\n  sync\n  fsync a\n"


def test_last_line_needs_no_newline() -> None:
    assert parse(MINIMAL.rstrip("\n")) == parse(MINIMAL)


def test_paths_count_the_iterations() -> None:
    text = 'powercut 1\nactor a loop=3\n  link a "d/n-{i}-{i}"\n  setxattr a "{i}"\n'
    resolver = Resolver(parse(text), 1)
    assert [resolver.op(n).text("to") for n in (0, 2, 4)] == ["d/n-0-0", "d/n-1-1", "d/n-2-2"]
    assert resolver.op(3).text("name") == "{i}", "no path"


@given(workloads())
@settings(max_examples=150)
def test_round_trip(workload: Workload) -> None:
    validate(workload)
    text = format(workload)
    assert parse(text) == workload
    assert format(parse(text)) == text
    prose = (
        workload.title,
        workload.why,
        workload.source,
        workload.kernels,
        workload.sure,
        workload.descends,
    )
    assert text.isascii() or not "".join(prose).isascii()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_corpus_files_are_canonical(path: Path) -> None:
    text = path.read_text()
    assert format(parse_bytes(path.read_bytes(), path.name)) == text
    assert parse(text).source


def test_every_op_can_be_written_with_all_options() -> None:
    for name, spec in OPS.items():
        given_values = {param.name: param.choices[-1] for param in spec.params if param.choices}
        required = {
            param.name: "x" if param.kind.value in ("path", "text") else 8192
            for param in spec.params
            if param.required and param.name != "mode"
        }
        mode = {"mode": 0o600} if any(param.name == "mode" for param in spec.params) else {}
        op = make_op(name, {**required, **({} if name == "fallocate" else mode), **given_values})
        fs = "xfs" if "xfs" in spec.requires else "btrfs"
        workload = Workload(fs=fs, actors=(Actor("a", (op,)),))
        assert parse(format(workload)) == workload, usage(spec)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (8, "8"),
        (1024, "1K"),
        (1025, "1025"),
        (3 << 20, "3M"),
        (1536 << 10, "1536K"),
        (1 << 31, "2G"),
    ],
)
def test_sizes(number: int, text: str) -> None:
    assert format_size(number) == text
    assert format_op(make_op("truncate", {"path": "f", "size": number})) == f"truncate f {text}"


@pytest.mark.parametrize("cut", range(0, len(FULL), 7))
def test_cut_text_is_refused_or_canonical(cut: int) -> None:
    _refused_or_canonical(FULL[:cut])


@given(st.text())
def test_random_text_is_only_ever_refused(text: str) -> None:
    _refused_or_canonical(text)
    _refused_or_canonical("powercut 1\n" + text)
    _refused_or_canonical("powercut 1\nactor a\n  " + text)


@given(st.binary())
def test_random_bytes_are_only_ever_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_bytes(data)
    with pytest.raises(InputError):
        parse_bytes(FULL.encode() + b"\0" + data)


def _refused_or_canonical(text: str) -> bool:
    """True if parsed. Anything but InputError fails the test by itself."""
    refusal: InputError | None = None
    try:
        workload = parse(text)
    except InputError as error:
        refusal = error
    if refusal:
        assert refusal.place.startswith("<workload>:")
        assert len(str(refusal)) < 400
        return False
    assert parse(format(workload)) == workload
    return True


_PIECES = (
    " ",
    "\n",
    "\n  ",
    "  ",
    '"',
    "#",
    "=",
    ":",
    "\\",
    "rand(",
    ",",
    ")",
    "K",
    "9" * 30,
    "-1",
    "..",
    "/",
)
_PIECES += (
    "\t",
    "é",
    "\u2028",
    "\xa0",
    "\0",
    "\r",
    "0",
    "loop=",
    "others",
    "sync",
    "why:",
    "actor b\n",
    '"\\ud800"',
)


def test_mutated_text_is_only_ever_refused() -> None:
    rng = random.Random(1)
    outcomes = set()
    for _ in range(2500):
        text = FULL
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(_PIECES) + text[at + rng.choice((0, 0, 1, 3, 20)) :]
        outcomes.add(_refused_or_canonical(text))
    assert outcomes == {True, False}


@pytest.mark.parametrize("piece", [b"\0", b"actor a\n", b"\xff"])
def test_huge_garbage_is_refused_at_once(piece: bytes) -> None:
    data = piece * ((100 << 20) // len(piece))
    text = "" if piece == b"\xff" else data.decode()
    begin = time.process_time()
    with pytest.raises(InputError, match="larger than") as caught:
        parse_bytes(data)
    if text:
        with pytest.raises(InputError, match="larger than"):
            parse(text)
    assert time.process_time() - begin < 1
    assert caught.value.exit_code == ExitCode.BAD_INPUT


@pytest.mark.parametrize("body", ["  write a 0 4K\n", "\n", '"' * 9, "=\\"])
def test_largest_text_takes_seconds_at_most(body: str) -> None:
    text = MINIMAL + body * ((MAX_TEXT - len(MINIMAL)) // len(body))
    begin = time.process_time()
    _refused_or_canonical(text)
    assert time.process_time() - begin < 5


def test_bytes_that_are_not_utf8_are_placed() -> None:
    with pytest.raises(InputError, match="not UTF-8 text") as caught:
        parse_bytes(b"powercut 1\ntitle: \xff\n", "x.workload")
    assert caught.value.place == "x.workload:2:8"


def test_unplaced_op_is_described_for_people() -> None:
    bad = Workload(actors=(Actor("w", (make_op("truncate", {"path": "a", "size": 3}),)),))
    with pytest.raises(InputError, match="w op 1 size: size is not a multiple of 8"):
        validate(bad)
