"""Weights & Biases: one W&B run for each worker, in a group named as the run; a restarted worker continues its run.

Without WANDB_API_KEY or WANDB_MODE nothing goes to the network: it writes to `<run>/tracking/wandb`, for `wandb sync`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from modtrain.training.trackers.base import FOLDER, Subject, settings


class WandB:
    """One W&B run."""

    package: ClassVar[str] = "wandb"

    def __init__(self, subject: Subject) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else wandb sends its own errors to its vendor
        import wandb

        logging.raiseExceptions = False  # else every line of W&B's own log prints a traceback on a full disk
        self._wandb: Any = wandb
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        if mode == "online":
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
        """Log `module/scalar` over the training step; W&B's own step only counts calls."""
        self._run.log({f"{module}/{name}": value for name, value in values.items()} | {"step": step})

    def picture(self, path: Path, *, step: int, at: float) -> None:
        self._run.log({"samples": self._wandb.Image(str(path)), "step": step})

    def close(self, state: str) -> None:
        self._run.finish(exit_code=int(state == "failed"))


tracker = WandB


def _log_in(wandb: Any) -> None:
    """Log in without a prompt: by default W&B asks for a key on the terminal of a worker that has one."""
    try:
        logged_in = wandb.login(prompt=False)
    except TypeError:  # an older wandb, without this option
        logged_in = wandb.api.api_key
    if not logged_in:
        raise RuntimeError("W&B has no API key: set WANDB_API_KEY, or run `wandb login` once")
