"""The log format, field by field against drivers/md/dm-log-writes.c, and what hostile bytes do to it.

`kernel_walk` is a second reader, written from the kernel's structs with nothing of ours.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzer.errors import InputError
from fuzzer.writelog.format import (
    Log,
    check_mark,
    concatenate,
    format_entry,
    format_super,
    parse_log,
    read_log,
    times_path,
    write_log,
)
from fuzzer.writelog.model import MARK_END, Flag

FLUSH, FUA, DISCARD, MARK, METADATA = 1, 2, 4, 8, 16


def kernel_walk(log: bytes) -> tuple[int, list[tuple[int, int, int, bytes, bytes]]]:
    """(sector size, [(flags, sector, nr_sectors, mark, data)]) as replay-log of fstests walks it."""
    magic, version, count, size = struct.unpack_from("<QQQI", log, 0)
    assert (magic, version) == (0x6A736677736872, 1)
    entries, at = [], size
    for _ in range(count):
        sector, nr_sectors, flags, data_len = struct.unpack_from("<QQQQ", log, at)
        mark = log[at + 32 : at + 32 + data_len] if flags == MARK else b""
        at += size
        length = 0 if flags & (DISCARD | MARK) else nr_sectors * size
        entries.append((flags, sector, nr_sectors, mark, log[at : at + length]))
        at += length
    return size, entries


def sample(sector_bytes: int = 512, *, end: bool = True, fill: int = 1) -> bytes:
    """A log with one entry of each kind."""
    pieces = [
        format_entry(0, 16, 2, sector_bytes=sector_bytes) + bytes([fill]) * (2 * sector_bytes),
        format_entry(FLUSH, sector_bytes=sector_bytes),
        format_entry(FUA | METADATA, 128, 1, sector_bytes=sector_bytes) + b"\xff" * sector_bytes,
        format_entry(DISCARD, 1 << 20, 1 << 10, sector_bytes=sector_bytes),
        format_entry(MARK, mark="sync:7:12", sector_bytes=sector_bytes),
    ]
    if end:
        pieces.append(format_entry(MARK, mark=MARK_END, sector_bytes=sector_bytes))
    return format_super(len(pieces), sector_bytes) + b"".join(pieces)


def summary(log: Log) -> list[tuple[int, int, int, str, bytes]]:
    return [(int(e.flags), e.offset, e.length, e.mark, bytes(log.payload(e))) for e in log.entries]


@pytest.mark.parametrize("size", [512, 4096])
def test_super_has_the_kernels_fields(size: int) -> None:
    raw = format_super(0x0102030405, size)
    assert len(raw) == size
    assert raw[0:8] == bytes([0x72, 0x68, 0x73, 0x77, 0x66, 0x73, 0x6A, 0x00])
    assert raw[8:16] == (1).to_bytes(8, "little")
    assert raw[16:24] == bytes([5, 4, 3, 2, 1, 0, 0, 0])
    assert raw[24:28] == size.to_bytes(4, "little")
    assert not any(raw[28:])


@pytest.mark.parametrize("size", [512, 4096])
def test_write_entry_has_the_kernels_fields(size: int) -> None:
    raw = format_entry(FUA | METADATA, 0x0102, 0x0304, sector_bytes=size)
    assert len(raw) == size
    assert raw[0:8] == bytes([2, 1, 0, 0, 0, 0, 0, 0])
    assert raw[8:16] == bytes([4, 3, 0, 0, 0, 0, 0, 0])
    assert raw[16:24] == bytes([18, 0, 0, 0, 0, 0, 0, 0])
    assert not any(raw[24:])


def test_flags_are_the_kernels() -> None:
    assert [int(flag) for flag in Flag] == [1, 2, 4, 8, 16]


def test_mark_entry_has_text_and_nul() -> None:
    raw = format_entry(MARK, mark=MARK_END)
    assert raw[0:16] == bytes(16)
    assert struct.unpack_from("<QQ", raw, 16) == (8, 17)
    assert raw[32:50] == b"dm-log-writes-end\0"
    assert not any(raw[49:])


def test_longest_mark_leaves_room_for_its_nul() -> None:
    assert format_entry(MARK, mark="m" * (512 - 32 - 1))[-1] == 0
    with pytest.raises(InputError):
        format_entry(MARK, mark="m" * (512 - 32))


@pytest.mark.parametrize("text", ["", "two words", "tab\t", "nul\0", "back\\slash", "m" * 480])
def test_marks_the_kernel_would_not_take_as_one_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        check_mark(text)


@pytest.mark.parametrize("size", [512, 4096])
def test_reader_agrees_with_the_independent_one(size: int) -> None:
    raw = sample(size)
    log = parse_log(raw)
    walked_size, walked = kernel_walk(raw)
    assert log.sector_bytes == walked_size == size
    assert summary(log) == [
        (flags, sector * size, count * size, mark.decode(), data)
        for flags, sector, count, mark, data in walked
    ]
    assert log.size_bytes == len(raw)
    assert log.is_complete
    assert [entry.index for entry in log.entries] == list(range(6))
    assert not log.timed


def test_units_are_bytes_for_us_and_sectors_on_disk() -> None:
    write = parse_log(sample(4096)).entries[0]
    assert (write.offset, write.length) == (16 * 4096, 2 * 4096)


def test_entries_behind_nr_entries_are_left_alone() -> None:
    raw = bytearray(sample())
    raw[16:24] = struct.pack("<Q", 2)
    log = parse_log(bytes(raw))
    assert len(log.entries) == 2
    assert not log.is_complete


def _patched(offset: int, value: bytes) -> bytes:
    raw = bytearray(sample())
    raw[offset : offset + len(value)] = value
    return bytes(raw)


# Where the sample's entries are, at 512-byte sectors: the write's header at 512, the flush's at 2048,
# the FUA write's at 2560, the discard's at 3584, the marks' at 4096 and 4608.
REFUSALS = [
    (b"", 0, "too short"),
    (b"x" * 27, 0, "too short"),
    (format_super(0)[:28], 0, "inside the super"),
    (_patched(0, b"\0"), 0, "not a dm-log-writes log"),
    (_patched(8, b"\2"), 8, "version"),
    (_patched(24, struct.pack("<I", 513)), 24, "sector size"),
    (_patched(24, struct.pack("<I", 256)), 24, "sector size"),
    (_patched(24, struct.pack("<I", 1 << 17)), 24, "sector size"),
    (_patched(16, struct.pack("<Q", 1 << 60)), 16, "entries"),
    (_patched(16, struct.pack("<Q", 7)), 5120, "inside entry 6"),
    (sample()[:-1], 4608, "inside entry 5"),
    (format_super(1) + sample()[512:2047], 520, "inside the 1024 bytes"),
    (_patched(512, struct.pack("<Q", 1 << 63)), 512, "of the device"),
    (_patched(520, struct.pack("<Q", 1 << 63)), 512, "of the device"),
    (_patched(520, struct.pack("<Q", 1 << 20)), 520, "inside the 536870912 bytes"),
    (_patched(520, bytes(8)), 520, "empty and no flush"),
    (_patched(528, struct.pack("<Q", 32)), 528, "unknown flags"),
    (_patched(536, b"\1"), 536, "bytes of data"),
    (_patched(544, b"m"), 544, "no mark"),
    (_patched(3592, bytes(8)), 3592, "empty and no flush"),
    (_patched(4096, b"\1"), 4096, "flags or a place"),
    (_patched(4104, b"\1"), 4096, "flags or a place"),
    (_patched(4112, b"\x0a"), 4096, "flags or a place"),
    (_patched(4120, struct.pack("<Q", 480)), 4120, "does not fit"),
    (_patched(4120, struct.pack("<Q", 1 << 63)), 4120, "does not fit"),
    (_patched(4120, b"\3"), 4131, "behind a mark"),
    (_patched(4128, b"\0"), 4128, "printable"),
    (_patched(4128, b"\xff"), 4128, "printable"),
    (_patched(4128, b"\x1b"), 4128, "printable"),
]


@pytest.mark.parametrize(("raw", "offset", "message"), REFUSALS)
def test_damage_is_refused_with_its_place(tmp_path: Path, raw: bytes, offset: int, message: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=message) as caught:
        read_log(path)
    assert caught.value.place == f"{path}:{offset}"


def test_the_unpatched_sample_is_fine(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(sample())
    assert len(read_log(tmp_path / "log").entries) == 6


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_is_no_readable_file_is_bad_input(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        read_log(tmp_path / name)


Patch = st.tuples(st.integers(0, len(sample()) + 64), st.binary(min_size=1, max_size=9))
FIELDS = st.sampled_from(
    [0, 8, 16, 24, *(at + field for at in (512, 2048, 4096) for field in (0, 8, 16, 24))]
)
NUMBERS = st.one_of(
    st.integers(0, (1 << 64) - 1), st.sampled_from([0, 1, 2, 8, 9, 512, 4096, 1 << 32, 1 << 63])
)
FIELD_PATCH = st.tuples(FIELDS, NUMBERS.map(lambda number: struct.pack("<Q", number)))


@given(st.lists(st.one_of(Patch, FIELD_PATCH), min_size=1, max_size=6), st.integers(0, len(sample())))
def test_mutated_logs_give_a_log_or_an_input_error(patches: list[tuple[int, bytes]], cut: int) -> None:
    raw = bytearray(sample())
    for offset, value in patches:
        raw[offset : offset + len(value)] = value
    for candidate in (bytes(raw), bytes(raw[:cut])):
        try:
            log = parse_log(candidate)
        except InputError:
            continue
        for entry in log.entries:
            assert len(log.payload(entry)) == (entry.length if entry.is_write else 0)
        assert log.size_bytes <= len(candidate)


@given(st.binary(max_size=2000))
def test_arbitrary_bytes_behind_a_good_super(tail: bytes) -> None:
    with suppress(InputError):
        parse_log(format_super(3) + tail)


def test_times_are_picked_up(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(sample())
    times_path(path).write_bytes(struct.pack("<12Q", *range(100, 112)))
    log = read_log(path)
    assert log.timed
    assert [(e.arrived_ns, e.done_ns) for e in log.entries] == [(n, n + 1) for n in range(100, 112, 2)]
    assert [e.mark for e in log.entries][4:] == ["sync:7:12", MARK_END]


@pytest.mark.parametrize("size", [0, 8, 80, 95, 97, 112])
def test_times_of_another_length_are_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(sample())
    times_path(path).write_bytes(bytes(size))
    with pytest.raises(InputError, match="times of 6 entries") as caught:
        read_log(path)
    assert caught.value.place == f"{times_path(path)}:0"


def test_concatenated_logs_are_one_with_one_end(tmp_path: Path) -> None:
    first, second = tmp_path / "mkfs", tmp_path / "run"
    first.write_bytes(sample(fill=1))
    second.write_bytes(sample(fill=2))
    times_path(second).write_bytes(struct.pack("<12Q", *range(12)))
    logs = [read_log(first), read_log(second)]
    concatenate(tmp_path / "both", logs)
    both = read_log(tmp_path / "both")
    assert summary(both) == summary(logs[0])[:-1] + summary(logs[1])
    assert [entry.index for entry in both.entries] == list(range(11))
    assert [e.done_ns for e in both.entries] == [0, 0, 0, 0, 0, 1, 3, 5, 7, 9, 9]
    assert both.timed
    assert len(kernel_walk((tmp_path / "both").read_bytes())[1]) == 11


def test_a_part_of_an_unfinished_log_becomes_complete(tmp_path: Path) -> None:
    log = parse_log(sample(end=False))
    times_path(tmp_path / "part").write_bytes(b"of an older log")
    write_log(tmp_path / "part", [(log, log.entries[:2])])
    part = read_log(tmp_path / "part")
    assert summary(part) == [*summary(log)[:2], (MARK, 0, 0, MARK_END, b"")]
    assert part.is_complete
    assert not part.timed


def test_logs_of_different_sector_sizes_do_not_join(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sector sizes"):
        concatenate(tmp_path / "both", [parse_log(sample(512)), parse_log(sample(4096))])
