"""Run a workload on xfs with quotas, recover its last state, then one whose counts were damaged.

A program of `test_quota.py`. Writes a JSON line: what was found wrong in either.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fuzzer.campaign.execute import execute
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.recover import Look, recover
from fuzzer.kernel.imagefile import store_image
from fuzzer.state.recovery import Recovery
from fuzzer.workload.text import parse
from fuzzer.writelog.image import BLOCK_BYTES, Image
from fuzzer.writelog.joined import full_image
from oracles import PROFILES, judge

_WORKLOAD = """powercut 1
fs: xfs
mount: uquota,gquota

setup
  create a
  write a 0 64K
  create b
  write b 0 12K
  chown b 65534 65534
  create c
  write c 0 1M
  sync

actor one
  chown a 65534 0
  write b 12K 20K
  truncate c 4K
  fsync b

actor two
  create d
  dwrite d 0 256K
  chown d 65534 65534
  unlink c
  fsync d
"""


def main() -> None:
    with open_lane("auto") as lane:
        execution = execute(lane, parse(_WORKLOAD))
        entries = execution.log.entries[execution.log.start :]
        image = full_image(execution.base, entries, execution.log.payload)
        look = Look(fs="xfs", mount_options=execution.workload.mount, known=execution.history.known_ids())
        healthy = recover(lane, image, look)
        damaged = recover(lane, _damage(image, lane.directory / "damaged"), look)
    sys.stdout.write(json.dumps({"healthy": _found(healthy), "damaged": _found(damaged)}) + "\n")


def _damage(image: Image, path: Path) -> Image:
    store_image(image, path)
    commands = ["-c", "dquot -u 65534", "-c", "write diskdq.bcount 8"]
    subprocess.run(["xfs_db", "-x", *commands, str(path)], check=True, stdout=subprocess.DEVNULL)
    content = path.read_bytes()
    changed = image.fork()
    for offset in range(0, len(content), 1 << 20):
        part = content[offset : offset + (1 << 20)]
        if any(part):
            changed.write(offset, memoryview(part))
    assert len(content) % BLOCK_BYTES == 0
    return changed


def _found(recovery: Recovery) -> list[list[str]]:
    return [[v.rule, v.kind, v.found] for v in judge(PROFILES["xfs"], recovery).violations]


if __name__ == "__main__":
    main()
