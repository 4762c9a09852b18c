"""Errors of powercut. Each carries the exit code it ends the program with and a hint for people.

Exit codes are a contract (README): 0 nothing found, 1 a finding, 2 bad input, 3 cannot run here,
4 our own infrastructure failed.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of every command."""

    NOTHING_FOUND = 0
    FINDING = 1
    BAD_INPUT = 2
    CANNOT_RUN_HERE = 3
    INFRASTRUCTURE = 4


class PowercutError(Exception):
    """Base of all errors meant for people; `hint` says what to do about it."""

    exit_code = ExitCode.INFRASTRUCTURE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InputError(PowercutError):
    """Bad input: a workload, a log, a database, an option. `place` is `file:line:column`."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, message: str, *, place: str = "", hint: str = "") -> None:
        super().__init__(f"{place}: {message}" if place else message, hint=hint)
        self.place = place


class MissingCapabilityError(PowercutError):
    """This machine lacks something a command needs; the message says what, the hint how to get it."""

    exit_code = ExitCode.CANNOT_RUN_HERE


class InfrastructureError(PowercutError):
    """Our own machinery failed (recorder died, tool missing, timeout): neither a pass nor a finding."""


class DeadlineError(InfrastructureError):
    """A program did not end in time and was killed."""


class LeakError(InfrastructureError):
    """A kernel resource could not be released; the message names who holds it."""


class LostWorkerError(InfrastructureError):
    """A worker, recorder or guest vanished without saying why."""


class HangError(PowercutError):
    """Killed processes stay stuck in the kernel: a finding or a broken recorder, the caller decides.

    `stacks` holds the kernel stack of each by name, `pids` are still to be reaped, `history` is the
    `fuzzer.state.history.History` so far (an object here: errors sit below everything else).
    """

    def __init__(
        self, message: str, *, stacks: dict[str, str], pids: tuple[int, ...], history: object, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.stacks = stacks
        self.pids = pids
        self.history = history
