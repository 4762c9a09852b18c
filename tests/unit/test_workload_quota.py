"""A workload that mounts xfs with quotas asks for a kernel that counts them."""

from __future__ import annotations

import pytest

from fuzzer.workload.text import parse


@pytest.mark.parametrize(
    ("fs", "mount", "needed"),
    [
        ("xfs", "uquota", True),
        ("xfs", "wsync,gquota", True),
        ("xfs", "wsync", False),
        ("btrfs", "ssd", False),
    ],
)
def test_a_mount_with_quotas_asks_for_a_kernel_that_counts(fs: str, mount: str, needed: bool) -> None:
    workload = parse(f"powercut 1\nfs: {fs}\nmount: {mount}\n\nsetup\n  create a\n\nactor one\n  sync\n")
    assert ("xfs-quota" in workload.capabilities) is needed
