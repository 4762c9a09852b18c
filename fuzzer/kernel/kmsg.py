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


_FS_FUNCTION = re.compile(r"\b(btrfs|xfs)_\w+\+0x")
_ANY_DEVICE = re.compile(r"(?<![\w-])(?:loop|dm-)\d+")
_TROUBLE = re.compile(
    r"\[ cut here \]|\bBUG: |\bWARNING: |\bOops\b|general protection fault|kernel panic|INFO: task .* blocked"
    r"|INFO: rcu|Call Trace|possible .*deadlock",
    re.IGNORECASE,
)
_WITHOUT_TRACE = re.compile(r"INFO: |Call Trace|possible .*deadlock|WARNING: possible", re.IGNORECASE)
_END = re.compile(r"---\[ end trace|^=+$|Kernel Offset:")
_END_OF_STACK = re.compile(r"</TASK>|---\[ end trace")
_MAX_BLOCK_LINES = 200


def lines_of_device(lines: Sequence[str], devices: Collection[str], fs: str = "") -> list[str]:
    """The lines that name one of `devices` (as `loop101`), and trouble that names no device at all.

    A warning or oops is kept or dropped as one block, from "cut here" to "end trace": it belongs to
    someone else only if it names devices and none of ours, or functions of another file system and
    none of `fs`.
    """
    ours = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, devices))})(?!\d)")
    kept: list[str] = []
    for block in _blocks(lines):
        named = any(ours.search(line) for line in block)
        foreign = any(_names_other(line, ours) for line in block) or _is_of_other_fs(block, fs)
        if named or (_TROUBLE.search(block[0]) and not foreign):
            # Lines of other devices are printed in between, by other CPUs.
            kept += [line for line in block if not _names_other(line, ours)]
    return kept


def _is_of_other_fs(block: Sequence[str], fs: str) -> bool:
    found = {name for line in block for name in _FS_FUNCTION.findall(line)}
    return bool(fs) and bool(found) and fs not in found


def _names_other(line: str, ours: re.Pattern[str]) -> bool:
    return bool(_ANY_DEVICE.search(line)) and not ours.search(line)


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Cut into blocks: trouble up to its end mark, everything else line by line."""
    block: list[str] = []
    end = _END
    for line in lines:
        if not block and not _TROUBLE.search(line):
            yield [line]
            continue
        if not block:
            end = _END_OF_STACK if _WITHOUT_TRACE.search(line) else _END
        block.append(line)
        if end.search(line) or len(block) == _MAX_BLOCK_LINES:
            yield block
            block = []
    if block:
        yield block
