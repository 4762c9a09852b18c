"""Exports, as texts: what shell and compiler accept, what is refused, and that names cannot run as words."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from dossiers import make_dossier, save

from fuzzer.cli.triage import triage_group
from fuzzer.errors import InputError
from fuzzer.triage.dossier import Dossier
from fuzzer.triage.export import EXPORTERS, export
from fuzzer.triage.export.c import _HEAD, _HELP
from fuzzer.triage.export.c_ops import HELPERS, call_of
from fuzzer.triage.export.place import Place, pattern, row_of
from fuzzer.triage.export.program import Method, make_program
from fuzzer.triage.export.shell_ops import COMMANDS, Dialect, Words, say
from fuzzer.workload.model import Actor, Draw, make_op
from fuzzer.workload.ops import OPS, Kind
from fuzzer.workload.text import parse
from fuzzer.writelog.crash import Again, CrashState, Kept, Torn

_SHELL = Dialect("$mnt", "$work/")
_ONLY_IN_C = {"awrite", "fault_write", "mapped_write"}
_IN_NEITHER = set(OPS) - set(COMMANDS) - _ONLY_IN_C
"""What needs a memory cgroup, a pipe, or to know how large the device is."""


def _words(name: str) -> dict[str, int | str | Draw]:
    """The least an op can be given."""
    values: dict[str, int | str | Draw] = {}
    for param in OPS[name].params:
        if param.required:
            texts = {Kind.PATH: "d/a", Kind.TEXT: "x", Kind.CHOICE: (param.choices or ("",))[0]}
            values[param.name] = texts.get(param.kind, max(param.low, param.unit))
    return values


def _bash(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert not done.stderr, f"{done.stderr}\n{text}"


def _dossier(**more: object) -> Dossier:
    return make_dossier(name="a", **more)  # type: ignore[arg-type]


def _with_state(state: CrashState) -> Dossier:
    made = _dossier()
    return Dossier(replace(made.saved, state=state), made.log, made.tree)


def test_every_op_is_a_command_or_is_refused_by_name() -> None:
    assert set(COMMANDS) <= set(OPS)
    assert {"reclaim", "squeeze"} <= _IN_NEITHER
    assert len(_IN_NEITHER) < 8, "most ops can be said"
    for name in _ONLY_IN_C | _IN_NEITHER:
        with pytest.raises(InputError, match=name):
            say(Words(make_op(name, _words(name)), _SHELL, "0x61"))
    for name in sorted(set(OPS) - _IN_NEITHER):
        assert call_of(make_op(name, _words(name)), "0x61").text.endswith(";")
    for name in _IN_NEITHER:
        with pytest.raises(InputError, match=name):
            call_of(make_op(name, _words(name)), "0x61")


def test_every_choice_of_an_op_is_said_or_refused() -> None:
    lines = []
    for name in COMMANDS:
        for key, choice in [("", ""), *((p.name, c) for p in OPS[name].params for c in p.choices)]:
            op = make_op(name, _words(name) | ({key: choice} if key else {}))
            with suppress(InputError):
                lines.append(say(Words(op, _SHELL, "0x61", 2)))
    assert len(lines) > 2 * len(COMMANDS) - 10
    _bash("\n".join(lines))


@pytest.mark.parametrize("format_name", sorted(EXPORTERS))
@pytest.mark.parametrize("kept", list(Kept))
def test_every_format_is_written(format_name: str, kept: Kept) -> None:
    files = export(_dossier(kept=kept), format_name)
    text = next(iter(files.values()))
    assert "promised was data durable by completed" in " ".join(
        text.replace("#", " ").replace("*", " ").split()
    )
    if text.startswith("#!"):
        _bash(text)
    if format_name == "xfstests":
        assert list(files.values())[1] == "QA output created by 999\nSilence is golden\n"
    assert ("log-writes" in text or "log_writes" in text) == (kept is Kept.NOTHING)
    assert text.count("powercut") <= 2, "it stands alone"


def test_what_comes_behind_the_cut_is_left_out() -> None:
    text = export(_dossier(), "sh")["repro.sh"]
    assert re.search(r'-S 0x63 0 4096" \$mnt/a.*\n +xfs_io -c "fsync" \$mnt/a\n +cut_power\n}', text)
    assert "$mnt/b" not in text


@pytest.mark.parametrize(
    ("dossier", "message"),
    [
        (_with_state(CrashState(4, (3,), (Torn(3, ((0, 512),)),))), "only some"),
        (_with_state(CrashState(6, Kept.NOTHING, again=Again("x", CrashState(1, Kept.NOTHING)))), "recovery"),
        (_dossier(log=False), "log was not kept"),
        (_dossier(tree=False), "no script can tell"),
        (make_dossier(name="a$(reboot)"), "not plain enough"),
    ],
    ids=("torn", "again", "log", "tree", "name"),
)
def test_what_no_script_can_show_is_refused(dossier: Dossier, message: str) -> None:
    for format_name in EXPORTERS:
        with pytest.raises(InputError, match=message):
            export(dossier, format_name)


def test_a_planted_finding_is_refused() -> None:
    made = _dossier()
    planted = replace(made.saved, finding=replace(made.saved.finding, canary="drop-flush"))
    with pytest.raises(InputError, match="planted"):
        make_program(Dossier(planted, made.log, made.tree))


def test_texts_of_a_finding_stay_comments(tmp_path: Path) -> None:
    """They come from files that may be anybody's."""
    made = _dossier()
    evil = dict(made.saved.finding.violations[0]) | {"subject": "'; reboot\nreboot */ reboot(); $(reboot)"}
    saved = replace(made.saved, finding=replace(made.saved.finding, violations=(evil,)))
    for format_name in EXPORTERS:
        text = next(iter(export(Dossier(saved, made.log, made.tree), format_name).values()))
        heads = [line.strip() for line in text.splitlines()]
        assert not [line for line in heads if line.startswith("reboot")], text
        assert "*/ reboot" not in text.partition("#include")[0]


RACE = """powercut 1
fs: btrfs

setup
  create a
  sync

actor one loop=3
  barrier go
  write a rand(0,60K,4K) 4K
  fsync a
  spin 5

actor two
  barrier go
  fdatasync a

actor three loop=others
  drop_caches level=1
  sleep 200
"""


def _race() -> Dossier:
    made = _dossier()
    workload = parse(RACE, "race")
    history = replace(made.saved.history, events=())
    finding = replace(made.saved.finding, violations=(dict(made.saved.finding.violations[0]) | {"seen": 0},))
    saved = replace(made.saved, workload=workload, history=history, finding=finding)
    return Dossier(saved, made.log, made.tree)


@pytest.mark.parametrize("format_name", sorted(EXPORTERS))
def test_actors_loops_and_barriers(format_name: str) -> None:
    text = next(iter(export(_race(), format_name).values()))
    if text.startswith("#!"):
        _bash(text)
        assert text.count(") &\n") == 3
        assert "RANDOM % 16 * 4096" in text
    else:
        assert "pthread_barrier_init(&barrier_go, NULL, 2);" in text
        assert "for (int i = 0; counted > 0; i++)" in text


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_compiler_has_nothing_to_say(tmp_path: Path) -> None:
    ops = [make_op(n, _words(n)) for n in sorted(OPS) if n not in _IN_NEITHER]
    race = _race()
    actors = (Actor("all", tuple(ops), loop=2), *race.saved.workload.actors)
    everything = replace(race.saved, workload=replace(race.saved.workload, actors=actors))
    for number, dossier in enumerate((_dossier(), Dossier(everything, race.log, race.tree))):
        path = tmp_path / f"{number}.c"
        path.write_text(export(dossier, "c")["repro.c"])
        done = subprocess.run(
            ["cc", "-Wall", "-Werror", "-fsyntax-only", "-pthread", path], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()


def test_ops_write_bytes_of_their_own() -> None:
    workload = parse(RACE, "race")
    assert row_of(Place(2, 1), workload) == 7
    first = [pattern(row) for row in range(60)]
    assert len(set(first)) == 60
    assert not {0} & {pattern(row, loop) for row in range(40) for loop in range(40)}
    assert pattern(3, 1) != pattern(3)


def test_the_method_fits_what_was_lost() -> None:
    assert make_program(_dossier(kept=Kept.NOTHING)).method is Method.LOG_WRITES
    assert make_program(_dossier(kept=Kept.EVERYTHING)).method is Method.COPY


def test_the_command_writes_files_beside_the_finding(tmp_path: Path) -> None:
    place = save(_dossier(), tmp_path)
    words = ["export", "btrfs-data", "--format", "xfstests", "--dir", str(tmp_path)]
    done = CliRunner().invoke(triage_group, words, catch_exceptions=False)
    assert done.stdout.split() == [str(place / "999"), str(place / "999.out")]
    assert (place / "999").stat().st_mode & 0o111
    out = tmp_path / "new" / "place"
    CliRunner().invoke(triage_group, [*words, "--output", str(out)], catch_exceptions=False)
    assert sorted(path.name for path in out.iterdir()) == ["999", "999.out"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_every_op_said_in_c_compiles(tmp_path: Path) -> None:
    """With the calls as they are made, so that arguments and parameters fit."""
    lines = []
    for name in sorted(set(OPS) - {"barrier"}):
        for key, choice in [("", ""), *((p.name, c) for p in OPS[name].params for c in p.choices)]:
            with suppress(InputError):
                op = make_op(name, _words(name) | ({key: choice} if key else {}))
                lines.append(f"\t{call_of(op, '0x61').text}\n")
    assert len(lines) > 150
    text = f'{_HEAD}static const char functions[] = "";\n{_HELP}{"".join(HELPERS.values())}'
    source = tmp_path / "all.c"
    source.write_text(f"{text}\nint main(void)\n{{\n{''.join(lines)}}}\n")
    command = ["cc", "-Wall", "-Wno-unused-function", "-Werror", "-fsyntax-only", "-pthread", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
