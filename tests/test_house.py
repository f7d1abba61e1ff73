"""The house rules that a test can hold: import order, nothing heavy at import, sizes, public names, the README."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import modtrain
from modtrain import errors, plugins
from modtrain.cli import app

ROOT = Path(modtrain.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ORDER = (
    "errors",
    "fs",
    "tail",
    "columns",
    "folder",
    "plugins",
    "recipe",
    "params",
    "profile",
    "jobscript",
    "checkpoint",
    "store",
    "whole",
    "run",
    "logbook",
    "pulse",
    "status",
    "history",
    "recent",
    "tracking",
    "alarms",
    "backends",
    "jobs",
    "claim",
    "data",
    "nets",
    "metrics",
    "state",
    "peers",
    "placement",
    "config",
    "dimensions",
    "space",
    "stopwatch",
    "study",
    "curve",
    "leaving",
    "trainee",
    "worker",
    "process",
    "costs",
    "evaluate",
    "unattended",
    "prepare",
    "launch",
    "outcome",
    "trials",
    "tasks",
    "glance",
    "catalog",
    "queue",
    "sweep",
    "dialogue",
    "doctor",
    "bench",
    "recipes",
    "dashboard",
    "cli",
    "__main__",
)
"""The files in reading order: each imports only from above (and from beside it, in its own folder)."""


def place(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[str]:
    """The places in the package that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "modtrain":
            names = [node.module] if node.module != "modtrain" else [f"modtrain.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("modtrain.")]
        yield from (name.split(".")[1] for name in names)


@pytest.mark.parametrize("path", [path for path in FILES if path != ROOT / "__init__.py"], ids=str)
def test_a_file_imports_only_from_above(path: Path) -> None:
    own = ORDER.index(place(path))
    for other in imported(path):
        assert ORDER.index(other) <= own, f"{path.name} imports {other}, which stands below it"


def test_launch_backends_and_status_never_import_the_worker() -> None:
    for name in ("launch", "status", "backends", "jobs", "sweep"):
        for path in FILES:
            if place(path) == name:
                assert not {"worker", "process"} & set(imported(path))


@pytest.mark.parametrize("module", ["modtrain", "modtrain.cli", "modtrain.launch", "modtrain.status", "modtrain.store"])
def test_nothing_heavy_is_loaded_at_import(module: str) -> None:
    heavy = ("torch", "ray", "torchvision", "skimage", "numpy", "starlette", "uvicorn", "plotly", "jinja2")
    code = f"import {module}, sys; print([name for name in {heavy!r} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"


def test_the_public_names_are_exactly_these() -> None:
    assert modtrain.__all__ == [
        "Backend",
        "Checkpoint",
        "CheckpointStore",
        "Job",
        "JobState",
        "ModtrainError",
        "Module",
        "Recipe",
        "Resources",
        "Run",
        "Sweep",
        "launch",
    ]
    for name in modtrain.__all__:
        assert getattr(modtrain, name).__doc__, f"{name} is not documented"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines without the docstring."""
    first = function.body[0]
    text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if text else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_files_and_functions_fit_in_the_eye() -> None:
    lengths = [length(function) for path in FILES for function in functions(path)]
    assert max(lengths) <= 60
    assert statistics.median(lengths) < 10
    assert {path.name: lines for path in FILES if (lines := len(path.read_text().splitlines())) > 300} == {}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_everything_public_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a file says what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_") and node in tree.body:
            assert ast.get_docstring(node), f"{node.name} is not documented"


def test_only_the_worker_calls_backward() -> None:
    callers = {path.name for path in FILES if ".backward(" in path.read_text()}
    assert callers == {"worker.py"}


def test_the_readme_names_every_command_recipe_and_exit_code() -> None:
    readme = (ROOT.parent / "README.md").read_text()
    named = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    commands = [name.replace("_", "-") for name in named]
    assert len(commands) >= 8
    for command in commands:
        assert f"modtrain {command}" in readme
    for error in (errors.ModtrainError, *errors.ModtrainError.__subclasses__()):
        assert f"| {error.exit_code} |" in readme
    for recipe in plugins.built_in("recipe"):
        assert recipe in readme
