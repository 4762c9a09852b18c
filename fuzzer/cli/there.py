"""Running one of our own commands in a guest: the same program, on another kernel."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from fuzzer.target.machine import open_guest
from fuzzer.target.targets import Target

_POLL_S = 0.1
_LONG_S = 24 * 3600.0


def run_there(target: Target, words: Sequence[str], directory: Path) -> int:
    """Run `powercut WORDS --dir DIRECTORY` in a guest; its output is ours as it comes, as is its status.

    LostWorkerError, with the end of the console, if the guest does not survive it.
    """
    argv = (sys.executable, "-m", "fuzzer", *words, "--dir", str(directory.resolve()))
    with open_guest(target.plan(), exchange=directory, boot_s=target.boot_s) as guest:
        pending = guest.start(argv, timeout_s=_LONG_S, cwd=Path.cwd(), switches=target.switches)
        done = False
        while not done:
            done = pending.is_done()
            for line in pending.read_lines():
                click.echo(line)
            time.sleep(_POLL_S)
        ended = pending.result()
    click.echo(ended.stderr, nl=False, err=True)
    return ended.status
