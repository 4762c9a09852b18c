"""What all tests share: who may be skipped and why, the sweep around a session, and the leak check.

A test that cannot run here is skipped with the reason of the failed probe. Under CI=true, or with
POWERCUT_REQUIRE=1, a missing basic capability (`_BASIC`) is a failure instead: a suite that skips
everything must not look green.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from fuzzer.kernel import procfs
from fuzzer.kernel.journal import read_journals
from fuzzer.kernel.probe import missing, probe, probe_all
from fuzzer.kernel.sweep import sweep
from fuzzer.kernel.workarea import RunArea, run_area

# How long an example takes says more about who else is on the machine.
settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")

_BASIC = (
    "root",
    "loop",
    "fuse",
    "pyfuse3",
    "btrfs",
    "xfs",
    "mkfs.btrfs",
    "mkfs.xfs",
    "btrfs-check",
    "xfs_repair",
    "kmsg",
)
_NEEDS = {"kernel": _BASIC, "target": ("root",), "canary": _BASIC}
"""What a marker needs; arguments add to it, as in `@pytest.mark.kernel("memcg")`."""


def _strict() -> bool:
    return os.environ.get("CI") == "true" or os.environ.get("POWERCUT_REQUIRE") == "1"


def pytest_report_header() -> list[str]:
    found = probe_all()
    return [
        "capabilities: " + " ".join(one.name for one in found if one.ok),
        "missing here: " + " ".join(one.name for one in found if not one.ok),
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, needs in _NEEDS.items():
        for marker in item.iter_markers(name):
            lacking = missing((*needs, *marker.args))
            reasons = "; ".join(f"{found.name}: {found.reason}" for found in lacking)
            if _strict() and {found.name for found in lacking} & set(_BASIC):
                pytest.fail(f"cannot run here, and must ({reasons})", pytrace=False)
            if lacking:
                pytest.skip(reasons)


@pytest.fixture(scope="session", autouse=True)
def _swept() -> Iterator[None]:
    """Start without leftovers of killed runs, and leave none (tests do kill runs)."""
    if not probe("root").ok:
        yield
        return
    sweep()
    yield
    sweep()


@pytest.fixture(autouse=True)
def _leaks_nothing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A kernel test gives back every mount, loop device and descriptor it took."""
    if not any(request.node.get_closest_marker(name) for name in _NEEDS):
        yield
        return
    base = tmp_path_factory.getbasetemp()
    before = _held(base)
    yield
    leaked = sorted(_held(base) - before)
    if leaked:
        # Tracebacks of expected errors keep frames, and with them open files, until collected.
        gc.collect()
        leaked = sorted(_held(base) - before)
    assert not leaked, f"the test left behind: {', '.join(leaked)}"


def _held(base: Path) -> set[str]:
    """Our mounts, attached loop devices and open descriptors.

    Areas of other processes are left out: other sessions may be running on this machine.
    """
    owned = [left.directory for left in read_journals() if left.owner_pid == os.getpid()]

    def is_ours(path: Path) -> bool:
        return any(path.is_relative_to(directory) for directory in (base, *owned))

    held = {f"mount {mount.path}" for mount in procfs.mounts() if is_ours(mount.path)}
    held |= {f"loop{n} of {file}" for n, file in procfs.loop_backing_files().items() if is_ours(Path(file))}
    return held | _descriptors()


def _descriptors() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"descriptor {link.name} -> {link.readlink()}")
        except FileNotFoundError:
            continue  # the one that listed the directory
    return found


@pytest.fixture
def area() -> Iterator[RunArea]:
    """A run area of this test's own."""
    with run_area() as made:
        yield made


@pytest.fixture(params=["btrfs", "xfs"])
def fs(request: pytest.FixtureRequest) -> str:
    """Each file system in turn."""
    name: str = request.param
    return name


@pytest.fixture
def image(area: RunArea) -> Path:
    """An empty (sparse, all zero) device image large enough for either file system."""
    path = area.path / "image"
    with path.open("wb") as file:
        file.truncate(320 << 20)
    return path
