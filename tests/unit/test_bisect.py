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
