"""Bisect: a script for `git bisect run` in a kernel tree that builds, boots and asks for one finding.

A commit is called good when the workload did not show the finding in so many runs that a kernel with the
bug would be as silent once in a hundred times, at the lower bound of the rate that was measured.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from string import Template

from fuzzer.errors import InputError
from fuzzer.triage.sequential import Rate

_FALSE_GOOD = 0.01
MAX_RUNS = 400

_SCRIPT = Template("""\
#!/bin/bash
# Is $finding there? For `git bisect run`, in a Linux tree:
#
#   git bisect start BAD GOOD && git bisect run $script
#   git bisect start --term-old=broken --term-new=fixed FIXED BROKEN && git bisect run $script --fixed
#
# The second looks for the commit that repaired it. Exit status: 0 it is not there, 1 it is (with --fixed the
# other way round), 125 the kernel cannot be built or does not boot.
#
# It was seen in $seen, so each commit gets $runs runs: one that has it is called good
# once in a hundred times. Set OBJECTS for another place for objects, RUNS for another number.
set -u
there=1 gone=0
[ "$${1:-}" = --fixed ] && there=0 gone=1
objects=$${OBJECTS:-$$PWD/../powercut-bisect}
work=$$(mktemp -d)
trap 'rm -rf "$$work"' EXIT

build() {
    make -s O="$$objects" ARCH=x86_64 "$$@" < /dev/null
}
mkdir -p "$$objects"
build KCONFIG_ALLCONFIG=$config allnoconfig && build -j"$$(nproc)" bzImage || exit 125

# 0: nothing was found; 1: something was, which may be another bug; else it could not run.
$powercut run $workload --fs $fs --repeat "$${RUNS:-$runs}" --points $points \\
    --profile $contract --target "qemu:$$objects/arch/x86/boot/bzImage" --dir "$$work/campaign" > /dev/null
[ $$? -le 1 ] || exit 125
if $powercut triage list --dir "$$work/campaign" --json 2> /dev/null | grep -qF $bucket; then
    exit $$there
fi
exit $$gone
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of each commit. Paths are absolute: git runs the script elsewhere."""

    finding: str
    bucket: str
    fs: str
    rate: Rate
    points: str
    contract: str
    workload: Path
    config: Path
    """What the kernel has to have, as KCONFIG_ALLCONFIG takes it."""
    powercut: Path
    script: Path
    """Where the script will be."""


def runs_for(rate: Rate) -> int:
    """Runs after which silence says that it is gone. InputError if it shows too seldom for that."""
    low = rate.lower_bound()
    runs = math.ceil(math.log(_FALSE_GOOD) / math.log(1 - low)) if 0 < low < 1 else 0
    if not 0 < runs <= MAX_RUNS:
        raise InputError(
            f"it was seen in {rate}: each commit would take more than {MAX_RUNS} runs",
            hint="measure the rate with `powercut triage repro ID --times 40`, or raise it with minimize",
        )
    return runs


def bisect_script(asked: Question) -> str:
    """The text of the script."""
    return _SCRIPT.substitute(
        finding=asked.finding,
        seen=str(asked.rate),
        runs=str(runs_for(asked.rate)),
        script=shlex.quote(str(asked.script)),
        config=shlex.quote(str(asked.config)),
        powercut=shlex.quote(str(asked.powercut)),
        workload=shlex.quote(str(asked.workload)),
        fs=asked.fs,
        points=shlex.quote(asked.points),
        contract=shlex.quote(asked.contract),
        bucket=shlex.quote(f'"bucket": "{asked.bucket}"'),
    )
