"""Image files: sparse files on our tmpfs that hold device content for loop devices."""

from __future__ import annotations

import os
from pathlib import Path

from fuzzer.writelog.image import BLOCK_BYTES, Image

_BATCH = 512
"""Blocks per pwritev(2); the kernel takes at most 1024 vectors (IOV_MAX)."""


def store_image(image: Image, path: Path) -> None:
    """Make `path` a sparse file with exactly the content of `image`, whatever it held before.

    Truncating first is what makes it zeroed: xfs recovery must find no block from another state.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, image.size_bytes)
        for offset, blocks in image.iter_extents():
            for first in range(0, len(blocks), _BATCH):
                batch = blocks[first : first + _BATCH]
                written = os.pwritev(fd, batch, offset + first * BLOCK_BYTES)
                if written != len(batch) * BLOCK_BYTES:
                    raise OSError(28, "No space left on the work area", str(path))
    finally:
        os.close(fd)
