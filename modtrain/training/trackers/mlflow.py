"""MLflow: an MLflow run a worker, found again by a tag when the worker comes again.

Nothing goes to the network unasked: without MLFLOW_TRACKING_URI it is a file store in `<run>/tracking/mlruns`, in which
each worker writes files of its own: many workers on NFS are no place for one SQLite file. Deliberately not here:
MLflow's models and autologging.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from modtrain.training.trackers.base import FOLDER, Subject, settings

TAG = "modtrain.worker"
STATES = {"finished": "FINISHED", "stopped": "KILLED", "preempted": "KILLED"}
LONGEST = 500
"""Characters of a parameter."""
AT_ONCE = 100
"""Parameters that MLflow takes in one call."""


class MLflow:
    """One MLflow run."""

    package: ClassVar[str] = "mlflow"

    def __init__(self, subject: Subject) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        self._metric: Any = Metric
        given, local = os.environ.get("MLFLOW_TRACKING_URI"), subject.run.path / FOLDER / "mlruns"
        if not given:
            local.parent.mkdir(exist_ok=True)
        self._client: Any = MlflowClient(tracking_uri=given or local.as_uri())
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or "modtrain") if given else "0"
        self._id: str = self._found(experiment, subject) or self._made(experiment, subject)

    def scalars(self, module: str, values: Mapping[str, float], *, step: int, at: float) -> None:
        """Named `module/scalar`."""
        when = int(at * 1000)
        metrics = [self._metric(f"{module}/{name}", value, when, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def picture(self, path: Path, *, step: int, at: float) -> None:
        """The sample grid as an artifact."""
        self._client.log_artifact(self._id, str(path), "samples")

    def close(self, state: str) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._id, STATES.get(state, "FAILED"))

    def _experiment(self, name: str) -> str:
        """Another worker may make it at the same time."""
        from mlflow.exceptions import MlflowException

        if (found := self._client.get_experiment_by_name(name)) is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id)

    def _found(self, experiment: str, subject: Subject) -> str | None:
        found = self._client.search_runs([experiment], f"tags.`{TAG}` = '{subject.key}'", max_results=1)
        if not found:
            return None
        self._client.update_run(found[0].info.run_id, status="RUNNING")
        return str(found[0].info.run_id)

    def _made(self, experiment: str, subject: Subject) -> str:
        from mlflow.entities import Param

        tags = {TAG: subject.key, "modtrain.run": subject.run.name}
        made = self._client.create_run(experiment, tags=tags, run_name=f"{subject.run.name} {subject.name}")
        given = [Param(name, str(value)[:LONGEST]) for name, value in settings(subject.run).items()]
        for first in range(0, len(given), AT_ONCE):
            self._client.log_batch(made.info.run_id, params=given[first : first + AT_ONCE])
        return str(made.info.run_id)


tracker = MLflow
