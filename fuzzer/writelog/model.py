"""WriteLog: the writes, flushes and marks that reached a device, in log order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

SECTOR_BYTES = 512


class Flag(IntFlag):
    """Entry flags as in the kernel's drivers/md/dm-log-writes.c."""

    FLUSH = 1
    FUA = 2
    DISCARD = 4
    MARK = 8
    METADATA = 16


# Arithmetic of IntFlag takes a microsecond a time, and these questions are asked of every entry.
_FLUSH, _MARK = int(Flag.FLUSH), int(Flag.MARK)
_NO_DATA = int(Flag.DISCARD | Flag.MARK)


@dataclass(frozen=True, slots=True)
class Entry:
    """One log entry. `offset` and `length` are bytes on the data device; `data` starts at byte
    `data_at` of the log file (writes only).

    `arrived_ns` and `done_ns` are when the request reached the recorder and when it was completed, on
    the workload's clock; both 0 where the recorder cannot know (device-mapper).
    """

    index: int
    flags: Flag
    offset: int = 0
    length: int = 0
    data_at: int = 0
    mark: str = ""
    arrived_ns: int = 0
    done_ns: int = 0

    @property
    def is_write(self) -> bool:
        return self.length > 0 and not int(self.flags) & _NO_DATA

    @property
    def is_flush(self) -> bool:
        return bool(int(self.flags) & _FLUSH)

    @property
    def is_mark(self) -> bool:
        return bool(int(self.flags) & _MARK)


MARK_MKFS = "mkfs"
"""Mark after mkfs: everything before it is the base every crash state has."""

MARK_END = "dm-log-writes-end"
"""Last entry of every complete log, as the kernel target writes it on removal."""

SYNC_MARK_PREFIX = "sync:"
"""The dm recorder's mark after a returned sync call: `sync:<op id>:<return time in ns>`."""
