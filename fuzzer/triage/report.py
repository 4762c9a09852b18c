"""Reports: a finding as one HTML page that needs nothing else, and as the text of a mail.

Maintainers ask for what can be read in a minute: what was promised and lost, a workload without needless
parts, how to see it, and nothing about compilers or processors.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby

from fuzzer.triage.dossier import Dossier
from fuzzer.triage.html import Html, element, page, section, table
from fuzzer.triage.known import describe_known
from fuzzer.triage.logview import LogLine, log_lines
from fuzzer.triage.show import alarm_lines
from fuzzer.triage.svg import draw_timeline
from fuzzer.triage.timeline import build_timeline
from fuzzer.triage.treediff import DiffRow, diff_tree
from fuzzer.workload.model import Workload
from fuzzer.workload.text import format as format_workload
from fuzzer.writelog.fate import Fate
from fuzzer.writelog.recipe import say_state

MAX_MAIL_LINES = 60
_MAIL_WIDTH = 76
_MAX_MAIL_LOG, _MAX_MAIL_WORKLOAD, _MAX_MAIL_KERNEL = 12, 26, 8
_MAX_ROWS = 200


def sentence(dossier: Dossier) -> str:
    """What was promised and lost, in one sentence."""
    finding = dossier.saved.finding
    if not finding.violations:
        return finding.title
    first = finding.violations[0]
    return (
        f"On {finding.fs}, {first['subject']}: promised was {first['promised']}; {_when(dossier)}: "
        f"{first['found']}."
    )


def _when(dossier: Dossier) -> str:
    if dossier.saved.state is None:
        return f"on the live mount, {dossier.saved.view.words}"
    return "after the power cut"


def html_report(dossier: Dossier) -> str:
    """The page of `triage report ID`."""
    finding = dossier.saved.finding
    kernel = "\n".join(alarm_lines(dossier.saved.kernel_lines()))
    parts = [
        element("p", sentence(dossier)),
        _facts(dossier),
        section(
            "Timeline", element("p", _legend(dossier), class_="dim"), draw_timeline(build_timeline(dossier))
        ),
        section("Promised and recovered", _diff(diff_tree(dossier))),
        section("Device log", _log(dossier)),
        section("Workload", element("pre", format_workload(dossier.saved.workload))),
    ]
    if kernel:
        parts.append(section("Kernel log", element("pre", kernel)))
    parts.append(section("How to see it", element("pre", "\n".join(_reproduce(dossier)))))
    return page(f"{finding.id}: {_headline(dossier)}", *parts)


def _headline(dossier: Dossier) -> str:
    first = dossier.saved.finding.violations
    return f"{first[0]['rule']}: {first[0]['kind']}" if first else dossier.saved.finding.title


def _legend(dossier: Dossier) -> str:
    sync = dossier.sync
    zero = f"Microseconds since {sync.op.brief!r} of actor {sync.actor} began" if sync else "Microseconds"
    return f"{zero}; what the promise is about stands out."


def _facts(dossier: Dossier) -> Html:
    finding, workload = dossier.saved.finding, dossier.saved.workload
    k, n = finding.reproduced
    state = dossier.saved.state
    pairs = [
        ("seen", f"{k} of {n} runs"),
        ("kernel", finding.kernel),
        (
            "file system",
            " ".join(filter(None, (finding.fs, workload.mkfs, workload.mount and f"-o {workload.mount}"))),
        ),
        ("amplifiers", "; ".join(_amplifiers(workload))),
        ("crash", say_state(state) if state else f"none: seen on the live mount, {dossier.saved.view.words}"),
        ("status", " — ".join(filter(None, (finding.standing, finding.reason)))),
        ("known bug", describe_known(finding.known) if finding.known else ""),
        ("planted", finding.canary),
        ("bucket", finding.bucket),
        ("source", str(finding.violations[0]["source"]) if finding.violations else ""),
        ("recorder", finding.recorder),
        ("found", finding.created),
    ]
    rows = (part for name, value in pairs if value for part in (element("dt", name), element("dd", value)))
    return element("dl", *rows)


def _diff(rows: tuple[DiffRow, ...]) -> Html:
    chosen = sorted(rows, key=lambda row: not row.broken)[:_MAX_ROWS]
    body = (("bad" if row.broken else "", (row.subject, row.expected, row.found)) for row in chosen)
    return table(("what", "expected", "recovered"), body)


def _log(dossier: Dossier) -> Html:
    if dossier.log is None:
        return element("p", "The device log was not kept.", class_="dim")
    return table(("entry", "us", "flags", "bytes", "what", "fate"), _log_rows(dossier, log_lines(dossier)))


def _log_rows(dossier: Dossier, lines: tuple[LogLine, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    state = dossier.saved.state
    if len(lines) > _MAX_ROWS:
        yield "dim", ("", "", "", "", f"{len(lines) - _MAX_ROWS} more before", "")
    for line in lines[-_MAX_ROWS:]:
        if state is not None and line.index == state.point:
            yield "cut", ("", "", "", "", "power was cut here", "")
        time = "" if line.time_us is None else f"{line.time_us:.0f}"
        kind = {Fate.LOST: "bad", Fate.TORN: "bad", Fate.AFTER: "dim"}.get(line.fate, "")
        yield kind, (str(line.index), time, line.flags, line.place, line.text, line.fate)


def _reproduce(dossier: Dossier) -> Iterator[str]:
    finding = dossier.saved.finding
    yield f"powercut triage repro {finding.id} --times 20   # the recorded crash state, then 20 runs"
    yield f"powercut run FILE --fs {finding.fs} --repeat 20   # only the workload above, put into FILE"
    if finding.command:
        yield f"# found by: {finding.command}"


# ---------------------------------------------------------------------------------------- mail


def mail_report(dossier: Dossier) -> str:
    """A plain-text mail of at most 60 lines: subject, what is lost, workload, the log around it."""
    finding = dossier.saved.finding
    k, n = finding.reproduced
    lines = [_clip(f"Subject: {finding.fs}: {_headline(dossier)} after power failure", _MAIL_WIDTH), ""]
    lines += _wrap(sentence(dossier))
    if finding.violations:
        lines += _wrap(f"Source of the promise: {finding.violations[0]['source']}")
    lines += ["", f"Kernel {finding.kernel}, seen in {k} of {n} runs."]
    lines += _wrap(f"Options: {_options(dossier)}") if _options(dossier) else []
    lines += _wrap(describe_known(finding.known)) if finding.known else []
    blocks = [
        _block("Workload (all actors start together):", list(_bare(dossier)), _MAX_MAIL_WORKLOAD),
        _block(
            "Device log from before the promise to the power cut:", list(_mail_log(dossier)), _MAX_MAIL_LOG
        ),
        _block("Kernel log:", list(alarm_lines(dossier.saved.kernel_lines())), _MAX_MAIL_KERNEL),
    ]
    for block in blocks:
        if len(lines) + len(block) <= MAX_MAIL_LINES:
            lines += block
    return "\n".join(lines[:MAX_MAIL_LINES]) + "\n"


def _options(dossier: Dossier) -> str:
    workload = dossier.saved.workload
    return ", ".join(
        part
        for part in (
            workload.mkfs and f"mkfs {workload.mkfs}",
            workload.mount and f"mount -o {workload.mount}",
            *_amplifiers(workload),
        )
        if part
    )


def _amplifiers(workload: Workload) -> tuple[str, ...]:
    """What of the workload, besides its ops, makes races likelier: who wants to see it again needs it too."""
    held = (f"I/O held back: {workload.delay}",) if workload.delay else ()
    memory = (f"{workload.memory >> 20} MiB of memory",) if workload.memory else ()
    noise = any(a.sched != "other" or a.cpu is not None for a in workload.actors)
    return (*held, *memory, *(("actors scheduled as said below",) if noise else ()))


def _bare(dossier: Dossier) -> Iterator[str]:
    """The workload from its first block on: title, seed and size say nothing about the bug."""
    blocks = False
    for line in format_workload(dossier.saved.workload).splitlines():
        blocks = blocks or line.startswith(("setup", "actor"))
        if blocks and line:
            yield line


def _mail_log(dossier: Dossier) -> Iterator[str]:
    """Equal neighbours (btrfs writes metadata twice) as one line."""
    lines = (line for line in log_lines(dossier) if line.fate is not Fate.AFTER)
    for text, group in groupby(map(_log_text, lines)):
        n = len(list(group))
        yield text if n == 1 else f"{n} x {text}"


def _log_text(line: LogLine) -> str:
    flags = "" if line.flags == line.text else line.flags
    return " ".join(filter(None, (flags, line.text, f"[{line.fate}]" if line.fate else "")))


def _block(title: str, lines: list[str], most: int) -> list[str]:
    if not lines:
        return []
    cut = [*lines[: most // 2], f"... {len(lines) - most} more lines", *lines[-(most // 2) :]]
    shown = lines if len(lines) <= most + 1 else cut
    return ["", title, "", *(_clip(f"  {line}", _MAIL_WIDTH) for line in shown)]


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(_plain(text), _MAIL_WIDTH)


def _clip(text: str, width: int) -> str:
    plain = _plain(text)
    return plain if len(plain) <= width else plain[: width - 3] + "..."


def _plain(text: str) -> str:
    """Nothing that a terminal or a mail program would take for something else than text."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
