"""Rules of the house that a machine can check: lint, format, types, imports, sizes, packaging."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for top in ("fuzzer", "oracles") for path in (ROOT / top).rglob("*.py"))

_LAYERS = {
    "fuzzer.cli": 0,
    "fuzzer.__main__": 0,
    "fuzzer.campaign": 1,
    "fuzzer.triage": 1,
    "fuzzer.kernel": 2,
    "fuzzer.target": 2,
    "oracles": 2,
    "fuzzer.drafts": 3,
    "fuzzer.workload": 3,
    "fuzzer.writelog": 3,
    "fuzzer.state": 3,
    "fuzzer.errors": 4,
}
"""Imports go to a layer with a higher number, or stay in their own layer."""

_FORBIDDEN_PAIRS = {("oracles", "fuzzer.kernel"), ("fuzzer.kernel", "oracles"), ("oracles", "fuzzer.target")}
_KERNEL_ONLY = {"ctypes", "fcntl", "subprocess", "pyfuse3", "psutil"}
_MAX_FILE_LINES, _MAX_FUNCTION_LINES = 450, 60


def _tool(*argv: str) -> None:
    """Run a linter that lives beside this Python; without it skip, but never in CI."""
    program = Path(sys.executable).parent / argv[0]
    if not program.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{argv[0]} is not installed")
        pytest.skip(f"{argv[0]} is not installed")
    done = subprocess.run([program, *argv[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_check() -> None:
    _tool("ruff", "check", "fuzzer", "oracles", "tests")


def test_ruff_format() -> None:
    _tool("ruff", "format", "--check", "fuzzer", "oracles", "tests")


def test_mypy() -> None:
    _tool("mypy")


def _name(path: Path) -> str:
    """Dotted module name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> Iterator[str]:
    """Dotted names a file imports; `from fuzzer import errors` counts as fuzzer.errors."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                module = ROOT.joinpath(*node.module.split("."), alias.name)
                is_module = module.is_dir() or module.with_suffix(".py").exists()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def _package(module: str) -> str | None:
    """The layer a module belongs to; None if it is not ours."""
    for package in _LAYERS:
        if module == package or module.startswith(package + "."):
            return package
    return None


def _back_edges(module: str, imported: Iterator[str]) -> list[str]:
    here = _package(module)
    assert here is not None, f"{module} belongs to no layer"
    wrong = []
    for name in imported:
        there = _package(name)
        if there is not None and (_LAYERS[there] < _LAYERS[here] or (here, there) in _FORBIDDEN_PAIRS):
            wrong.append(f"{module} imports {name}")
    return wrong


def test_imports_point_down() -> None:
    wrong = [
        edge
        for path in SOURCES
        if _name(path) != "fuzzer"
        for edge in _back_edges(_name(path), _imports(path))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "imported", "allowed"),
    [
        ("fuzzer.campaign.loop", "fuzzer.kernel.sweep", True),
        ("fuzzer.kernel.sweep", "fuzzer.campaign.loop", False),
        ("oracles.data", "fuzzer.kernel.loop", False),
        ("fuzzer.kernel.fsck", "oracles.data", False),
        ("fuzzer.state.tree", "fuzzer.kernel.libc", False),
        ("oracles.data", "fuzzer.state.tree", True),
    ],
)
def test_the_import_rule_itself(module: str, imported: str, allowed: bool) -> None:
    assert (_back_edges(module, iter([imported])) == []) == allowed


def test_only_the_kernel_package_touches_the_system() -> None:
    """`fuzzer.target` starts guests and runs as a guest's first process, so it may start programs too."""
    wrong = [
        f"{_name(path)} imports {name}"
        for path in SOURCES
        if _package(_name(path)) != "fuzzer.kernel"
        for name in _imports(path)
        if name.split(".")[0] in _KERNEL_ONLY
        and (_package(_name(path)), name) != ("fuzzer.target", "subprocess")
    ]
    assert wrong == []


def test_targets_use_no_devices_of_the_host() -> None:
    allowed = {f"fuzzer.kernel.{name}" for name in ("libc", "probe", "process", "procfs", "workarea")}
    wrong = [
        f"{_name(path)} imports {name}"
        for path in SOURCES
        if _package(_name(path)) == "fuzzer.target"
        for name in _imports(path)
        if _package(name) == "fuzzer.kernel" and name not in allowed
    ]
    assert wrong == []


def test_files_and_functions_stay_small() -> None:
    wrong = []
    for path in SOURCES:
        text = path.read_text()
        lines = len(text.splitlines())
        if lines > _MAX_FILE_LINES:
            wrong.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                length = node.end_lineno - node.lineno + 1
                if length > _MAX_FUNCTION_LINES:
                    wrong.append(f"{path.relative_to(ROOT)}: {node.name} has {length} lines")
    assert wrong == []


def test_every_module_says_what_it_is() -> None:
    texts = {_name(path): path.read_text() for path in SOURCES}
    assert [name for name, text in texts.items() if text and not ast.get_docstring(ast.parse(text))] == []


def test_packages_are_those_that_exist() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(_name(path) for path in SOURCES if path.name == "__init__.py")


def _committed() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_paths_of_one_machine() -> None:
    # Put together here, so that this file does not find itself.
    machine = re.compile("|".join("/" + name + "/" for name in (r"work", r"root", r"home/\w+")))
    wrong = []
    for path in _committed():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        wrong += [f"{path.relative_to(ROOT)}: {match[0]}" for match in machine.finditer(text)]
    assert wrong == []


def _is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return re.match(rb"#!.*\b(ba)?sh\b", file.readline()) is not None


def test_shell_scripts_parse_and_can_be_run() -> None:
    scripts = [path for path in _committed() if _is_shell(path)]
    assert scripts, "not even scripts/setup?"
    for script in scripts:
        done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert os.access(script, os.X_OK), f"{script} is not executable"
