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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import xxhash

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
_PADDING = bytes(SECTOR_BYTES - _ENTRY.size)
_TIMES_SUFFIX = ".times"
_FLAGS = tuple(Flag(value) for value in range(sum(Flag) + 1))
"""All combinations. Making one, like any arithmetic with them, is slow; below it is done on plain numbers."""
_FLUSH, _DISCARD, _MARK = int(Flag.FLUSH), int(Flag.DISCARD), int(Flag.MARK)
_NO_TIMES = (0, 0)
_COPY_BYTES = 16 << 10
_HOLE_BYTES = 64 << 10
"""Shorter payloads are written as they are: looking would cost more than it saves."""

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


def format_write(sector: int, nr_sectors: int) -> bytes:
    """`format_entry` for plain writes: recorders make one for every write, and time is short there."""
    return _ENTRY.pack(sector, nr_sectors, 0, 0) + _PADDING


def check_mark(text: str) -> str:
    """Return `text` if the kernel's `mark` message takes it: one printable word, with room for its NUL."""
    if not text.isprintable() or not text or " " in text or "\\" in text:
        raise InputError(f"mark {text!r} is not one printable word")
    if len(text.encode()) >= SECTOR_BYTES - _ENTRY.size:
        raise InputError(f"a mark of {len(text)} characters does not fit a sector")
    return text


def times_path(log: Path) -> Path:
    """Where the times of the entries of `log` are kept."""
    return log.with_name(log.name + _TIMES_SUFFIX)


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

    That memory is shared with children: a fork copies nothing of it, whatever its size, and blocks of
    zeroes (most of what mkfs writes) take none.

    Raises InputError, with file and byte offset, on anything a recorder cannot have written. More
    data behind the last entry is no error: the kernel rewrites the super only now and then.
    """
    data, beside = _map(path), times_path(path)
    times = _map(beside)[:] if beside.exists() else None
    return parse_log(data if mapped else _copy(data), str(path), times)


def parse_log(data: Bytes, name: str = "<log>", times: bytes | None = None) -> Log:
    """The log in `data`, with `times` if it has them; `name` is what errors call it."""
    if len(data) < _SUPER.size:
        _refuse(name, 0, f"{len(data)} bytes are too short for a dm-log-writes log")
    magic, version, nr_entries, sector_bytes = _SUPER.unpack_from(data)
    if magic != MAGIC:
        _refuse(name, 0, "not a dm-log-writes log")
    if version != VERSION:
        _refuse(name, 8, f"log version {version} is not {VERSION}")
    if not SECTOR_BYTES <= sector_bytes <= MAX_SECTOR_BYTES or sector_bytes & (sector_bytes - 1):
        _refuse(name, 24, f"sector size {sector_bytes} is not a power of two from 512 to 65536")
    if len(data) < sector_bytes:
        _refuse(name, 0, "the file ends inside the super")
    if nr_entries > min(MAX_ENTRIES, len(data) // sector_bytes):
        _refuse(name, 16, f"{nr_entries} entries cannot be in {len(data)} bytes")
    pairs = repeat(_NO_TIMES, nr_entries) if times is None else _pairs(times, nr_entries, name)
    entries: list[Entry] = []
    at = sector_bytes
    walk = _Walk(data, name, sector_bytes)
    for index, pair in enumerate(pairs):
        entry, at = walk.entry(index, at, pair)
        entries.append(entry)
    return Log(sector_bytes, tuple(entries), times is not None, at, data)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Decodes and checks the entries of a log."""

    data: Bytes
    name: str
    sector_bytes: int

    def entry(self, index: int, at: int, times: tuple[int, int]) -> tuple[Entry, int]:
        """The entry whose header is at byte `at`, and where the next one is."""
        data_at = at + self.sector_bytes
        if data_at > len(self.data):
            self.refuse(at, f"the file ends inside entry {index}")
        sector, nr_sectors, flags, data_len = _ENTRY.unpack_from(self.data, at)
        if flags >= len(_FLAGS):
            self.refuse(at + 16, f"entry {index} has unknown flags {flags:#x}")
        if flags & _MARK:
            mark = self.mark(at, sector, nr_sectors, flags, data_len)
            return Entry(index, _FLAGS[flags], 0, 0, data_at, mark, *times), data_at
        offset, length = sector * self.sector_bytes, nr_sectors * self.sector_bytes
        self.check(index, at, offset, length, flags, data_len)
        end = data_at if flags & _DISCARD else data_at + length
        if end > len(self.data):
            self.refuse(at + 8, f"the file ends inside the {length} bytes of entry {index}")
        return Entry(index, _FLAGS[flags], offset, length, data_at, "", *times), end

    def check(self, index: int, at: int, offset: int, length: int, flags: int, data_len: int) -> None:
        """Refuse what makes no sense in an entry that is no mark."""
        if self.data[at + _ENTRY.size]:
            self.refuse(at + _ENTRY.size, f"entry {index} is no mark and has a text")
        if offset + length > MAX_DEVICE_BYTES:
            self.refuse(at, f"entry {index} ends at byte {offset + length} of the device")
        if length == 0 and (not flags & _FLUSH or flags & _DISCARD):
            self.refuse(at + 8, f"entry {index} is empty and no flush")
        # Only the log of a DAX device fills data_len here, and then with the length.
        if data_len not in (0, length):
            self.refuse(at + 24, f"entry {index} has {data_len} bytes of data for {length}")

    def mark(self, at: int, sector: int, nr_sectors: int, flags: int, data_len: int) -> str:
        if flags != _MARK or sector or nr_sectors:
            self.refuse(at, "a mark has other flags or a place")
        start, end = at + _ENTRY.size, at + self.sector_bytes
        if data_len >= end - start:
            self.refuse(at + 24, f"a mark text of {data_len} bytes does not fit its sector")
        if any(self.data[start + data_len : end]):
            self.refuse(start + data_len, "bytes behind a mark text")
        text = bytes(self.data[start : start + data_len]).decode(errors="replace")
        if not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
            self.refuse(start, "a mark text is not printable UTF-8")
        return text

    def refuse(self, offset: int, message: str) -> NoReturn:
        _refuse(self.name, offset, message)


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


def _copy(data: Bytes) -> Bytes:
    """`data` in anonymous shared memory, which is zero where nothing was written."""
    if not data:
        return b""
    copy, zeroes = mmap.mmap(-1, len(data)), bytes(_COPY_BYTES)
    for at in range(0, len(data), _COPY_BYTES):
        piece = data[at : at + _COPY_BYTES]
        if piece != zeroes:
            copy[at : at + len(piece)] = piece
    return copy


def _pairs(times: bytes, nr_entries: int, name: str) -> Iterator[tuple[int, int]]:
    if len(times) != nr_entries * _TIMES.size:
        _refuse(f"{name}{_TIMES_SUFFIX}", 0, f"{len(times)} bytes are not the times of {nr_entries} entries")
    yield from _TIMES.iter_unpack(times)


def _write_sparse(file: BinaryIO, payload: memoryview) -> None:
    """Write a payload, leaving a hole where it is zeroes: most of what mkfs.xfs writes is."""
    if len(payload) >= _HOLE_BYTES and not np.frombuffer(payload, dtype=np.uint8).any():
        file.seek(len(payload), os.SEEK_CUR)
    else:
        file.write(payload)


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
                _write_sparse(file, log.payload(entry))
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


def log_digest(log: Log) -> str:
    """A name for what a log says: the same entries with the same data, whenever they were written."""
    state = xxhash.xxh3_128()
    for entry in log.entries:
        state.update(_header_of(entry, log.sector_bytes))
        state.update(log.payload(entry))
    return state.hexdigest()


def concatenate(path: Path, logs: Sequence[Log]) -> None:
    """Join whole logs, such as that of mkfs and that of a run, into one; see `write_log`."""
    write_log(path, [(log, log.entries) for log in logs])


def _header_of(entry: Entry, sector_bytes: int) -> bytes:
    sector, nr_sectors = entry.offset // sector_bytes, entry.length // sector_bytes
    return format_entry(entry.flags, sector, nr_sectors, entry.mark, sector_bytes)
