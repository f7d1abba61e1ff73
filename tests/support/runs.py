"""Making and running small runs in tests: real worker processes, as every backend starts them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modtrain.recipes.loading import load_recipe
from modtrain.scheduling.config import Config, new_spec
from modtrain.storage.run import Run
from modtrain.training.worker_process import work


def make_run(path: Path, recipe: Path | str, placement: Sequence[Sequence[str]], **values: Any) -> Run:
    """A new run of a recipe with everything else from `values` (names of a config file), not evaluated meanwhile."""
    config = Config(recipe=str(recipe), **{"evaluate_every": 0, **values})
    return Run.create(path, new_spec(config, load_recipe(str(recipe)), [list(group) for group in placement]))


def start_worker(run: Run, modules: str) -> subprocess.Popen[str]:
    """`modtrain worker` as a process."""
    command = [sys.executable, "-m", "modtrain", "worker", str(run.path), "--modules", modules, "--threads", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(run: Run, *modules: str) -> None:
    """`modtrain worker` in this process: it returns when the modules are finished, else it raises."""
    work(run, modules or run.modules, threads=1)


def train_apart(run: Run, *workers: Sequence[str]) -> None:
    """Run every worker of the run, or these, at once, as threads of this process."""
    errors: list[BaseException] = []

    def one(modules: Sequence[str]) -> None:
        try:
            finish(run, *modules)
        except BaseException as error:
            errors.append(error)
            run.request_stop("another worker failed")

    threads = [threading.Thread(target=one, args=(modules,)) for modules in workers or run.spec.placement]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def weights_of(run: Run) -> dict[str, str]:
    """sha256 of the newest published weights by module."""
    newest = {module: run.store(module).latest() for module in run.modules}
    return {module: c.files["weights.safetensors"]["sha256"] for module, c in newest.items() if c}
