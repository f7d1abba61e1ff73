"""Run: one training of one recipe as a folder: `run.json`, the stop request, the workers' heartbeats.

Deliberately not here: checkpoints (`store.py`), what the folder says taken together (`status.py`), and who trains
(`worker.py`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from modtrain import fs, plugins
from modtrain.errors import InputError
from modtrain.folder import RUN_FILE, STOP_FILE, create_folder, read_folder, stop_reason, written
from modtrain.params import build_params
from modtrain.recipe import Data, Recipe
from modtrain.store import CheckpointStore

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
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
        fs.replace_file(self.path / RUN_FILE, written(spec))
        return Run(self.path, spec)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def recipe(self) -> Recipe:
        """The recipe, loaded; a warning where the user's file is not the one that the run was begun with."""
        recipe = plugins.load("recipe", self.spec.recipe)
        if not isinstance(recipe, Recipe):
            raise InputError(f"{self.spec.recipe} defines `recipe`, but it is a {type(recipe).__name__}, not a Recipe.")
        if recipe_sha256(self.spec.recipe) != self.spec.recipe_sha256:
            log.warning("The recipe %s has changed since this run was begun.", self.spec.recipe)
        return recipe

    def params(self, recipe: Recipe) -> Any:
        """The run's parameters, validated."""
        return build_params(recipe.params, self.spec.params)

    def data(self, recipe: Recipe, params: Any) -> Data:
        """The run's data; InputError where it has not one batch."""
        data = recipe.data(Path(self.spec.dataroot) if self.spec.dataroot else None, params)
        if len(data.train) < 1:
            raise InputError(f"The training data ({data.description}) has not one batch; lower the batch size.")
        return data

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
        fs.replace_file(self.path / STOP_FILE, reason.encode())

    def stop_requested(self) -> str | None:
        """The reason of a stop request; None where there is none."""
        return stop_reason(self.path)

    def clear_stop(self) -> None:
        """Take a stop request back, so that the run can go on."""
        (self.path / STOP_FILE).unlink(missing_ok=True)

    def heartbeat(self, module: str) -> dict[str, Any]:
        """What the module's worker said last; empty where it has said nothing."""
        try:
            said = json.loads(fs.read_small(self.module_path(module) / "heartbeat.json", follow=False))
        except (OSError, ValueError, RecursionError):
            return {}
        return said if isinstance(said, dict) else {}


class Heartbeat:
    """Says every few seconds what a worker is doing, in `heartbeat.json` of each of its modules.

    A reader sees by the counter that the worker lives; no clock of another machine is asked. Storage that fails here
    costs nothing but the news.
    """

    def __init__(self, run: Run, modules: Iterable[str], **facts: Any) -> None:
        self._paths = [run.module_path(module) / "heartbeat.json" for module in modules]
        self._says: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": process_started(os.getpid()),
            "job": job_id(),
            "state": "starting",
            **facts,
        }
        self._counter = 0
        self._silenced: set[Path] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._write()

    def say(self, *, now: bool = False, **news: Any) -> None:
        """Change what is said; `now` writes it at once instead of with the next beat."""
        self._says.update(news)
        if now:
            self._write()

    def fall_silent(self) -> None:
        """Write nothing any more."""
        with self._lock:
            self._paths = []

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            self._write()

    def _write(self) -> None:
        with self._lock:
            self._counter += 1
            content = json.dumps({**self._says, "counter": self._counter, "at": time.time()}).encode()
            for path in self._paths:
                try:
                    fs.replace_file(path, content)
                    self._silenced.discard(path)
                except OSError as error:
                    if path not in self._silenced:  # once, not every two seconds
                        log.warning("Could not write %s: %s", path, error)
                    self._silenced.add(path)


def recipe_sha256(recipe: str) -> str | None:
    """The checksum of a user's recipe file; None for a recipe that comes from a package."""
    path = Path(recipe)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix == ".py" and path.is_file() else None


def process_started(pid: int) -> int | None:
    """When a process of this machine started, in ticks since boot: with the pid it names it for ever.

    None where it is over, also when its parent has not asked for its end yet.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else int(fields[18])
    except (OSError, IndexError, ValueError):
        return None


def job_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """The scheduler's id of this job, to be shown."""
    return next((environment[name] for name in ("SLURM_JOB_ID", "PBS_JOBID") if environment.get(name)), None)
