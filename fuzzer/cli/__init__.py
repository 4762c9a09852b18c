"""The command `powercut`: its sub-commands by name, and how every command ends.

Sub-commands are imported when they are asked for, so `doctor` works where a heavy import does not.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from fuzzer.errors import ExitCode, PowercutError

_INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell would give it; click's own is 1, which here means a finding."""

_COMMANDS = {
    "bench": "fuzzer.cli.bench:bench_command",
    "corpus": "fuzzer.cli.corpus:corpus_group",
    "doctor": "fuzzer.cli.doctor:doctor",
    "fuzz": "fuzzer.cli.fuzz:fuzz_command",
    "kernel": "fuzzer.cli.kernel:kernel_group",
    "minimize": "fuzzer.cli.minimize:minimize_command",
    "record": "fuzzer.cli.record:record_command",
    "replay": "fuzzer.cli.replay:replay_command",
    "run": "fuzzer.cli.run:run_command",
    "sweep": "fuzzer.cli.sweep:sweep_command",
    "triage": "fuzzer.cli.triage:triage_group",
}


class _Powercut(click.Group):
    """A group that loads its commands on demand and turns errors into the exit codes of the contract."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), cmd_name
        return command

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Run a command line and leave with its exit code. Commands return or `ctx.exit` an ExitCode."""
        sys.exit(self._run(args, {**extra, "prog_name": "powercut", "standalone_mode": False}))

    def _run(self, args: Sequence[str] | None, extra: dict[str, Any]) -> int:
        try:
            status = super().main(args, **extra)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            return ExitCode.BAD_INPUT
        except PowercutError as error:
            _complain(error)
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            click.echo("powercut: interrupted", err=True)
            return _INTERRUPTED
        except BrokenPipeError:
            return _reader_left()
        except Exception:
            click.echo(f"powercut: this is a bug in powercut\n{traceback.format_exc()}", err=True, nl=False)
            return ExitCode.INFRASTRUCTURE
        return status if isinstance(status, int) else ExitCode.NOTHING_FOUND


def _complain(error: PowercutError) -> None:
    click.echo(f"powercut: error: {error}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)


def _reader_left() -> int:
    """`powercut … | head` closed our output. Python would complain once more at exit (docs: SIGPIPE)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.NOTHING_FOUND


@click.group(cls=_Powercut, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="powercut")
def main() -> None:
    """Crash-consistency fuzzer for btrfs and xfs."""
