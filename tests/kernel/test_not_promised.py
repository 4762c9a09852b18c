"""What is not guaranteed and must not be reported, on real kernels.

Each run is judged at every write, and gives no finding although some crash state shows what people take
for a bug; without the second half a test could not fail for the right reason. Sources are with each row.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fuzzer.campaign.lane import Lane, open_lane
from fuzzer.errors import InputError
from fuzzer.workload.text import parse
from tests.kernel.watched import Sees, watch

pytestmark = pytest.mark.kernel

BOTH = ("btrfs", "xfs")

TRIES = 5
"""Writeback that comes early, on a busy machine, may keep what need not be kept."""


@dataclass(frozen=True)
class Row:
    """A workload, and what some crash state after its last op shows on the file systems `seen_on`."""

    title: str
    text: str
    sees: Sees
    fs: tuple[str, ...] = BOTH
    seen_on: tuple[str, ...] = BOTH


ROWS = (
    Row(
        # Filipe Manana, linux-btrfs 7 April 2020: "We don't go recursively checking"
        "a change in a subdirectory, fsync of its unchanged parent",
        "setup\n  mkdir d\n  mkdir d/e\n  sync\nactor one\n  create d/e/x\n  fsync d\n",
        lambda s: s.has("d/e") and not s.has("d/e/x"),
    ),
    Row(
        # the same message, on a report of a link that was lost
        "a link, fsync of an ancestor that did not change",
        "setup\n  create a\n  mkdir d\n  mkdir d/e\n  sync\nactor one\n  link a d/e/l\n  fsync d\n",
        lambda s: s.has("a") and not s.has("d/e/l"),
    ),
    Row(
        # discussion of fstests generic/335, linux-btrfs December 2021: not lost is all
        "a move, fsync of the old directory",
        "setup\n  mkdir d\n  mkdir e\n  create d/a\n  sync\nactor one\n  rename d/a e/a\n  fsync d\n",
        lambda s: s.has("d/a") != s.has("e/a"),
    ),
    Row(
        # Christoph Hellwig, linux-fsdevel February 2026: O_SYNC applies to writes and nothing else
        "O_SYNC with O_CREAT or O_TRUNC and no write",
        "setup\n  create a\n  write a 0 64K\n  create c\n  write c 0 64K\n  sync\nactor one\n"
        "  create b flags=sync\n  otrunc a flags=sync\n  truncate c 8 flags=dsync\n",
        lambda s: not s.has("b") and s.size("a") == s.size("c") == 64 << 10,
    ),
    Row(
        # linux-ext4 February and March 2026: "the result is totally expected"
        "earlier dirty data after an O_SYNC write elsewhere in the file",
        "setup\n  create a\n  write a 0 64K\n  sync\nactor one\n  write a 128K 64K\n"
        "  write a 0 4K sync=sync\n",
        lambda s: s.size("a") < 192 << 10,
        seen_on=("xfs",),
    ),
    Row(
        # Dave Chinner, linux-xfs 3 December 2024: O_DIRECT implies no integrity and no ordering
        "a direct write without a flush",
        "setup\n  create a\n  truncate a 64K\n  sync\nactor one\n  dwrite a 0 64K\n",
        lambda s: s.zeros("a", 0, 64 << 10),
    ),
    Row(
        # Dave Chinner, linux-xfs 30 November and 20 December 2022
        "fallocate, clone and copy without a sync",
        "setup\n  create a\n  write a 0 64K\n  create b\n  create c\n  create d\n  sync\nactor one\n"
        "  fallocate b 0 64K\n  clone a c 0 0 64K\n  copy_range a d 0 0 64K\n",
        lambda s: s.size("b") == s.size("c") == s.size("d") == 0,
    ),
    Row(
        # Nikolay Borisov, linux-btrfs 12 October 2020; btrfs-subvolume(8): --commit-after
        "a deleted subvolume without a sync",
        "setup\n  subvol_create v\n  create v/x\n  sync\nactor one\n  subvol_delete v\n",
        lambda s: s.has("v/x"),
        fs=("btrfs",),
    ),
    Row(
        # Filipe Manana, linux-btrfs 5 January 2022: the rename does not wait for the data
        "a file replaced by one that was never synced is empty",
        "setup\n  create f\n  write f 0 64K\n  sync\nactor one\n  create t\n  write t 0 64K\n"
        "  rename t f\n  fsync .\n",
        lambda s: s.at("f") is not None and s.size("f") == 0,
    ),
    Row(
        # linux-btrfs April 2018: open(2) follows the link, so the link is nothing that was synced
        "fsync by way of a symbolic link persists no link",
        "setup\n  create a\n  sync\nactor one\n  symlink a s\n  write a 0 4K\n  fsync s follow=yes\n",
        lambda s: s.size("a") == 4096 and not s.has("s"),
        seen_on=("btrfs",),
    ),
    Row(
        # fsync is no operation of pipes and most devices (fs/sync.c, vfs_fsync_range: EINVAL)
        "fsync of a fifo and of a device",
        "setup\n  mkdir d\n  sync\nactor one\n  mknod d/f\n  mknod n kind=null\n  fsync d/f\n  fsync n\n"
        "  write n 0 4K sync=dsync\n",
        lambda s: not s.has("d/f") and not s.has("n"),
    ),
    Row(
        # mkfs makes no v1 cache; the mount option does. Mismatches are thrown away by the kernel.
        "a free space cache that does not match",
        "mkfs: -R ^free-space-tree\nmount: space_cache=v1\nsetup\n  create a\n  write a 0 1M\n  sync\n"
        "actor one\n  write a 0 1M\n  fsync a\n  truncate a 0\n  sync\n  write a 0 64K\n  fsync a\n",
        lambda s: s.size("a") == 64 << 10,
        fs=("btrfs",),
    ),
    Row(
        # btrfs falls back to a commit where the log cannot say it; the xfs log has one order
        "more is there than was synced",
        "setup\n  create a\n  mkdir d\n  sync\nactor one\n  create x\n  mkdir e\n"
        "  rename d e flags=exchange\n  fsync e\n",
        lambda s: s.has("x"),
    ),
)


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with open_lane("fuse") as lane:
        yield lane


_RUNS = [pytest.param(row, on, id=f"{on}: {row.title}") for row in ROWS for on in row.fs]


@pytest.mark.parametrize(("row", "on"), _RUNS)
def test_it_happens_and_is_not_reported(
    monkeypatch: pytest.MonkeyPatch, lane: Lane, row: Row, on: str
) -> None:
    for _ in range(TRIES):
        seen = watch(monkeypatch, lane, row.text, on)
        assert [(f.bucket, f.judgement.violations[0]) for f in seen.examination.forbidden] == []
        if on not in row.seen_on or any(row.sees(shown) for shown in seen.after):
            return
    pytest.fail("no crash state shows it")


def test_fsync_of_special_files_fails(monkeypatch: pytest.MonkeyPatch, lane: Lane, fs: str) -> None:
    seen = watch(monkeypatch, lane, "actor one\n  mknod f\n  fsync f\n  mknod n kind=null\n  fsync n\n", fs)
    assert seen.errnos("fsync") == [errno.EINVAL, errno.EINVAL]


def test_a_log_to_replay_is_no_damage(monkeypatch: pytest.MonkeyPatch, lane: Lane, fs: str) -> None:
    """The checkers complain of a log that was not replayed, so images are mounted before they are
    checked (dm-log-writes.txt of the btrfs developers)."""
    text = "setup\n  create a\n  sync\nactor one\n  write a 0 64K\n  fsync a\n  chmod a 0600\n  fsync a\n"
    seen = watch(monkeypatch, lane, text, fs)
    assert seen.replayed > 0
    assert seen.examination.forbidden == ()


@pytest.mark.parametrize("option", ["nobarrier", "norecovery", "nologreplay", "rescue=all", "notreelog"])
def test_options_that_change_the_promises_are_refused(fs: str, option: str) -> None:
    with pytest.raises(InputError, match=f"mount option {option.partition('=')[0]}"):
        parse(f"powercut 1\nfs: {fs}\nmount: {option}\nactor one\n  sync\n")
