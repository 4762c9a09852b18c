"""Every set of mkfs and mount options the generator draws makes a file system that mounts and works."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzzer.kernel.loop import private_minor
from fuzzer.kernel.mkfs import make_fs
from fuzzer.kernel.mount import mounted
from fuzzer.kernel.probe import missing
from fuzzer.kernel.usable import empty, refill
from fuzzer.kernel.workarea import RunArea
from fuzzer.workload import tables
from fuzzer.workload.options import counts_xfs_quota, mkfs_defect, mount_defect

pytestmark = pytest.mark.kernel

MKFS = [(fs, options) for fs, table in tables.MKFS.items() for _, options in table if options]
MOUNT = [(fs, options) for fs, table in tables.MOUNT.items() for _, options in table if options]


def works(area: RunArea, image: Path, fs: str, mkfs: str, mount: str) -> None:
    with private_minor(area) as minor, minor.attached(image) as device:
        make_fs(device, fs, mkfs)
        with mounted(device, area.mkdir("mnt"), fs, mount) as path:
            assert refill(path) == ()
            assert empty(path) == ()


@pytest.mark.parametrize(("fs", "options"), MKFS)
def test_mkfs_options(area: RunArea, image: Path, fs: str, options: str) -> None:
    assert not mkfs_defect(options, fs)
    works(area, image, fs, options, "")


@pytest.mark.parametrize(("fs", "options"), MOUNT)
def test_mount_options(area: RunArea, image: Path, fs: str, options: str) -> None:
    """Quotas of xfs are mounted in a guest as well (tests/target/test_quota.py)."""
    assert not mount_defect(options)
    lacking = missing(["xfs-quota"]) if fs == "xfs" and counts_xfs_quota(options) else ()
    if lacking:
        pytest.skip(lacking[0].reason)
    works(area, image, fs, "", options)
