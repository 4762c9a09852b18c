"""`powercut bench`: what recording and crash states cost here, against their targets."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from fuzzer.campaign.bench import SWEEP_SHARE, Comparison, Result, StateCosts, bench
from fuzzer.campaign.bench_sequential import SequentialCosts, SweepRate, bench_sweep
from fuzzer.campaign.lane import open_lane
from fuzzer.campaign.session import prepare
from fuzzer.cli.options import FILESYSTEMS, Duration, fs_option, json_option, recorder_option
from fuzzer.errors import ExitCode


@click.command("bench")
@fs_option
@click.option("--time", "seconds", type=Duration(), default="30s", show_default=True, help="About how long.")
@recorder_option
@json_option
def bench_command(filesystems: tuple[str, ...], seconds: float, recorder: str, as_json: bool) -> ExitCode:
    """Measure the recorder and crash states on this machine, and say which targets are met.

    A busy machine gives worse numbers; ratios are of things measured in turns.
    Example: powercut bench --fs xfs --time 20s
    """
    chosen = filesystems or FILESYSTEMS
    prepare(chosen, recorder)
    each_s = seconds / len(chosen)
    for fs in chosen:
        with open_lane(recorder) as lane:
            for result in bench(lane, fs, each_s):
                _print(result, as_json)
        _print(bench_sweep(fs, each_s * SWEEP_SHARE, recorder), as_json)
    return ExitCode.NOTHING_FOUND


def _print(result: Result, as_json: bool) -> None:
    for line in [_json(result)] if as_json else _text(result):
        click.echo(line)


def _json(result: Result) -> str:
    if isinstance(result, Comparison):
        return json.dumps({"event": "comparison", **asdict(result), "met": result.met})
    if isinstance(result, SequentialCosts):
        return json.dumps({"event": "sequential-costs", **asdict(result)})
    if isinstance(result, SweepRate):
        return json.dumps({"event": "sequential-small", **asdict(result), "met": result.met})
    return json.dumps({"event": "states", **asdict(result)})


def _text(result: Result) -> list[str]:
    if isinstance(result, SequentialCosts):
        return _sequential(result)
    if isinstance(result, SweepRate):
        return [_rate(result)]
    return _comparison(result) if isinstance(result, Comparison) else _costs(result)


def _comparison(one: Comparison) -> list[str]:
    base = "bare mount+unmount" if one.at_most else "plain loop"
    line = (
        f"{one.fs:<5}  {one.name:<26}{one.value:8.1f} {one.unit:<6}{base:>19} {one.base:8.1f} {one.unit:<6}"
    )
    line += f"{one.ratio:5.2f}x"
    if one.target is None:
        return [line]
    bound = "at most" if one.at_most else "at least"
    return [f"{line}  target {bound} {one.target:g}x: {'met' if one.met else 'NOT MET'}"]


def _sequential(costs: SequentialCosts) -> list[str]:
    phases = "  ".join(f"{name} {ms:.2f}" for name, ms in costs.phase_ms.items())
    return [
        f"{costs.fs:<5}  ms per sequential-small workload, in one lane alone: {phases}",
        f"{costs.fs:<5}  measured on {costs.workloads} workloads, {costs.per_s:.1f} per second",
    ]


def _rate(rate: SweepRate) -> str:
    return (
        f"{rate.fs:<5}  sequential-small workloads per second, {rate.jobs} lanes: {rate.per_s:.1f} "
        f"({rate.workloads} run)  target at least {rate.target_per_s:g}: {'met' if rate.met else 'NOT MET'}"
    )


def _costs(costs: StateCosts) -> list[str]:
    head = f"{costs.fs:<5}  "
    phases = "  ".join(f"{name} {ms:.2f}" for name, ms in costs.phase_ms.items())
    return [
        f"{head}ms per unique state: {phases}",
        f"{head}unique states per second and core: {costs.per_s:.1f} with fsck, "
        f"{costs.per_s_without_fsck:.1f} without, {costs.per_s_of_all:.1f} with fsck and the workloads' runs "
        f"({costs.execute_ms:.0f} ms each)",
        f"{head}measured on {costs.unique} unique states of {costs.workloads} workloads",
    ]
