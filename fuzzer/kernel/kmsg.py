"""The kernel log: reading /dev/kmsg, and picking the lines that are about one device."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

_RECORD_BYTES = 16 << 10
"""A read with a buffer smaller than the record (up to 8 KiB) fails with EINVAL."""

_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(slots=True)
class KernelLog:
    """A position in the kernel log. `lost` counts records overwritten before we read them."""

    _fd: int
    lost: int = 0
    _next: int = 0

    @staticmethod
    @contextmanager
    def open() -> Iterator[KernelLog]:
        """Open at the end of the log: what is there already is not ours."""
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            log = KernelLog(fd)
            log.skip()
            yield log
        finally:
            os.close(fd)

    def skip(self) -> None:
        """Forget everything up to now."""
        os.lseek(self._fd, 0, os.SEEK_END)
        self._next = 0

    def read(self) -> list[str]:
        """The kernel's lines since the last `read` or `skip`; never blocks."""
        lines: list[str] = []
        while True:
            try:
                record = os.read(self._fd, _RECORD_BYTES)
            except BlockingIOError:
                return lines
            except BrokenPipeError:
                # Overrun: the next read continues at the oldest record, the gap shows in its number.
                continue
            sequence, found = parse_record(record.decode(errors="replace"))
            self.lost += max(0, sequence - self._next) if self._next else 0
            self._next = sequence + 1
            lines += found


def parse_record(record: str) -> tuple[int, list[str]]:
    """(sequence number, text lines) of one record; no lines if user space wrote it.

    Format: Documentation/ABI/testing/dev-kmsg. The dictionary lines after the text are left out.
    """
    head, _, rest = record.partition(";")
    priority, sequence = head.split(",")[:2]
    if int(priority) >> 3:
        return int(sequence), []
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), rest.split("\n", 1)[0])
    return int(sequence), text.split("\n")


# Whose lines are they? Several file systems are used at once on this machine, by us and by others, and
# what the kernel prints when it is in trouble seldom names a device. In this order:
#  1. a block that names processes of runs (workarea.process_name) belongs to those runs, nobody else;
#  2. one that names devices belongs to their users ("Workqueue: xfs-conv/loop101" does);
#  3. one with functions of another file system is not ours;
#  4. what is left, as a kernel thread of btrfs, is given to everyone who looks: a bug seen twice, under
#     one title and so in one bucket, is better than a bug that is lost.

_FS_FUNCTION = re.compile(r"\b(btrfs|xfs)_\w+\+0x")
_ANY_DEVICE = re.compile(r"(?<![\w-])(?:loop|dm-)\d+")
_ANY_RUN = re.compile(r"(?<![\w-])pc-[0-9a-f]{8}\b")
_TROUBLE = re.compile(
    r"\[ cut here \]|\bBUG: |\bWARNING: |\bOops\b|general protection fault|kernel panic|INFO: task .* blocked"
    r"|INFO: rcu|Call Trace|possible .*deadlock|\bUBSAN: ",
    re.IGNORECASE,
)
_WITHOUT_TRACE = re.compile(
    r"INFO: |Call Trace|possible .*deadlock|WARNING: possible|suspicious RCU|soft lockup", re.IGNORECASE
)
_END = re.compile(r"---\[ end trace|^=+$|Kernel Offset:")
_END_OF_STACK = re.compile(r"</TASK>|---\[ end trace")
_HEX_DUMP = re.compile(r"^[0-9a-f]{8,16}: (?:[0-9a-f]{2} ){4}")
_STACK_HEAD = re.compile(r"^(?:CPU: \d+ .*PID: |Hardware name:|Workqueue:|Tainted:)")
"""What dump_stack() prints before "Call Trace:", where there is no "cut here": xfs_corruption_error()."""
_MAX_BLOCK_LINES = 200


def lines_of_device(
    lines: Sequence[str], devices: Collection[str], fs: str = "", process: str = ""
) -> list[str]:
    """The lines about one of `devices` (as `loop101`), and trouble that may be its user's.

    A warning or oops is kept or dropped as one block, from "cut here" to "end trace"; hex dumps and
    stacks belong to the line before them. `process` is the command name of our run, `fs` the file
    system on the devices; what a block without a device has to do with us is decided by them.
    """
    ours = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, devices))})(?!\d)")
    kept: list[str] = []
    for block in _blocks(lines):
        if _is_kept(block, ours, fs, process):
            # Lines of other devices are printed in between, by other CPUs.
            kept += [line for line in block if not _names_other(line, ours)]
        else:
            kept += [line for line in block if ours.search(line)]
    return kept


def _is_kept(block: Sequence[str], ours: re.Pattern[str], fs: str, process: str) -> bool:
    runs = {name for line in block for name in _ANY_RUN.findall(line)}
    if process and runs:
        return process in runs
    if any(ours.search(line) for line in block):
        return True
    foreign = any(_names_other(line, ours) for line in block) or _is_of_other_fs(block, fs)
    return bool(_TROUBLE.search(block[0])) and not foreign


def _is_of_other_fs(block: Sequence[str], fs: str) -> bool:
    found = {name for line in block for name in _FS_FUNCTION.findall(line)}
    return bool(fs) and bool(found) and fs not in found


def _names_other(line: str, ours: re.Pattern[str]) -> bool:
    return bool(_ANY_DEVICE.search(line)) and not ours.search(line)


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Cut into blocks: trouble up to its end mark, everything else line by line."""
    block: list[str] = []
    end: re.Pattern[str] | None = None
    for line in lines:
        if end is None and block and _continues(line):
            block.append(line)
            end = _END_OF_STACK if line.startswith("Call Trace") else None
            continue
        if end is None:
            if block:
                yield block
            block = [line]
            if _TROUBLE.search(line):
                end = _END_OF_STACK if _WITHOUT_TRACE.search(line) else _END
            continue
        block.append(line)
        if end.search(line) or len(block) == _MAX_BLOCK_LINES:
            yield block
            block, end = [], None
    if block:
        yield block


def _continues(line: str) -> bool:
    """A line that says nothing without the one before it."""
    return bool(_HEX_DUMP.match(line) or _STACK_HEAD.match(line)) or line.startswith("Call Trace")
