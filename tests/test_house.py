"""The house rules that a test can hold: package order, no circles, quick imports, sizes, names."""

from __future__ import annotations

import ast
import inspect
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import modtrain
from tests.support.order import FIRST

ROOT = Path(modtrain.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ORDER = (
    "errors",
    "plugins",
    "storage",
    "nets",
    "data",
    "metrics",
    "recipes",
    "training",
    "scheduling",
    "sweeps",
    "monitoring",
    "bench",
    "dashboard",
    "cli",
    "__main__",
)
"""The packages and files from the bottom up: each imports only from those before it."""
MOST_LINES, MOST_FUNCTION_LINES, MOST_FILES, MOST_TOP = 400, 60, 25, 16
HEAVY = ("torch", "ray", "skimage", "numpy", "starlette", "uvicorn", "plotly", "jinja2")
TORCHLESS = ("storage", "scheduling", "sweeps", "monitoring", "cli")


def package(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in FILES}


def imported(path: Path) -> Iterator[str]:
    """The dotted names of the package's files that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "modtrain":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("modtrain.")]
        yield from names


def test_a_package_imports_only_from_those_below_it() -> None:
    wrong = [
        f"{dotted(path)} imports {name}"
        for path in FILES
        if path != ROOT / "__init__.py"
        for name in imported(path)
        if name != "modtrain" and ORDER.index(name.split(".")[1]) > ORDER.index(package(path))
    ]
    assert wrong == []


def test_files_import_each_other_in_no_circle() -> None:
    graph = {name: {other for other in imported(path) if other != name} for name, path in MODULES.items()}
    assert circles(graph) == []


def circles(graph: dict[str, set[str]]) -> list[str]:
    """What is left when every file that imports none of the rest, or that none of the rest imports, is taken away."""
    rest = {name: set(others) for name, others in graph.items() if name != "modtrain"}
    while True:
        needed = set().union(*rest.values()) if rest else set()
        ends = {name for name, others in rest.items() if not others & rest.keys() or name not in needed}
        if not ends:
            return sorted(rest)
        rest = {name: others for name, others in rest.items() if name not in ends}


def test_a_circle_would_be_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == ["a", "b", "c"]


def test_only_the_standalone_worker_and_the_actor_import_the_worker_into_scheduling() -> None:
    importers = {
        path.name
        for path in FILES
        if package(path) in ("scheduling", "sweeps", "monitoring")
        for name in imported(path)
        if name in ("modtrain.training.worker", "modtrain.training.worker_process")
    }
    assert importers <= {"standalone_worker.py"}


def loaded(code: str) -> set[str]:
    """Which of the heavy packages a piece of code loads, in a process of its own."""
    code += f"\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["modtrain", "modtrain.cli", "modtrain.scheduling.launcher", "modtrain.storage.run"])
def test_nothing_heavy_is_loaded_at_import(module: str) -> None:
    assert loaded(f"import {module}") == set()


@pytest.mark.parametrize("name", TORCHLESS)
def test_no_file_of_a_package_that_starts_quickly_loads_torch(name: str) -> None:
    """`standalone_worker` is what a job runs: it is the worker's process."""
    files = [module for module, path in MODULES.items() if package(path) == name and not module.endswith("__main__")]
    files = [module for module in files if module != "modtrain.scheduling.standalone_worker"]
    assert "torch" not in loaded("\n".join(f"import {module}" for module in files))


def test_the_public_names_are_exactly_these() -> None:
    assert modtrain.__all__ == [
        "Backend",
        "Batch",
        "Checkpoint",
        "CheckpointStore",
        "Config",
        "Data",
        "EarlyStop",
        "Evaluation",
        "Job",
        "JobState",
        "ModtrainError",
        "Module",
        "Nets",
        "Reads",
        "Recipe",
        "Resources",
        "Run",
        "Stage",
        "Sweep",
        "launch",
        "load",
    ]
    assert dir(modtrain) == modtrain.__all__
    assert inspect.isfunction(modtrain.launch)
    assert inspect.isfunction(modtrain.load)
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


def test_packages_files_and_functions_fit_in_the_eye() -> None:
    lengths = [length(function) for path in FILES for function in functions(path)]
    assert max(lengths) <= MOST_FUNCTION_LINES
    assert statistics.median(lengths) < 10
    assert {path.name: n for path in FILES if (n := len(path.read_text().splitlines())) > MOST_LINES} == {}
    folders = {path.parent for path in FILES}
    counts = {dotted(folder): len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: count for name, count in counts.items() if count > MOST_FILES} == {}
    top = [path.name for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"]
    assert len([name for name in top if name != "__pycache__"]) <= MOST_TOP


@pytest.mark.parametrize("path", FILES, ids=str)
def test_everything_public_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a file says what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_") and node in tree.body:
            assert ast.get_docstring(node), f"{node.name} is not documented"


def test_the_test_files_that_start_first_exist() -> None:
    assert [name for name in FIRST if not (ROOT.parent / "tests" / name).exists()] == []


def test_only_the_training_step_calls_backward() -> None:
    """And the plain loops with which it is compared."""
    callers = {path.name for path in FILES if ".backward(" in path.read_text()}
    loops = {"plain_cyclegan.py", "plain_gan.py"}
    assert callers == {"train_step.py", *loops}


def test_the_command_line_prints_only_through_output_and_the_console() -> None:
    """They escape control characters, which could come from any file."""
    direct = re.compile(
        r"typer\.s?echo|click\.s?echo|(?<![\w.])print\(|sys\.std(out|err)\.write|(?<!_)Console\(|csv\.writer|\[/\]"
    )
    files = [path for path in FILES if package(path) == "cli" and path.name not in ("output.py", "terminal.py")]
    found = {path.name: match.group() for path in files if (match := direct.search(path.read_text()))}
    assert found == {}
