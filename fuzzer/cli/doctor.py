"""`powercut doctor`: what this machine can do, yes or no, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from fuzzer.errors import ExitCode
from fuzzer.kernel.journal import read_journals
from fuzzer.kernel.probe import Capability, fuzz_blockers, probe_all


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def doctor(as_json: bool) -> ExitCode:
    """Show what this machine can do, and why not.

    Exits with 3 if something that `powercut fuzz` needs is missing.
    """
    capabilities = probe_all()
    for line in format_json(capabilities) if as_json else format_table(capabilities):
        click.echo(line)
    for run in read_journals():
        if run.hangs:
            click.echo(f"an earlier run hangs in the kernel until a restart: {run.hangs}", err=True)
    blockers = fuzz_blockers(capabilities)
    if blockers:
        click.echo(f"powercut fuzz cannot run here; missing: {', '.join(blockers)}", err=True)
        return ExitCode.CANNOT_RUN_HERE
    click.echo("powercut fuzz can run here", err=True)
    return ExitCode.NOTHING_FOUND


def format_json(capabilities: Sequence[Capability]) -> list[str]:
    """One line of JSON per capability: `capability`, `ok`, `reason`."""
    return [
        json.dumps({"capability": found.name, "ok": found.ok, "reason": _why(found)})
        for found in capabilities
    ]


def format_table(capabilities: Sequence[Capability]) -> list[str]:
    """One aligned line per capability."""
    width = max((len(found.name) for found in capabilities), default=0)
    return [
        f"{found.name:<{width}}  {'yes' if found.ok else 'no':<3}  {_why(found)}" for found in capabilities
    ]


def _why(found: Capability) -> str:
    return f"{found.reason}; {found.hint}" if found.hint else found.reason
