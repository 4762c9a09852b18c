"""The exporter `sh`: a script that needs a loop device, coreutils and xfs_io."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator

from fuzzer.triage.export.check import plain
from fuzzer.triage.export.power import DIALECT, WORDS, cut_command, functions
from fuzzer.triage.export.program import Program
from fuzzer.triage.export.shell_blocks import actor_lines, setup_lines

_WIDTH = 100

_SLOW = (
    " That takes a few milliseconds, in which the other actors go on: a race shows less often than in"
    " powercut, which cuts in the log."
)

_MAIN = """\
trap 'unplug; rm -rf "$work"' EXIT
seen=0
for run in $(seq "${1:-1}"); do
    new_fs || exit 2
    workload
    recover; mounted=$?
"""

_TAIL = """\
    if bug; then
        echo "run $run: BUG: "MESSAGE
        seen=$((seen + 1))
    fi
    unplug && rm -rf "$work"/* || exit 2
done
echo "the bug showed in $seen of ${1:-1} runs"
[ $seen -eq 0 ]
"""

_MOUNTED = """\
    [ $mounted -eq 0 ] || { echo "cannot recover" >&2; exit 2; }
"""


def export_sh(program: Program) -> dict[str, str]:
    """`repro.sh`."""
    check = program.check
    tail = _TAIL.replace("MESSAGE", shlex.quote(check.message))
    lines = [
        "#!/bin/bash",
        *comment(program, "# "),
        "#",
        "# Usage, as root: repro.sh [RUNS]. It needs 1 GB in $TMPDIR (/tmp) and leaves nothing behind.",
        "# Exit status: 1 if the bug showed, 0 if not, 2 if it could not run.",
        "set -u",
        'work=$(mktemp -d "${TMPDIR:-/tmp}/repro.XXXXXX") mnt=$work/mnt',
        "",
        functions(program),
        "workload() {",
        *(f"    {line}" for line in workload_lines(program)),
        "}",
        "",
        _MAIN + (_MOUNTED if check.needs_mount else "") + tail,
    ]
    return {"repro.sh": "\n".join(lines).rstrip("\n") + "\n"}


def workload_lines(program: Program) -> Iterator[str]:
    """Setup and actors, to be run by a function."""
    cut = cut_command(program)
    yield from setup_lines(program, DIALECT, cut)
    yield from actor_lines(program, DIALECT, cut, "    ")
    if cut and not _is_cut(program):
        yield cut


def _is_cut(program: Program) -> bool:
    blocks = (program.setup, *program.actors)
    return any(step.cut is not None for block in blocks for step in block.steps)


def comment(program: Program, prefix: str) -> Iterator[str]:
    """What it is about and how power is cut, as comment lines."""
    slow = _SLOW if len(program.actors) > 1 and cut_command(program) else ""
    for text in (*program.about, f"{' '.join(WORDS[program.method])}{slow}"):
        for line in textwrap.wrap(plain(text), _WIDTH - len(prefix)):
            yield prefix + line
