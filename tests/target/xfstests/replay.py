"""Replay a log of dm-log-writes up to a mark, as replay-log of xfstests: `replay.py LOG MARK DEVICE`."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

DISCARD, MARK = 4, 8


def main(path: str, mark: str, device: str) -> int:
    with Path(path).open("rb") as log, Path(device).open("r+b") as disk:
        _, _, entries, sector_bytes = struct.unpack("<QQQI", log.read(28))
        log.seek(sector_bytes)
        for _ in range(entries):
            head = log.read(sector_bytes)
            sector, count, flags, length = struct.unpack("<4Q", head[:32])
            if flags & MARK and head[32 : 32 + length] == mark.encode():
                return 0
            disk.seek(sector * sector_bytes)
            size_bytes = count * sector_bytes
            disk.write(bytes(size_bytes) if flags & DISCARD else log.read(size_bytes))
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
