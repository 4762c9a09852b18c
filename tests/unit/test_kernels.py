"""Kernels to boot: which patches there are, how one is found, and the first root of those with modules."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fuzzer.campaign.corpus import GENERIC, workload_of
from fuzzer.errors import InputError
from fuzzer.target import initramfs, kernels
from fuzzer.target.build import KNOWN_BUGS, VARIANTS, patches
from fuzzer.target.kernels import Kernel, find_kernel, known_kernels, save


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernels, "installed_uml", lambda: None)
    return tmp_path


def test_every_patch_switches_one_bug_that_has_a_workload() -> None:
    first, *others = patches()
    assert first.bugs == ()
    assert len(others) >= 30
    for patch in others:
        assert patch.bugs == (patch.path.stem,)
        assert workload_of(patch.path.stem).parent == patch.path.parent
        assert patch.text.startswith("Takes out ")
        assert "A hit is " in " ".join(patch.text.partition("--- ")[0].split())
        assert patch.path.parent.name in (patch.fs, GENERIC)


def test_patches_touch_only_what_they_say() -> None:
    """Only the first makes a file; the others change what the source has."""
    made = [
        line for patch in patches() for line in patch.text.splitlines() if line.startswith("--- /dev/null")
    ]
    assert len(made) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_what_a_crash_test_needs(variant: str) -> None:
    """File systems, recorders and the way in; no setting twice, which would leave it to the order."""
    lines = [line for line in VARIANTS[variant].settings().splitlines() if not line.startswith("#")]
    names = [line.partition("=")[0] for line in lines]
    assert len(set(names)) == len(names)
    way_in = "CONFIG_HOSTFS=y" if VARIANTS[variant].machine.kind == "uml" else "CONFIG_9P_FS=y"
    assert {"CONFIG_BTRFS_FS=y", "CONFIG_XFS_FS=y", "CONFIG_DM_LOG_WRITES=y", way_in} <= set(lines)


def test_kernels_are_found_by_name_and_by_path(cache: Path) -> None:
    assert not list(known_kernels())
    (kernels.store() / KNOWN_BUGS).mkdir(parents=True)
    made = Kernel(name=KNOWN_BUGS, kind="qemu", image="/boot/x", bugs=("a", "b"), seconds=1.5)
    save(made)
    assert list(known_kernels()) == [find_kernel(KNOWN_BUGS)] == [made]
    for name, kind in (("bzImage", "qemu"), ("linux", "uml"), ("my.uml", "uml")):
        (cache / name).touch()
        found = find_kernel(str(cache / name))
        assert (found.kind, found.image) == (kind, str(cache / name))
    with pytest.raises(InputError, match=f"one of {KNOWN_BUGS}") as caught:
        find_kernel("other")
    assert "kernel build" in caught.value.hint


def test_first_root_has_the_modules_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = tmp_path / "modules" / "6.1"
    release.mkdir(parents=True)
    for name in ("virtio_pci", "virtio", "9pnet_virtio", "9pnet", "9p", "other"):
        (release / f"{name}.ko").write_text(f"module {name}")
    (release / "modules.dep").write_text(
        "9p.ko: 9pnet.ko\n9pnet.ko:\n9pnet_virtio.ko: virtio.ko 9pnet.ko\nother.ko:\n"
        "virtio_pci.ko: virtio.ko\nvirtio.ko:\n"
    )
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"program")
    monkeypatch.setattr(initramfs, "BUSYBOX", busybox)
    members = read_newc(initramfs.write_initramfs(tmp_path / "archive", tmp_path / "modules").read_bytes())
    order = ["virtio.ko", "virtio_pci.ko", "9pnet.ko", "9pnet_virtio.ko", "9p.ko"]
    assert [name for name in members if name.endswith(".ko")] == [f"lib/{name}" for name in order]
    assert members["lib/9p.ko"] == b"module 9p"
    assert members["bin/busybox"] == b"program"
    script = members["init"].decode()
    assert [line.rpartition("/")[2] for line in script.splitlines() if "insmod" in line] == order
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_modules_of_two_kernels_are_refused(tmp_path: Path) -> None:
    for release in ("6.1", "6.2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "modules.dep").touch()
    with pytest.raises(InputError, match="2 kernels"):
        initramfs.write_initramfs(tmp_path / "archive", tmp_path)


def read_newc(archive: bytes) -> dict[str, bytes]:
    """A reader of its own, from the format's description: names and data of all members but the last."""
    members, at = {}, 0
    while True:
        header = archive[at : at + 110]
        assert header[:6] == b"070701"
        size, name_size = (int(header[6 + 8 * field :][:8], 16) for field in (6, 11))
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        data = at + (110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return members
        members[name] = archive[data : data + size]
        at = (data + size + 3) // 4 * 4
