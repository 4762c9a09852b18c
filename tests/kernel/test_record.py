"""`powercut record` and `--check`: real programs, marks, verdicts of a checker, and what can fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fuzzer.errors import ExitCode, InputError
from fuzzer.kernel import procfs
from fuzzer.kernel.journal import RUN_ROOT, read_journals
from fuzzer.kernel.process import wait_until
from fuzzer.kernel.program import Program, run_program
from fuzzer.kernel.sweep import sweep
from fuzzer.kernel.workarea import RUN_VARIABLE, RunArea
from fuzzer.writelog.format import Log, read_log
from fuzzer.writelog.joined import split_log
from fuzzer.writelog.marks import PROGRAM_MARK_PREFIX, marks_before
from fuzzer.writelog.model import MARK_MKFS, Entry

pytestmark = pytest.mark.kernel

_EXAMPLE = Path(__file__).parents[2] / "scripts/sqlite-example"
_INTERRUPTED = 130

_SAY = """
import os, socket
def say(line):
    with socket.socket(socket.AF_UNIX) as marks:
        marks.connect(os.environ["POWERCUT_MARKS"])
        marks.sendall(line)
        return marks.recv(200)
"""

_SYNCED_FILES = (
    _SAY
    + """
for number in range(3):
    fd = os.open(str(number), os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x" * 4096)
    os.fsync(fd)
    assert say(b"file %d\\n" % number) == b"ok\\n"
"""
)

_ALL_THERE = """
import os, sys
for line in open(os.environ["POWERCUT_MARKS"]):
    if os.path.getsize(line.split()[1]) != 4096:
        sys.exit("file too short")
open("scratch", "w").write("the mount is a throw-away copy")
assert os.getcwd() == os.environ["POWERCUT_MOUNT"] and int(os.environ["POWERCUT_POINT"]) > 0
"""


def _powercut(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzzer", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=cwd)


def _record(cwd: Path, code: str, *options: str | Path, log: str = "log") -> subprocess.CompletedProcess[str]:
    return _powercut("record", "--log", log, *options, "--", sys.executable, "-c", code, cwd=cwd)


def _events(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def _script(directory: Path, code: str) -> str:
    path = directory / "check.py"
    path.write_text(code)
    return f"{sys.executable} {path}"


def _said(log: Log) -> tuple[bytes, ...]:
    run = split_log(log)
    return marks_before(run.entries[run.start :])


def _is_said(entry: Entry) -> bool:
    return entry.mark.startswith(PROGRAM_MARK_PREFIX)


def test_a_program_is_recorded_and_its_log_replayed(tmp_path: Path, fs: str) -> None:
    code = (
        _SYNCED_FILES + "\nprint('spoken', os.getcwd() == os.environ['POWERCUT_MOUNT'])\nraise SystemExit(3)"
    )
    done = _record(tmp_path, code, "--fs", fs, "--json")
    assert done.returncode == ExitCode.NOTHING_FOUND, done.stderr
    (recorded,) = _events(done)
    assert recorded["event"] == "recorded"
    assert (recorded["status"], recorded["killed"], recorded["marks"]) == (3, False, 3)
    assert "spoken True" in done.stderr
    log = read_log(tmp_path / "log", mapped=False)
    assert log.is_complete
    assert next(entry.mark for entry in log.entries if entry.is_mark) == MARK_MKFS
    assert _said(log) == (b"file 0", b"file 1", b"file 2")
    # A mark is a crash point, and all that was synced before it is in front of it.
    replayed = _powercut("replay", "log", "--check", _script(tmp_path, _ALL_THERE), "--json", cwd=tmp_path)
    assert replayed.returncode == ExitCode.NOTHING_FOUND, replayed.stdout + replayed.stderr
    (summary,) = _events(replayed)
    by_rule = summary["judged_by_rule"]
    assert isinstance(by_rule, dict)
    assert isinstance(summary["unique_states"], int)
    assert by_rule["check"] >= summary["unique_states"] > 3


def test_what_is_announced_too_early_is_found(tmp_path: Path, fs: str) -> None:
    """A program that says so before its fsync: the checker's output is the finding."""
    code = _SYNCED_FILES.replace("    os.fsync(fd)\n", "")
    check = _script(tmp_path, _ALL_THERE.replace("for line", "print('looking')\nfor line"))
    done = _record(tmp_path, code, "--fs", fs, "--json", "--check", check)
    assert done.returncode == ExitCode.FINDING, done.stderr
    _, finding, summary = _events(done)
    assert (finding["rule"], finding["kind"], summary["findings"]) == ("check", "failed", 1)
    found = str(finding["found"])
    assert found.startswith("looking")
    assert "FileNotFoundError" in found
    # The first mark is enough, though the image is the one that was fine before it.
    first = next(e for e in read_log(tmp_path / "log", mapped=False).entries if _is_said(e))
    assert finding["state"] == {"crash": 1, "point": first.index + 1, "kept": "nothing"}
    assert len(_powercut("replay", "log", "--check", check, cwd=tmp_path).stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("modes", "status", "says"),
    [
        ("delete extra", ExitCode.NOTHING_FOUND, ""),
        ("wal full", ExitCode.NOTHING_FOUND, ""),
        # What its manual says of FULL: without the directory's sync, that only EXTRA does, the unlink of
        # the journal that was the commit may be undone (https://sqlite.org/pragma.html#pragma_synchronous).
        ("delete full", ExitCode.FINDING, "1 rows were committed, there are 0"),
        ("delete off", ExitCode.FINDING, "corrupt: "),
    ],
)
def test_sqlite(tmp_path: Path, fs: str, modes: str, status: ExitCode, says: str) -> None:
    check = f"{sys.executable} {_EXAMPLE / 'checker.py'}"
    command = [sys.executable, _EXAMPLE / "writer.py", *modes.split(), "2"]
    done = _powercut("record", "--fs", fs, "--log", "log", "--check", check, "--", *command, cwd=tmp_path)
    assert done.returncode == status, done.stdout + done.stderr
    assert says in done.stdout
    assert len(done.stdout.splitlines()) == (status == ExitCode.FINDING)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--fs", "xfs", "--mkfs", "-b size=3"), "", "mkfs.xfs -b size=3 failed"),
        (("--mkfs", "/dev/sda x"), "", "mkfs option '/dev/sda' is not one of"),
        (("--mount", "no-such-option"), "", "does not mount"),
        (("--size", "1M"), "", "size"),
        (("--size", "many"), "", "is not a size"),
        (("--check", "no-such-checker"), "", "'no-such-checker' is no program"),
        (("--check", "'"), "", "No closing quotation"),
        (("--check", ""), "", "is no program"),
        (("--points", "flush"), "", "give --check"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, options: Sequence[str], code: str, says: str) -> None:
    done = _record(tmp_path, code, *options)
    assert done.returncode == ExitCode.BAD_INPUT, done.stderr
    assert says in done.stderr
    assert not (tmp_path / "log").exists()


def test_a_program_that_is_none_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program")
    for program in ("no-such-program", text):
        done = _powercut("record", "--log", "log", "--", program, cwd=tmp_path)
        assert done.returncode == ExitCode.BAD_INPUT
        assert f"'{program}' is no program that can be run" in done.stderr
    text.chmod(0o755)
    done = _powercut("record", "--log", "log", "--", text, cwd=tmp_path)
    assert done.returncode == ExitCode.BAD_INPUT, done.stderr
    assert f"cannot run {text}: Exec format error" in done.stderr


@pytest.mark.parametrize("where", [".", "no/such/directory", "/dev/null", "/dev/full"])
def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path, where: str) -> None:
    done = _record(tmp_path, "", log=where)
    assert done.returncode == ExitCode.BAD_INPUT
    assert f"{where}: the log cannot be written" in done.stderr


def test_a_log_that_can_no_longer_be_written_is_an_error(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    done = _record(tmp_path, f"import os; os.rmdir({str(directory)!r})", log="logs/log")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "logs/log: the log cannot be written: No such file" in done.stderr


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit(2)", "ended with status 2"),
        ("import os; print('last words', flush=True); os.kill(os.getpid(), 9)", "was killed by signal 9"),
        ("import time; time.sleep(60)", "did not end in 1 s"),
    ],
)
def test_a_checker_that_fails_gives_no_verdict(tmp_path: Path, code: str, says: str) -> None:
    done = _record(tmp_path, "", "--check", _script(tmp_path, code), "--check-time", "1s")
    assert done.returncode == ExitCode.INFRASTRUCTURE, done.stderr
    assert "no verdict" in done.stderr
    assert says in done.stderr
    assert ("last words" in done.stderr) == ("last words" in code)


def test_a_program_is_killed_in_time_with_all_it_started(tmp_path: Path, fs: str) -> None:
    code = _SAY + (
        "import subprocess, time\n"
        "subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"  # keeps the mount as its directory
        "say(b'started\\n')\n"
        "time.sleep(1000)\n"
    )
    done = _record(tmp_path, code, "--fs", fs, "--time", "3s", "--json")
    assert done.returncode == ExitCode.NOTHING_FOUND, done.stderr
    (recorded,) = _events(done)
    assert recorded["killed"]
    assert _said(read_log(tmp_path / "log", mapped=False)) == (b"started",)


def test_daemons_do_not_outlive_their_program(area: RunArea) -> None:
    code = (
        "import subprocess; subprocess.Popen(['sh', '-c', 'sleep 1000 & sleep 1000'], start_new_session=True)"
    )
    program = Program(argv=(sys.executable, "-c", code), cwd=Path("/"), timeout_s=30)
    assert run_program(area, program, keep_output=True).status == 0
    assert _carriers(area.run_id) == []


def test_long_output_is_cut(area: RunArea) -> None:
    program = Program(argv=(sys.executable, "-c", "print('x' * 10_000_000)"), cwd=Path("/"), timeout_s=30)
    ended = run_program(area, program, keep_output=True)
    assert ended.status == 0
    assert 1000 < len(ended.output) < 100_000
    with pytest.raises(InputError):
        run_program(area, Program(argv=("/dev/null",), cwd=Path("/"), timeout_s=1))


def test_lines_that_are_no_marks_are_answered(tmp_path: Path) -> None:
    code = _SAY + (
        "assert say(b'\\xff two words %20 = 1\\n') == b'ok\\n'\n"
        "assert say(b'\\n') == b'ok\\n'\n"
        "assert say(b'mkfs\\ndm-log-writes-end\\n').startswith(b'ok\\n')\n"
        "assert say(b'x' * 1000 + b'\\n').startswith(b'error: ')\n"
        "assert say(b'x' * 100_000).startswith(b'error: the line is too long')\n"
    )
    done = _record(tmp_path, code, "--json")
    assert _events(done)[0]["status"] == 0, done.stderr
    log = read_log(tmp_path / "log", mapped=False)
    assert log.is_complete
    assert _said(log) == (b"\xff two words %20 = 1", b"", b"mkfs", b"dm-log-writes-end")


# ------------------------------------------------------------------------------ interrupted and killed


def _carriers(run_id: str) -> list[int]:
    return [pid for pid in procfs.processes() if procfs.has_variable(pid, RUN_VARIABLE, run_id)]


def _start(cwd: Path, *options: str) -> subprocess.Popen[str]:
    code = (
        "import subprocess; subprocess.Popen(['sleep', '1000']); open('here', 'w'); print('up', flush=True); "
    )
    code += "import time; time.sleep(1000)"
    return subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "fuzzer",
                "record",
                "--log",
                "log",
                *options,
                "--",
                sys.executable,
                "-c",
                code,
            )
        ],
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def _wait_until_up(recording: subprocess.Popen[str]) -> str:
    """The id of its run, once the program runs."""
    assert recording.stderr is not None
    assert recording.stderr.readline() == "up\n"
    (run_id,) = (left.run_id for left in read_journals() if left.owner_pid == recording.pid)
    assert len(_carriers(run_id)) == 2
    return run_id


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_recording_keeps_its_log(tmp_path: Path, number: signal.Signals) -> None:
    with _start(tmp_path) as recording:
        run_id = _wait_until_up(recording)
        recording.send_signal(number)
        assert recording.wait(60) == _INTERRUPTED
    assert read_log(tmp_path / "log", mapped=False).is_complete
    assert _carriers(run_id) == []
    assert not (RUN_ROOT / run_id).exists()


def test_a_killed_recording_is_swept_up(tmp_path: Path, fs: str) -> None:
    with _start(tmp_path, "--fs", fs) as recording:
        run_id = _wait_until_up(recording)
        os.kill(recording.pid, signal.SIGKILL)
    sweep()
    wait_until(lambda: not _carriers(run_id), 5.0)
    assert _carriers(run_id) == []
    assert not (RUN_ROOT / run_id).exists()
    assert [m.path for m in procfs.mounts() if m.path.is_relative_to(RUN_ROOT / run_id)] == []
