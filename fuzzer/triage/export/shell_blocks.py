"""Blocks of a program as lines of a shell script."""

from __future__ import annotations

from collections.abc import Iterator

from fuzzer.triage.export.place import pattern
from fuzzer.triage.export.program import Block, Program, Step
from fuzzer.triage.export.shell_ops import Dialect, Words, say


def setup_lines(program: Program, dialect: Dialect, cut: str) -> Iterator[str]:
    """The setup; `cut` is the command that cuts power."""
    for step in program.setup.steps:
        yield from _step_lines(program, program.setup, step, dialect, cut)


def actor_lines(program: Program, dialect: Dialect, cut: str, indent: str) -> Iterator[str]:
    """The actors: one alone runs in the foreground, several beside each other."""
    if len(program.actors) == 1 and program.actors[0].loop == 1:
        (actor,) = program.actors
        for step in actor.steps:
            yield from _step_lines(program, actor, step, dialect, cut)
        return
    counted = [actor for actor in program.actors if actor.loop is not None]
    endless = len(counted) < len(program.actors)
    busy = f"{dialect.notes}busy"
    if endless:
        yield f"> {busy}"
    for actor in program.actors:
        waited = endless and actor.loop is not None
        yield from _background(program, actor, dialect, cut, indent, busy if actor.loop is None else "")
        if waited:
            yield 'counted="$counted $!"'
    if endless:
        yield "wait $counted"
        yield f"rm {busy}"
    yield "wait"


def _background(
    program: Program, actor: Block, dialect: Dialect, cut: str, indent: str, busy: str
) -> Iterator[str]:
    lines = [line for step in actor.steps for line in _step_lines(program, actor, step, dialect, cut)]
    yield f"(  # actor {actor.name}"
    yield f"{indent}me={actor.name} i=0"
    if actor.loop == 1:
        yield from (indent + line for line in lines)
    else:
        yield f"{indent}while [ -e {busy} ]; do" if busy else f"{indent}while [ $i -lt {actor.loop} ]; do"
        yield from (indent * 2 + line for line in lines)
        yield f"{indent * 2}i=$((i + 1))"
        yield f"{indent}done"
    yield ") &"


def _step_lines(program: Program, block: Block, step: Step, dialect: Dialect, cut: str) -> Iterator[str]:
    looped = block.loop != 1
    byte = f"$(((96 + {step.row} + 17 * i) % 250 + 1))" if looped else f"0x{pattern(step.row):02x}"
    users = program.users(step.op.text("name")) if step.op.name == "barrier" else 0
    yield say(Words(step.op, dialect, byte, users))
    for note in step.notes:
        yield _guarded(dialect.fill(note.command), looped, note.place.iteration)
    if step.cut is not None and cut:
        yield _guarded(cut, looped, step.cut)


def _guarded(command: str, looped: bool, iteration: int) -> str:
    return f"[ $i -eq {iteration} ] && {command}" if looped else command
