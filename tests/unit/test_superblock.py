"""Which file system an image holds, and when a log committed its transactions."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fuzzer.writelog.image import Image
from fuzzer.writelog.model import Entry, Flag
from fuzzer.writelog.superblock import Superblock, btrfs_commits, find_superblock

_SIZE = 1 << 20


def test_btrfs_says_its_bytes() -> None:
    image = Image(_SIZE)
    image.write(65536 + 64, b"_BHRfS_M")
    image.write(65536 + 112, struct.pack("<Q", 320 << 20))
    assert find_superblock(image) == Superblock("btrfs", 320 << 20)


def test_xfs_says_its_blocks() -> None:
    image = Image(_SIZE)
    image.write(0, b"XFSB" + struct.pack(">IQ", 4096, 1000))
    assert find_superblock(image) == Superblock("xfs", 4096 * 1000)


def test_nothing_is_found_in_zeroes_or_in_a_small_image() -> None:
    assert find_superblock(Image(_SIZE)) is None
    assert find_superblock(Image(4096)) is None


@dataclass(frozen=True)
class _Log:
    """A log whose writes carry these (offset, generation, arrival) each; done 5 ns later."""

    writes: tuple[tuple[int, int, int], ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(
            Entry(n, Flag(0), offset, 8192, arrived_ns=at, done_ns=at and at + 5)
            for n, (offset, _, at) in enumerate(self.writes)
        )

    def payload(self, entry: Entry) -> memoryview:
        image = Image(_SIZE)
        image.write(65536 + 64, b"_BHRfS_M" + struct.pack("<Q", self.writes[entry.index][1]))
        return memoryview(image.read(entry.offset, entry.length))


def test_a_commit_is_a_superblock_of_a_new_generation() -> None:
    """The second write syncs a log tree; the third is no superblock, the last the next commit."""
    log = _Log(((65536, 7, 10), (65536, 7, 20), (0, 8, 30), (61440, 8, 40)))
    assert btrfs_commits(log) == ((40, 45),)


def test_commits_are_not_known_without_times_or_without_btrfs() -> None:
    assert btrfs_commits(_Log(((65536, 7, 0), (65536, 8, 0)))) is None
    assert btrfs_commits(_Log(((0, 7, 10),))) is None
