"""The dm-log-writes log, version 1: the bytes of it, a reader that trusts nothing, a writer.

Layout after drivers/md/dm-log-writes.c of the kernel. Everything is little endian and in sectors of
the logged device: one sector with `struct log_write_super`, then per entry one sector with `struct
log_write_entry` (a mark's text behind it) and the written data. Marks, flushes without data and
discards have no data. The only way to entry n is through all entries before it.

Beside a log our FUSE recorder leaves `<log>.times`: per entry two u64, when the request arrived and
when it was done, in CLOCK_MONOTONIC ns.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fuzzer.errors import InputError
from fuzzer.writelog.model import MARK_END, SECTOR_BYTES, Entry, Flag

MAGIC = 0x6A736677736872
VERSION = 1
MAX_SECTOR_BYTES = 64 << 10
MAX_DEVICE_BYTES = 1 << 44
"""Ends beyond 16 TiB are taken for damage: no image of ours is that large."""
MAX_ENTRIES = 1 << 22
"""A longer log is refused, so that a hostile one cannot eat the memory."""

_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_TIMES = struct.Struct("<QQ")
_ALL_FLAGS = sum(Flag)

Bytes = bytes | mmap.mmap


def format_super(nr_entries: int, sector_bytes: int = SECTOR_BYTES) -> bytes:
    """The first sector of a log."""
    return _SUPER.pack(MAGIC, VERSION, nr_entries, sector_bytes).ljust(sector_bytes, b"\0")


def format_entry(
    flags: int, sector: int = 0, nr_sectors: int = 0, mark: str = "", sector_bytes: int = SECTOR_BYTES
) -> bytes:
    """The header sector of an entry; `sector` and `nr_sectors` count sectors of `sector_bytes`."""
    text = mark.encode() if flags & Flag.MARK else b""
    if len(text) >= sector_bytes - _ENTRY.size:
        raise InputError(f"a mark of {len(text)} bytes does not fit a sector of {sector_bytes}")
    return (_ENTRY.pack(sector, nr_sectors, flags, len(text)) + text).ljust(sector_bytes, b"\0")


def check_mark(text: str) -> str:
    """Return `text` if the kernel's `mark` message takes it: one printable word, with room for its NUL."""
    if not text.isprintable() or not text or " " in text or "\\" in text:
        raise InputError(f"mark {text!r} is not one printable word")
    if len(text.encode()) >= SECTOR_BYTES - _ENTRY.size:
        raise InputError(f"a mark of {len(text)} characters does not fit a sector")
    return text


def times_path(log: Path) -> Path:
    """Where the times of the entries of `log` are kept."""
    return log.with_name(log.name + ".times")


@dataclass(frozen=True, slots=True)
class Log:
    """A log that was read. `timed` says that its entries carry arrival and completion times.

    `size_bytes` is where the last entry ends in the file. The file stays mapped, and must not be
    changed, as long as this object or a payload of it lives.
    """

    sector_bytes: int
    entries: tuple[Entry, ...]
    timed: bool
    size_bytes: int
    _bytes: Bytes

    def payload(self, entry: Entry) -> memoryview:
        """The data of a write; empty for everything else."""
        length = entry.length if entry.is_write else 0
        return memoryview(self._bytes)[entry.data_at : entry.data_at + length].toreadonly()

    @property
    def is_complete(self) -> bool:
        """Whether the recording ended in good order, with the kernel's end mark."""
        return bool(self.entries) and self.entries[-1].mark == MARK_END


def read_log(path: Path, *, mapped: bool = True) -> Log:
    """Read the log at `path`, and its times if there are any; into memory if not `mapped`.

    Raises InputError, with file and byte offset, on anything a recorder cannot have written. More
    data behind the last entry is no error: the kernel rewrites the super only now and then.
    """
    data = _map(path)
    log = parse_log(data if mapped else data[:], str(path))
    times = times_path(path)
    if not times.exists():
        return log
    entries = _with_times(log.entries, _map(times), str(times))
    return Log(log.sector_bytes, entries, True, log.size_bytes, log._bytes)


def parse_log(data: Bytes, name: str = "<log>") -> Log:
    """The log in `data`; `name` is what errors call it."""
    if len(data) < _SUPER.size:
        _refuse(name, 0, f"{len(data)} bytes are too short for a dm-log-writes log")
    magic, version, nr_entries, sector_bytes = _SUPER.unpack_from(data)
    if magic != MAGIC:
        _refuse(name, 0, "not a dm-log-writes log")
    if version != VERSION:
        _refuse(name, 8, f"log version {version} is not {VERSION}")
    if not SECTOR_BYTES <= sector_bytes <= MAX_SECTOR_BYTES or sector_bytes & (sector_bytes - 1):
        _refuse(name, 24, f"sector size {sector_bytes} is not a power of two from 512 to 65536")
    if nr_entries > min(MAX_ENTRIES, len(data) // sector_bytes):
        _refuse(name, 16, f"{nr_entries} entries cannot be in {len(data)} bytes")
    entries: list[Entry] = []
    at = sector_bytes
    for index in range(nr_entries):
        entry = _Header(data, name, at, sector_bytes).entry(index)
        entries.append(entry)
        at = entry.data_at + (entry.length if entry.is_write else 0)
    return Log(sector_bytes, tuple(entries), False, at, data)


@dataclass(frozen=True, slots=True)
class _Header:
    """The header sector at byte `at` of a log."""

    data: Bytes
    name: str
    at: int
    sector_bytes: int

    def entry(self, index: int) -> Entry:
        """Decode and check it, and that its payload is in the file."""
        data_at = self.at + self.sector_bytes
        if data_at > len(self.data):
            self.refuse(0, f"the file ends inside entry {index}")
        sector, nr_sectors, flags, data_len = _ENTRY.unpack_from(self.data, self.at)
        if flags & ~_ALL_FLAGS:
            self.refuse(16, f"entry {index} has unknown flags {flags:#x}")
        offset, length = sector * self.sector_bytes, nr_sectors * self.sector_bytes
        if flags & Flag.MARK:
            mark = self.mark(sector, nr_sectors, flags, data_len)
            return Entry(index, Flag.MARK, data_at=data_at, mark=mark)
        if self.data[self.at + _ENTRY.size]:
            self.refuse(_ENTRY.size, f"entry {index} is no mark and has a text")
        if offset + length > MAX_DEVICE_BYTES:
            self.refuse(0, f"entry {index} ends at byte {offset + length} of the device")
        if length == 0 and (not flags & Flag.FLUSH or flags & Flag.DISCARD):
            self.refuse(8, f"entry {index} is empty and no flush")
        # Only the log of a DAX device fills data_len here, and then with the length.
        if data_len not in (0, length):
            self.refuse(24, f"entry {index} has {data_len} bytes of data for {length}")
        entry = Entry(index, Flag(flags), offset, length, data_at)
        if entry.is_write and data_at + length > len(self.data):
            self.refuse(8, f"the file ends inside the {length} bytes of entry {index}")
        return entry

    def mark(self, sector: int, nr_sectors: int, flags: int, data_len: int) -> str:
        if flags != Flag.MARK or sector or nr_sectors:
            self.refuse(0, "a mark has other flags or a place")
        room = self.sector_bytes - _ENTRY.size
        if data_len >= room:
            self.refuse(24, f"a mark text of {data_len} bytes does not fit its sector")
        start = self.at + _ENTRY.size
        raw = bytes(self.data[start : start + data_len])
        if any(self.data[start + data_len : start + room]):
            self.refuse(_ENTRY.size + data_len, "bytes behind a mark text")
        text = raw.decode(errors="replace")
        if not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
            self.refuse(_ENTRY.size, "a mark text is not printable UTF-8")
        return text

    def refuse(self, field: int, message: str) -> NoReturn:
        _refuse(self.name, self.at + field, message)


def _refuse(name: str, offset: int, message: str) -> NoReturn:
    raise InputError(message, place=f"{name}:{offset}")


def _map(path: Path) -> Bytes:
    """The bytes of a file, mapped and not read; mmap(2) does not take an empty one."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", place=f"{path}:0") from error


def _with_times(entries: Sequence[Entry], times: Bytes, name: str) -> tuple[Entry, ...]:
    if len(times) != len(entries) * _TIMES.size:
        _refuse(name, 0, f"{len(times)} bytes are not the times of {len(entries)} entries")
    # dataclasses.replace is several times slower, and logs have many entries.
    return tuple(
        Entry(entry.index, entry.flags, entry.offset, entry.length, entry.data_at, entry.mark, *pair)
        for entry, pair in zip(entries, _TIMES.iter_unpack(times[:]), strict=True)
    )


def write_log(path: Path, pieces: Sequence[tuple[Log, Sequence[Entry]]]) -> None:
    """Write the given entries of the given logs, in this order, as one complete log to `path`.

    End marks are left out and one is put at the end. Times are written if any of the logs has them
    (0 for entries without), else an old times file is removed. Raises InputError if the logs disagree
    on their sector size.
    """
    sizes = {log.sector_bytes for log, _ in pieces} or {SECTOR_BYTES}
    if len(sizes) > 1:
        raise InputError(f"logs of different sector sizes {sorted(sizes)} cannot be joined")
    sector_bytes = sizes.pop()
    times = bytearray()
    done_ns = 0
    with path.open("wb") as file:
        file.seek(sector_bytes)
        for log, entries in pieces:
            for entry in entries:
                if entry.mark == MARK_END:
                    continue
                file.write(_header_of(entry, sector_bytes))
                file.write(log.payload(entry))
                times += _TIMES.pack(entry.arrived_ns, entry.done_ns)
                done_ns = max(done_ns, entry.done_ns)
        file.write(format_entry(Flag.MARK, mark=MARK_END, sector_bytes=sector_bytes))
        times += _TIMES.pack(done_ns, done_ns)
        file.seek(0)
        file.write(format_super(len(times) // _TIMES.size, sector_bytes))
    if any(log.timed for log, _ in pieces):
        times_path(path).write_bytes(times)
    else:
        times_path(path).unlink(missing_ok=True)


def concatenate(path: Path, logs: Sequence[Log]) -> None:
    """Join whole logs, such as that of mkfs and that of a run, into one; see `write_log`."""
    write_log(path, [(log, log.entries) for log in logs])


def _header_of(entry: Entry, sector_bytes: int) -> bytes:
    sector, nr_sectors = entry.offset // sector_bytes, entry.length // sector_bytes
    return format_entry(entry.flags, sector, nr_sectors, entry.mark, sector_bytes)
