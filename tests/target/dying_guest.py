"""As `fuzzer.campaign.inguest`, in a kernel that panics in the campaign's first workload."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fuzzer.campaign import inguest
from fuzzer.campaign.queue import Queue

if __name__ == "__main__":
    task, number, first, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    if first == 0:
        options = inguest.load_task(task, seconds)
        Queue(options.directory / "queue", number).begin(options.source.workload(0))
        Path("/proc/sysrq-trigger").write_text("c")
    os._exit(inguest.main(task, number, first, seconds))
