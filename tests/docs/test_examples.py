"""The examples of the front page and of the Python API, run in the order in which a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.markdown import ROOT, blocks, commands, documents

README, API, RECIPES = ROOT / "README.md", ROOT / "modtrain" / "README.md", ROOT / "modtrain" / "recipes" / "README.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the recipe of the front page as `my_gan.py`."""
    (tmp_path / "my_gan.py").write_text(blocks(README, "python")[0])
    return tmp_path


def run(folder: Path, *words: str) -> str:
    """The output of a Python process in `folder`."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_front_pages_recipe_learns_its_distribution_and_is_used_from_python(folder: Path) -> None:
    launched = next(words for words in commands(README) if "./my_gan.py" in words)
    run(folder, "-m", "modtrain", *launched, "--backend", "local")
    *_, line = (folder / "runs" / "my-gan" / "evaluation" / "metrics.jsonl").read_text().splitlines()
    metrics = json.loads(line)["metrics"]
    assert abs(metrics["mean"] - 3) < 0.3
    assert 0.2 < metrics["std"] < 0.8
    example = blocks(README, "python")[1]
    assert "'loss': " in run(folder, "-c", example)


@pytest.mark.timeout(600)
def test_the_examples_of_the_python_api_run_one_after_the_other(folder: Path) -> None:
    printed = run(folder, "-c", "\n".join(blocks(API, "python")))
    assert "[['generator'], ['discriminator']]" in printed
    assert "'std': " in printed
    assert printed.count("finished") == 2


def test_no_other_page_has_python_that_is_not_run() -> None:
    """`tests/recipes/test_tutorial_ring.py` runs that of the recipes' page."""
    assert [page for page in documents() if blocks(page, "python")] == [README, API, RECIPES]
