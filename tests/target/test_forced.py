"""A forced write behind an unforced one to the same place, recorded by the real dm-log-writes.

Its log has them the other way round; the last one was acknowledged as durable and must be what is read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fuzzer.kernel.probe import missing
from fuzzer.target.uml import run_in_uml

pytestmark = [
    pytest.mark.target,
    pytest.mark.skipif(bool(missing(["uml"])), reason="package user-mode-linux is not installed"),
]

SCRIPT = """
import json, sys
from fuzzer.campaign import execute as module
from fuzzer.campaign.examine import examine
from fuzzer.campaign.lane import open_lane
from fuzzer.workload.text import parse
from fuzzer.writelog.points import Plan

TEXT = '''powercut 1
fs: FS
MOUNT
setup
  create a
  write a 0 64K
  create c
  sync

actor one
  dwrite a 0 4K
  dwrite a 0 4K sync=dsync
  dwrite a 8K 4K
  dwrite a 8K 4K sync=dsync
  fsync c
'''

fs, mount = sys.argv[1:]
found = {}
with open_lane("dm") as lane:
    for name, settle in (("settled", module.settle), ("as logged", lambda log, before: log)):
        module.settle = settle
        execution = module.execute(lane, parse(TEXT.replace("FS", fs).replace("MOUNT", mount)), views=())
        found[name] = [f.judgement.violations[0].kind for f in examine(lane, execution, Plan()).forbidden]
print(json.dumps(found))
"""


@pytest.mark.parametrize(("fs", "mount"), [("btrfs", "mount: nodatacow"), ("xfs", "")])
def test_the_order_is_that_of_completion(fs: str, mount: str, tmp_path: Path) -> None:
    result = run_in_uml([sys.executable, "-c", SCRIPT, fs, mount], exchange=tmp_path, timeout_s=300)
    assert result.status == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["settled"] == []
    assert "old-data" in found["as logged"], "this kernel logs otherwise, and nothing was tested"
