"""MLflow: one MLflow run for each worker, found by a tag when the worker is restarted.

Without MLFLOW_TRACKING_URI nothing goes to the network: it is a file store in `<run>/tracking/mlruns`, in which each
worker writes files of its own, since many workers on NFS cannot share one SQLite file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from modtrain.training.trackers.base import FOLDER, Subject, settings

TAG = "modtrain.worker"
STATES = {"finished": "FINISHED", "stopped": "KILLED", "preempted": "KILLED"}
MOST_CHARACTERS = 500
"""Characters of a parameter's value that MLflow accepts."""
BATCH = 100
"""Parameters that MLflow accepts in one call."""


class MLflow:
    """One MLflow run."""

    package: ClassVar[str] = "mlflow"

    def __init__(self, subject: Subject) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        self._metric: Any = Metric
        uri, local = os.environ.get("MLFLOW_TRACKING_URI"), subject.run.path / FOLDER / "mlruns"
        if not uri:
            local.parent.mkdir(exist_ok=True)
        self._client: Any = MlflowClient(tracking_uri=uri or local.as_uri())
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or "modtrain") if uri else "0"
        if runs := self._client.search_runs([experiment], f"tags.`{TAG}` = '{subject.key}'", max_results=1):
            self._id = str(runs[0].info.run_id)
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._create(experiment, subject)

    def scalars(self, module: str, values: Mapping[str, float], *, step: int, at: float) -> None:
        when = int(at * 1000)
        metrics = [self._metric(f"{module}/{name}", value, when, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def picture(self, path: Path, *, step: int, at: float) -> None:
        self._client.log_artifact(self._id, str(path), "samples")

    def close(self, state: str) -> None:
        self._client.set_terminated(self._id, STATES.get(state, "FAILED"))

    def _experiment(self, name: str) -> str:
        """The id of an experiment; another worker may create it at the same time."""
        from mlflow.exceptions import MlflowException

        if self._client.get_experiment_by_name(name) is None:
            with contextlib.suppress(MlflowException):
                return str(self._client.create_experiment(name))
        return str(self._client.get_experiment_by_name(name).experiment_id)

    def _create(self, experiment: str, subject: Subject) -> str:
        from mlflow.entities import Param

        tags = {TAG: subject.key, "modtrain.run": subject.run.name}
        run = self._client.create_run(experiment, tags=tags, run_name=f"{subject.run.name} {subject.name}")
        params = [Param(name, str(value)[:MOST_CHARACTERS]) for name, value in settings(subject.run).items()]
        for first in range(0, len(params), BATCH):
            self._client.log_batch(run.info.run_id, params=params[first : first + BATCH])
        return str(run.info.run_id)


tracker = MLflow
