"""Load for measuring devices: writers that fsync all the time, and one that streams."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

from fuzzer.errors import InfrastructureError
from fuzzer.kernel.children import Child, Send, fork_child

_BLOCK_BYTES = 4096
_FILE_BLOCKS = 256
_PIECE_BYTES = 1 << 20
_START_S = 0.02
"""Until then all writers have been forked and have made their files."""
_GRACE_S = 30.0


def fsync_rate(directory: Path, writers: int, seconds: float) -> float:
    """`writers` processes do pwrite of 4 KiB + fsync on files of their own; calls of fsync per second."""
    for number in range(writers):
        _write_pieces(directory / f"fsync-{number}", 1)
    start = time.monotonic() + _START_S
    children = [_writer(directory / f"fsync-{number}", start, seconds) for number in range(writers)]
    try:
        return sum(_answer(child, seconds + _GRACE_S) for child in children) / seconds
    finally:
        for child in children:
            child.kill(_GRACE_S)


def _writer(path: Path, start: float, seconds: float) -> Child:
    def main(send: Send) -> int:
        time.sleep(max(0.0, start - time.monotonic()))
        send(str(_write_and_sync(path, start + seconds)))
        return 0

    return fork_child(main)


def _write_and_sync(path: Path, end: float) -> int:
    block, count = b"\xa5" * _BLOCK_BYTES, 0
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while time.monotonic() < end:
            os.pwrite(fd, block, count % _FILE_BLOCKS * _BLOCK_BYTES)
            os.fsync(fd)
            count += 1
    finally:
        os.close(fd)
    return count


def _answer(child: Child, timeout_s: float) -> int:
    """The one line a writer sends. It ends by itself: what is read next is its end."""
    lines: list[str] = []
    while child.status is None:
        if not select.select([child.fd], [], [], timeout_s)[0]:
            raise InfrastructureError(f"a writer hangs: no answer in {timeout_s:g} s")
        lines += child.read_lines()
    if child.status or not lines:
        raise InfrastructureError(f"a writer ended with status {child.status}")
    return int(lines[0])


def sequential_rate(directory: Path, size_bytes: int) -> float:
    """Write a new file in pieces of 1 MiB and fsync it; bytes per second."""
    path = directory / "stream"
    path.unlink(missing_ok=True)
    pieces = size_bytes // _PIECE_BYTES
    started = time.perf_counter()
    _write_pieces(path, pieces)
    return pieces * _PIECE_BYTES / (time.perf_counter() - started)


def _write_pieces(path: Path, pieces: int) -> None:
    piece = os.urandom(_PIECE_BYTES)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for number in range(pieces):
            os.pwrite(fd, piece, number * _PIECE_BYTES)
        os.fsync(fd)
    finally:
        os.close(fd)
