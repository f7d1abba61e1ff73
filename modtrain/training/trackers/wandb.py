"""Weights & Biases: a W&B run a worker, in a group that bears the run's name; a worker that comes again continues it.

Nothing goes to the network unasked: without WANDB_API_KEY or WANDB_MODE it is offline, in `<run>/tracking/wandb`, for
`wandb sync`. Deliberately not here: W&B's own sweeps, system metrics and code saving.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from modtrain.training.trackers.base import FOLDER, Subject, settings

EXIT_CODES = {"finished": 0, "stopped": 0, "preempted": 0}


class WandB:
    """One W&B run."""

    package: ClassVar[str] = "wandb"

    def __init__(self, subject: Subject) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # or wandb reports its own errors to its makers
        import wandb

        logging.raiseExceptions = False  # W&B logs to a file of its own: on a full disk each line became a traceback
        self._wandb: Any = wandb
        if (mode := _mode()) == "online":
            _log_in(wandb)
        folder = subject.run.path / FOLDER
        folder.mkdir(exist_ok=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "modtrain",
            dir=str(folder),
            id=subject.key,
            name=f"{subject.run.name} {subject.name}",
            group=subject.run.name,
            job_type="evaluation" if subject.step is None else "worker",
            config=settings(subject.run),
            resume="allow",
            mode=mode,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True
            ),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, module: str, values: Mapping[str, float], *, step: int, at: float) -> None:
        """Named `module/scalar`, over our own step: W&B's only counts calls."""
        self._run.log({f"{module}/{name}": value for name, value in values.items()} | {"step": step})

    def picture(self, path: Path, *, step: int, at: float) -> None:
        """The sample grid as an image."""
        self._run.log({"samples": self._wandb.Image(str(path)), "step": step})

    def close(self, state: str) -> None:
        """Write the rest."""
        self._run.finish(exit_code=EXIT_CODES.get(state, 1))


tracker = WandB


def _log_in(wandb: Any) -> None:
    """A worker has nobody whom it could ask for a key: W&B would ask its terminal, where it has one."""
    try:
        known = wandb.login(prompt=False)
    except TypeError:  # of an older wandb, which has no such option
        known = wandb.api.api_key
    if not known:
        raise RuntimeError("W&B knows no API key here: set WANDB_API_KEY, or run `wandb login` once")


def _mode() -> Any:
    return os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
