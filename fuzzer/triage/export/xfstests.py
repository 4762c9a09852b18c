"""The exporter `xfstests`: a test of that suite and its golden output, to be given a free number.

Like the suite's own tests of this kind (generic/782 and 455): dm-flakey where everything the device had
completed is on disk, dm-log-writes over dm-thin where only what was flushed is.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator

from fuzzer.errors import InputError
from fuzzer.triage.export.check import plain
from fuzzer.triage.export.program import Method, Program
from fuzzer.triage.export.shell_blocks import actor_lines, setup_lines
from fuzzer.triage.export.shell_ops import Dialect

_NUMBER = "999"
_WIDTH = 78
_DIALECT = Dialect("$SCRATCH_MNT", "$tmp.", "$XFS_IO_PROG", "$BTRFS_UTIL_PROG", sync="_scratch_sync")

_FLAKEY_HEAD = """\
_cleanup()
{
	_cleanup_flakey
	cd /
	rm -r -f $tmp.*
}

. ./common/filter
. ./common/dmflakey
"""

_FLAKEY_START = """\
_scratch_mkfsMKFS >>$seqres.full 2>&1 || _fail "mkfs failed"
_require_metadata_journaling $SCRATCH_DEV
_init_flakey
_mount_flakey
"""

_LOG_HEAD = """\
_cleanup()
{
	_log_writes_cleanup &> /dev/null
	_dmthin_cleanup
	cd /
	rm -r -f $tmp.*
}

. ./common/filter
. ./common/dmthin
. ./common/dmlogwrites
"""

_LOG_START = """\
# Use thin device as replay device: its discards give zeroes where nothing was
# written yet.
devsize=$((1024*1024*SIZE / 512))	# SIZEm phys/virt size
csize=$((1024*64 / 512))		# 64k cluster size
lowspace=$((1024*1024 / 512))		# 1m low space threshold

_dmthin_init $devsize $devsize $csize $lowspace
_log_writes_init $DMTHIN_VOL_DEV
_log_writes_mkfsMKFS >>$seqres.full 2>&1
_log_writes_mount
"""

_LOG_END = """\
_log_writes_unmount
_log_writes_remove

# What was on the disk for sure when the call returned.
_log_writes_replay_log cut $DMTHIN_VOL_DEV
_dmthin_mount
"""

_PLAIN_HEAD = """\
. ./common/filter
"""

_PLAIN_START = """\
_scratch_mkfsMKFS >>$seqres.full 2>&1 || _fail "mkfs failed"
_scratch_mount
"""

_HEADS = {Method.COPY: _FLAKEY_HEAD, Method.LOG_WRITES: _LOG_HEAD}
_STARTS = {Method.COPY: _FLAKEY_START, Method.LOG_WRITES: _LOG_START}
_REQUIRES = {
    Method.COPY: ("_require_scratch", "_require_dm_target flakey"),
    Method.LOG_WRITES: (
        "_require_scratch_nocheck",
        "_require_no_logdev",
        "_require_log_writes",
        "_require_dm_target thin-pool",
    ),
}
_ENDS = {
    Method.COPY: "# Simulate a power failure and then mount again the filesystem to replay the\n"
    "# journal/log.\n_flakey_drop_and_remount\n",
    Method.LOG_WRITES: _LOG_END,
    Method.REMOUNT: "_scratch_cycle_mount\n",
    Method.NONE: "",
    Method.DROPPED: "_scratch_sync\necho 3 > /proc/sys/vm/drop_caches\n",
}

_NEEDS = {
    "clone": ("clone", "_require_scratch_reflink"),
    "dedupe": ("dedupe", "_require_scratch_dedupe"),
    "copy_range": ("copy_range", "_require_xfs_io_command copy_range"),
    "setxattr": ("attr", "_require_attrs user"),
    "chattr": ("", "_require_chattr aicC"),
    "snapshot": ("snapshot", ""),
    "balance": ("balance", ""),
    "freeze": ("freeze", "_require_freeze"),
    "rename": ("rename", ""),
}
_FALLOCATE = {
    "alloc": ("prealloc", "_require_xfs_io_command falloc"),
    "keep": ("prealloc", "_require_xfs_io_command falloc -k"),
    "punch": ("punch", "_require_xfs_io_command fpunch"),
    "zero": ("zero", "_require_xfs_io_command fzero"),
    "zero_keep": ("zero", "_require_xfs_io_command fzero -k"),
    "collapse": ("collapse", "_require_xfs_io_command fcollapse"),
    "insert": ("insert", "_require_xfs_io_command finsert"),
    "unshare": ("unshare", "_require_xfs_io_command funshare"),
}
"""Group and requirement of what not every file system can."""


def export_xfstests(program: Program) -> dict[str, str]:
    """`999` and `999.out`."""
    if not program.check.needs_mount:
        raise InputError(
            "a recovery that fails ends a test of this suite anyhow",
            hint="powercut triage export --format sh",
        )
    method, mkfs = program.method, program.workload.mkfs
    start = _STARTS.get(method, _PLAIN_START).replace("MKFS", f" {mkfs}" if mkfs else "")
    lines = [
        "#! /bin/bash",
        "# SPDX-License-Identifier: GPL-2.0",
        "#",
        f"# FS QA Test {_NUMBER}",
        "#",
        *_comment(program),
        "#",
        ". ./common/preamble",
        f"_begin_fstest {' '.join(_groups(program))}",
        "",
        _HEADS.get(method, _PLAIN_HEAD),
        *(f'[ "$FSTYP" = "{program.fs}" ] || _notrun "found on {program.fs}"',),
        *_REQUIRES.get(method, ("_require_scratch",)),
        *_requirements(program),
        "",
        *_mount_options(program),
        start.replace("SIZE", str(program.workload.size >> 20)),
        *setup_lines(program, _DIALECT, _cut(program)),
        "",
        *actor_lines(program, _DIALECT, _cut(program), "\t"),
        "",
        *([] if _is_cut(program) else ["_log_writes_mark cut", ""]),
        _ENDS[method],
        *_check(program),
        "",
        *(["_unmount_flakey", ""] if method is Method.COPY else []),
        'echo "Silence is golden"',
        "_exit 0",
    ]
    golden = f"QA output created by {_NUMBER}\nSilence is golden\n"
    return {_NUMBER: "\n".join(lines) + "\n", f"{_NUMBER}.out": golden}


def _comment(program: Program) -> Iterator[str]:
    for text in program.about:
        yield from (f"# {line}" for line in textwrap.wrap(plain(text), _WIDTH))


def _groups(program: Program) -> list[str]:
    extra = {group for group, _ in _wanted(program) if group}
    log = "log" if program.method in (Method.COPY, Method.LOG_WRITES) else "rw"
    return ["auto", "quick", log, *sorted(extra)]


def _requirements(program: Program) -> list[str]:
    return sorted({need for _, need in _wanted(program) if need})


def _wanted(program: Program) -> Iterator[tuple[str, str]]:
    for block in (program.setup, *program.actors):
        for step in block.steps:
            if step.op.name == "fallocate":
                yield _FALLOCATE[step.op.text("mode")]
            elif step.op.name in _NEEDS:
                yield _NEEDS[step.op.name]


def _mount_options(program: Program) -> list[str]:
    options = program.workload.mount
    return [f'export MOUNT_OPTIONS="-o {options}"', ""] if options else []


def _cut(program: Program) -> str:
    """What is done right after the op behind which power is cut. An actor that goes on must not write."""
    if program.method is Method.LOG_WRITES:
        return "_log_writes_mark cut"
    alone = len(program.actors) == 1 and program.actors[0].loop == 1
    return "" if alone or program.method is not Method.COPY else "_load_flakey_table $FLAKEY_DROP_WRITES"


def _is_cut(program: Program) -> bool:
    blocks = (program.setup, *program.actors)
    marked = any(step.cut is not None for block in blocks for step in block.steps)
    return marked or program.method is not Method.LOG_WRITES


def _check(program: Program) -> Iterator[str]:
    yield f"if {_DIALECT.fill(program.check.condition)}; then"
    yield f"\techo {shlex.quote(program.check.message)}"
    yield "fi"
