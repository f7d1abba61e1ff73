"""Run: one training of one recipe as a folder: `run.json`, the stop request, the workers' heartbeats.

Deliberately not here: checkpoints (`store.py`), what the folder says taken together (`status.py`), and who trains
(`worker.py`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from modtrain.storage import filesystem
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.manifest import RUN_FILE, STOP_FILE, create_folder, read_folder, stop_reason, written

log = logging.getLogger(__name__)

CANCELLED = "cancelled"
"""The reason in `stop` of a run whose workers were ended without being asked."""


Placed = list[Annotated[list[Annotated[str, Field(pattern=r"^[^/\x00.][^/\x00]*$")]], Field(min_length=1)]]
"""The modules of each worker; a module's name is that of a folder, which leads nowhere else."""


class RunSpec(BaseModel):
    """What `run.json` holds: everything that decides what this run trains. Written once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=1, ge=1, le=1)
    recipe: str
    recipe_sha256: str | None = None
    """Of the recipe's file, where it is the user's own."""
    params: dict[str, Any] = Field(default_factory=dict)
    dataroot: str | None = None
    placement: Placed
    """The modules of each worker."""
    epochs: int = Field(gt=0)
    exchange_every: int | None = Field(default=None, gt=0)
    max_staleness: int | None = Field(default=None, ge=0)
    seed: int = 0
    device: str = "auto"
    peer_timeout_s: float = Field(default=1800.0, gt=0)
    trial: dict[str, Any] | None = None
    """Of a sweep: its `number`, and the `values` that the sweep has decided."""
    track: list[str] = Field(default_factory=list)
    """Where the curves go besides the run's own files and TensorBoard: names of trackers."""
    defaults: dict[str, Any] | None = None
    """The recipe's own parameters: what was chosen otherwise can be told without loading the recipe."""
    usual: dict[str, Any] | None = None
    """The same of `epochs`, `exchange_every` and `max_staleness`."""
    lower_is_better: list[str] = Field(default_factory=list)
    """The metrics of the recipe's evaluation of which less is better."""
    versions: dict[str, str] = Field(default_factory=dict)
    created_at: float = 0.0


@dataclass(frozen=True)
class Run:
    """A run's folder and what its `run.json` says."""

    path: Path
    spec: RunSpec

    @staticmethod
    def create(path: Path, spec: RunSpec) -> Run:
        """Make the folder of a new run appear; InputError where the name is taken or not allowed."""
        create_folder(path, "run", RUN_FILE, spec)
        return Run.open(path)

    @staticmethod
    def open(path: Path) -> Run:
        """The run in a folder; InputError where there is none."""
        return Run(Path(path).resolve(), read_folder(Path(path), "run", RUN_FILE, RunSpec))

    def begin_otherwise(self, spec: RunSpec) -> Run:
        """The same folder with other settings: only where nothing was ever published and nobody works on it."""
        filesystem.replace_file(self.path / RUN_FILE, written(spec))
        return Run(self.path, spec)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def module_path(self, module: str) -> Path:
        """The folder of a module."""
        return self.path / "modules" / module

    def store(self, module: str) -> CheckpointStore:
        """The checkpoints of a module."""
        return CheckpointStore(self.module_path(module))

    @property
    def modules(self) -> list[str]:
        """Every module, in the order of the placement."""
        return [module for worker in self.spec.placement for module in worker]

    def is_finished(self, modules: Iterable[str]) -> bool:
        """Whether the newest version of each of these modules is its last."""
        newest = [self.store(module).latest() for module in modules]
        return all(checkpoint is not None and checkpoint.final for checkpoint in newest)

    def request_stop(self, reason: str) -> None:
        """Ask every worker to publish and leave at its next batch."""
        filesystem.replace_file(self.path / STOP_FILE, reason.encode())

    def stop_requested(self) -> str | None:
        """The reason of a stop request; None where there is none."""
        return stop_reason(self.path)

    def clear_stop(self) -> None:
        """Take a stop request back, so that the run can go on."""
        (self.path / STOP_FILE).unlink(missing_ok=True)

    def heartbeat(self, module: str) -> dict[str, Any]:
        """What the module's worker said last; empty where it has said nothing."""
        try:
            said = json.loads(filesystem.read_small(self.module_path(module) / "heartbeat.json", follow=False))
        except (OSError, ValueError, RecursionError):
            return {}
        return said if isinstance(said, dict) else {}
