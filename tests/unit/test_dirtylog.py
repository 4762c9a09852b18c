"""Which images a mount has to replay a log of."""

from __future__ import annotations

import struct

from fuzzer.writelog.dirtylog import needs_replay
from fuzzer.writelog.image import Image

_SIZE = 1 << 20


def test_btrfs_has_a_log_to_replay_if_its_superblock_names_one() -> None:
    image = Image(_SIZE)
    image.write(65536 + 64, b"_BHRfS_M")
    assert needs_replay(image, "btrfs") is False
    image.write(65536 + 96, struct.pack("<Q", 1 << 24))
    assert needs_replay(image, "btrfs") is True
    assert needs_replay(image, "xfs") is None


def test_xfs_has_a_log_to_replay_unless_it_ends_in_an_unmount_record() -> None:
    """Log of 32 blocks from block 16 of the first allocation group; two records, the second unmounts."""
    image = Image(_SIZE)
    image.write(0, b"XFSB" + struct.pack(">IQ", 4096, 256))
    image.write(48, struct.pack(">Q", 16))
    image.write(84, struct.pack(">I", 256))
    image.write(96, struct.pack(">I", 32))
    image.write(124, bytes([8]))
    log = 16 * 4096
    assert needs_replay(image, "xfs") is True, "nothing in the log says that it is clean"
    image.write(log + 1024, _record(5, operations=1, flags=0x20))
    assert needs_replay(image, "xfs") is False
    image.write(log + 4096, _record(6, operations=3, flags=0x01))
    assert needs_replay(image, "xfs") is True, "something was logged after the unmount"
    image.write(log + 8192, _record(7, operations=1, flags=0x20))
    assert needs_replay(image, "xfs") is False


def _record(lsn: int, *, operations: int, flags: int) -> bytes:
    head = b"\xfe\xed\xba\xbe" + struct.pack(">IIIQQIII", 1, 2, 512, lsn, lsn, 0, 0, operations)
    return head.ljust(512, b"\0") + struct.pack(">IIBBH", 1, 8, 0xAA, flags, 0)
