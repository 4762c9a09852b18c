"""Exports: a finding as a program that shows it without powercut, one file per format.

An exporter is pure: it makes the texts of files out of a `Program`. It is added by a line in `EXPORTERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fuzzer.triage.dossier import Dossier
from fuzzer.triage.export.c import export_c
from fuzzer.triage.export.program import Program, make_program
from fuzzer.triage.export.sh import export_sh
from fuzzer.triage.export.xfstests import export_xfstests

Exporter = Callable[[Program], Mapping[str, str]]
"""The texts of the files it makes, by name."""

EXPORTERS: dict[str, Exporter] = {"sh": export_sh, "c": export_c, "xfstests": export_xfstests}
"""By the name of the format."""


def export(dossier: Dossier, format_name: str) -> Mapping[str, str]:
    """The files of a format. InputError if the finding cannot be said in it."""
    return EXPORTERS[format_name](make_program(dossier))
