"""Reading /sys while devices come and go."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fuzzer.kernel import procfs


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.EIO])
def test_a_device_may_go_while_it_is_read(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, **options: str) -> str:
        raise OSError(number, "gone")

    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter([Path("/sys/block/loop0")]))
    monkeypatch.setattr(Path, "read_text", fail)
    if number == errno.EIO:
        with pytest.raises(OSError, match="gone"):
            procfs.loop_backing_files()
    else:
        assert procfs.loop_backing_files() == {}
