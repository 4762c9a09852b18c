"""The bisect script, run with a make and a powercut of straw."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from dossiers import make_dossier, save

from fuzzer.campaign.finding import load_facts
from fuzzer.cli.triage import triage_group
from fuzzer.errors import InputError
from fuzzer.triage.bisect import MAX_RUNS, Question, bisect_script, runs_for
from fuzzer.triage.sequential import Rate

BUCKET = "btrfs/data/lost-to-zero/write/fsync"
_POWERCUT = """#!/bin/bash
echo "$@" >> $0.log
[ $1 = run ] && exit $RUN_STATUS
[ -z "$FOUND" ] || echo '{"id": "x", "bucket": "'$FOUND'", "fs": "btrfs"}'
"""


def _tree(place: Path) -> dict[str, str]:
    """A directory of programs: `make` fails if MAKE_STATUS says so, `powercut` finds FOUND."""
    for name, text in (("make", "#!/bin/bash\nexit $MAKE_STATUS\n"), ("powercut", _POWERCUT)):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    path = f"{place}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "MAKE_STATUS": "0", "RUN_STATUS": "0", "FOUND": ""}


def _question(place: Path) -> Question:
    return Question(
        finding="btrfs-data-0123",
        bucket=BUCKET,
        fs="btrfs",
        rate=Rate(8, 10),
        points="fsync",
        contract="own",
        workload=place / "a workload",
        config=place / "config",
        powercut=place / "powercut",
        script=place / "bisect.sh",
    )


@pytest.mark.parametrize(
    ("variables", "status"),
    [
        ({}, 0),
        ({"RUN_STATUS": "1", "FOUND": BUCKET}, 1),
        ({"RUN_STATUS": "1", "FOUND": BUCKET + "/replay"}, 0),
        ({"RUN_STATUS": "1", "FOUND": "btrfs/names/missing-name"}, 0),
        ({"RUN_STATUS": "4"}, 125),
        ({"MAKE_STATUS": "2", "FOUND": BUCKET}, 125),
    ],
    ids=("nothing", "it", "a longer bucket", "another bug", "no boot", "no build"),
)
def test_git_is_told(tmp_path: Path, variables: dict[str, str], status: int) -> None:
    script = tmp_path / "bisect.sh"
    script.write_text(bisect_script(_question(tmp_path)))
    environment = _tree(tmp_path) | variables
    for words, told in (([], status), (["--fixed"], status if status == 125 else 1 - status)):
        done = subprocess.run(["bash", script, *words], cwd=tmp_path, env=environment, check=False)
        assert done.returncode == told
    if "MAKE_STATUS" not in variables:
        asked = (tmp_path / "powercut.log").read_text()
        assert f"{tmp_path}/a workload --fs btrfs --repeat {runs_for(Rate(8, 10))} --points fsync" in asked
        assert "--target qemu:" in asked


_COMMITS = ("good", "good", "good", "no build", "no build", "no boot", "good", "good", "bad", "bad", "bad")
"""The middle, which git asks for first, cannot be tried."""

_KERNEL_MAKE = """#!/bin/bash
[ "$(cat state)" != "no build" ]
"""
_KERNEL_POWERCUT = f"""#!/bin/bash
echo "$(cat state)" >> "$0.log"
case "$1 $(cat state)" in
    "run no boot") exit 4;;
    "run bad") exit 1;;
    "triage bad") echo '{{"id": "x", "bucket": "{BUCKET}", "fs": "btrfs"}}';;
esac
"""


def _git(tree: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *words], cwd=tree, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _kernel(place: Path, states: tuple[str, ...]) -> Path:
    """A tree whose commits say what kernel they are, and programs that act so."""
    for name, text in (("make", _KERNEL_MAKE), ("powercut", _KERNEL_POWERCUT)):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    tree = place / "linux"
    tree.mkdir()
    _git(tree, "init", "--quiet")
    for number, state in enumerate(states):
        (tree / "state").write_text(f"{state}\n")
        (tree / "number").write_text(f"{number}\n")
        _git(tree, "add", "--all")
        _git(tree, "commit", "--quiet", "--message", f"{number} {state}")
    return tree


def _bisect(place: Path, tree: Path, *, text: str, fixed: bool) -> str:
    """What `git bisect run` says of the commits of `tree`, with a script of this text."""
    script = place / "bisect.sh"
    script.write_text(text)
    terms = ("--term-old=broken", "--term-new=fixed") if fixed else ()
    words = ("bash", str(script), *(("--fixed",) if fixed else ()))
    _git(tree, "bisect", "start", *terms, "HEAD", f"HEAD~{len(_COMMITS) - 1}")
    return _git(tree, "bisect", "run", *words)


@pytest.mark.parametrize("fixed", [False, True])
def test_git_finds_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed: bool) -> None:
    """By the script's word alone: past commits that cannot be built and kernels that do not boot."""
    _kernel_of = {"good": "bad", "bad": "good"} if fixed else {}
    tree = _kernel(tmp_path, tuple(_kernel_of.get(state, state) for state in _COMMITS))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said = _bisect(tmp_path, tree, text=bisect_script(_question(tmp_path)), fixed=fixed)
    assert f"is the first {'fixed' if fixed else 'bad'} commit" in said, said
    assert f"8 {_kernel_of.get('bad', 'bad')}" in said
    assert "no boot" in (tmp_path / "powercut.log").read_text(), "one was passed over"


def test_git_is_led_astray_by_a_script_that_does_not_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above rests on: a kernel that does not boot is neither good nor bad."""
    tree = _kernel(tmp_path, _COMMITS)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    text = bisect_script(_question(tmp_path)).replace("exit 125", "exit 1")
    assert "8 bad" not in _bisect(tmp_path, tree, text=text, fixed=False)


def test_runs_follow_the_rate() -> None:
    assert runs_for(Rate(20, 20)) < runs_for(Rate(10, 20)) < runs_for(Rate(2, 20)) <= MAX_RUNS
    for never in (Rate(0, 10), Rate(1, 1000)):
        with pytest.raises(InputError, match="more than"):
            runs_for(never)


def test_the_command_takes_the_minimized_workload(tmp_path: Path) -> None:
    place = save(make_dossier(name="a"), tmp_path)
    words = ["bisect", "btrfs-data", "--dir", str(tmp_path)]
    done = CliRunner().invoke(triage_group, words, catch_exceptions=False)
    assert done.stdout.strip() == str(place / "bisect.sh")
    text = (place / "bisect.sh").read_text()
    assert f"{place}/repro.workload" in text
    assert f'\'"bucket": "{load_facts(place).bucket}"\'' in text
    (place / "minimized.workload").write_text("powercut 1\n")
    CliRunner().invoke(triage_group, words, catch_exceptions=False)
    assert f"{place}/minimized.workload" in (place / "bisect.sh").read_text()
