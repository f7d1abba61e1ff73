"""Run: one training of one recipe as a folder: `run.json`, and where everything else of the run lies."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from modtrain.errors import InputError, RunMoved, did_you_mean
from modtrain.storage import filesystem, layout, manifest
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.checkpoint_store import CheckpointStore
from modtrain.storage.early_stop import EarlyStop, Outcome, outcome_of
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.heartbeat import WorkerReport, read_report
from modtrain.storage.history import History
from modtrain.storage.initial_weights import FileName, InitialWeights
from modtrain.storage.manifest import Count, Module, Placement, Seconds, Time
from modtrain.storage.stop_request import (
    StopKind,
    StopRequest,
    clear_stop_request,
    read_stop_request,
    write_stop_request,
)

DEVICE = r"^(auto|cpu|mps|cuda(:\d{1,3})?)$"
"""The devices that a run may be trained on, as a regular expression."""

Precision = Literal["float32", "bfloat16", "float16"]


class Change(BaseModel):
    """A setting that was changed after the run had begun."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    before: Any
    after: Any
    at: Time


class StageSpec(BaseModel):
    """A stretch of epochs with its own parameters, in which only some modules are trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=200)
    epochs: Count
    trains: list[Module] = Field(min_length=1)
    """The modules that are trained; the others rest."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The parameters that differ from those of the run, by dotted name."""
    fresh_optimizers: bool | list[Module] = False
    """Whether the optimizers begin anew, without what they remember of the stage before; or those of which modules."""


class StageStart(BaseModel):
    """Where a run begins that goes on from a stage of another run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: FileName
    """As `RUN@STAGE`."""
    epochs: Count
    """Those of the stages before, which this run leaves out."""


class RunSpec(BaseModel):
    """The content of `run.json`: everything that decides what this run trains.

    Written once, and again only for one of its `changes`: more epochs, another metric, moved data, a moved recipe or
    one that was edited.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=1, ge=1, le=1)
    recipe: FileName
    recipe_sha256: str | None = None
    """Checksum of the recipe's file, where it is the user's own."""
    params: dict[str, Any] = Field(default_factory=dict)
    dataroot: FileName | None = None
    data_sha256: str | None = None
    """Checksum of names and sizes in `dataroot`, by which moved data is recognised."""
    placement: Placement
    epochs: Count
    stages: list[StageSpec] = Field(default_factory=list)
    """In order; empty where all modules are trained in every epoch. Their epochs are those of the run."""
    later_stages: list[StageSpec] = Field(default_factory=list)
    """Planned stages after which the run may go on later. Schedules cover them as well."""
    from_stage: StageStart | None = None
    """The stage of another run after which this one begins."""
    schedule_epochs: Count | None = None
    """Epochs that schedules cover, where those are fewer than `epochs`."""
    exchange_every: Count | None = None
    """Steps between two exchange points inside an epoch."""
    max_staleness: Annotated[int, Field(ge=0, lt=2**53)] | Literal["exchange"] | None = None
    """Epochs; "exchange": none, and workers wait for each other at exchange points inside an epoch as well."""
    keep: Count | None = None
    """Versions of each module that stay on disk; None: as many as its peers need, and those of the last minute."""
    evaluate_every: int = Field(default=0, ge=0, lt=2**53)
    """Epochs between two evaluations while the run trains; 0 evaluates it at its end alone."""
    early_stop: EarlyStop | None = None
    """When the run ends before its last epoch."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = Field(default="auto", pattern=DEVICE)
    precision: Precision = "float32"
    """In which losses are computed; weights are float32 in each."""
    init: dict[str, InitialWeights] = Field(default_factory=dict)
    """By module the weights with which it begins; a module that is not named begins with random ones."""
    fixed: dict[str, InitialWeights] = Field(default_factory=dict)
    """By module the weights of those that are never trained, and so are not placed."""
    peer_timeout_s: Seconds = 1800.0
    storage_timeout_s: Seconds = filesystem.STORAGE_TIMEOUT_S
    trial: dict[str, Any] | None = None
    """Of a sweep's trial: its `number`, and the `values` that the sweep chose."""
    track: list[str] = Field(default_factory=list)
    """Names of trackers beside TensorBoard."""
    defaults: dict[str, Any] | None = None
    """The recipe's default parameters, so that changed ones are known without loading the recipe."""
    usual: dict[str, Any] | None = None
    """The recipe's defaults of `epochs`, `exchange_every` and `max_staleness`."""
    metric: str | None = None
    """Metric of the evaluation by which versions and runs are compared; None for the recipe's."""
    primary_metric: str | None = None
    """The recipe's, which counts where the data have it; else, and where it has none, the first one does."""
    lower_is_better: list[str] = Field(default_factory=list)
    """Metrics of the recipe's evaluation of which less is better."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the software."""
    created_at: Time = 0.0
    changes: list[Change] = Field(default_factory=list)
    """Oldest first."""

    @model_validator(mode="after")
    def _check_stages(self) -> RunSpec:
        if self.stages and sum(stage.epochs for stage in self.stages) != self.epochs:
            raise ValueError(f"the stages have other epochs than the {self.epochs} of the run")
        return self

    @property
    def all_stages(self) -> list[StageSpec]:
        """The stages; one called `train`, of every module, where the recipe names none."""
        modules = [module for worker in self.placement for module in worker]
        return self.stages or [StageSpec(name="train", epochs=self.epochs, trains=modules)]

    @property
    def planned_epochs(self) -> int:
        """The epochs of all stages that were planned, with those before the run and those that may follow."""
        before = self.from_stage.epochs if self.from_stage else 0
        return before + self.epochs + sum(stage.epochs for stage in self.later_stages)

    @property
    def stage_begins(self) -> list[tuple[int, StageSpec]]:
        """Each stage, with the epochs before it."""
        begins = accumulate((stage.epochs for stage in self.all_stages), initial=0)
        return list(zip(begins, self.all_stages, strict=False))

    def stage_at(self, epoch: int) -> StageSpec:
        """The stage of an epoch, counted from 0; the last one from the end of the run on."""
        return next(stage for begin, stage in reversed(self.stage_begins) if begin <= epoch)

    def is_last_stage(self, epoch: int) -> bool:
        return self.stage_at(epoch) == self.all_stages[-1]

    def trained_epochs(self, module: str, epochs: int) -> int:
        """Of the first `epochs` epochs the last one that trains a module, counted from 1; 0 where none does.

        Its weights after `epochs` epochs are those after this one: in the stages since it rests.
        """
        begun = [(begin, stage) for begin, stage in self.stage_begins if module in stage.trains and begin < epochs]
        return min(begun[-1][0] + begun[-1][1].epochs, epochs) if begun else 0

    def stage_ends(self, module: str) -> set[int]:
        """The epochs with which the stages end that train a module."""
        return {begin + stage.epochs for begin, stage in self.stage_begins if module in stage.trains}

    def end_epoch(self, modules: Iterable[str]) -> int:
        """The epochs after which these modules are finished: no later stage trains any of them."""
        return max(self.trained_epochs(module, self.epochs) for module in modules)

    @property
    def validated_from(self) -> int:
        """Epochs after which early stopping counts: it ends no stage but the last one."""
        return self.epochs - self.all_stages[-1].epochs

    def compared_by(self, newest: Iterable[str], measured: Collection[str]) -> str | None:
        """The metric by which versions and runs are compared; None where nothing was measured.

        `newest` are the metrics of the newest evaluation, in their order, and `measured` those of all evaluations.
        """
        if self.metric is not None:
            return self.metric
        return self.primary_metric if self.primary_metric in measured else next(iter(newest), None)

    @property
    def epochs_behind(self) -> int | None:
        """Epochs that a peer may be behind at the beginning of an epoch; None: any number."""
        return 0 if isinstance(self.max_staleness, str) else self.max_staleness

    @property
    def waits_at_exchanges(self) -> bool:
        """Whether workers wait for each other at exchange points inside an epoch as well."""
        return self.max_staleness == "exchange"

    def is_last(self, checkpoint: Checkpoint | None) -> bool:
        """Whether a version is the last one of its module, and not the end of a training that was prolonged."""
        if checkpoint is None or not checkpoint.final:
            return False
        end, before = self.end_epoch([checkpoint.module]), [c.before for c in self.changes if c.name == "epochs"]
        return not any(isinstance(epochs, int) and checkpoint.epoch <= epochs < end for epochs in before)


def as_run(run: Run | str | Path) -> Run:
    """A run, also where the path of its folder is given; InputError for anything else."""
    if isinstance(run, str | Path):
        return Run.open(run)
    if not isinstance(run, Run):
        raise InputError(f"run is a {type(run).__name__}; give a Run, or its folder, such as 'runs/apples'.")
    return run


@dataclass(frozen=True)
class Run:
    """A run's folder and the content of its `run.json`."""

    path: Path
    spec: RunSpec
    trusted: bool = False
    """Whether a recipe or tracker file of the run is executed whatever its checksum and its owner."""

    @staticmethod
    def create(path: Path, spec: RunSpec, *, trusted: bool = False) -> Run:
        """Create the folder of a new run, with the weights of other runs that it needs.

        InputError where the name is taken or not allowed, or weights are gone.
        """
        init, fixed = (
            {module: weights.kept(f"{kind}-{module}") for module, weights in each.items()}
            for kind, each in (("init", spec.init), ("fixed", spec.fixed))
        )
        spec = spec.model_copy(update={"init": init, "fixed": fixed})
        sources = {each.kept_as: Path(each.path) for each in (*init.values(), *fixed.values()) if each.kept_as}
        manifest.create_folder(path, "run", layout.RUN_FILE, spec, sources)
        return Run.open(path, trusted=trusted)

    @staticmethod
    def open(path: str | Path, *, trusted: bool = False) -> Run:
        """The run in a folder; InputError where there is none. No code of the folder is executed."""
        spec = manifest.read_manifest(Path(path), "run", layout.RUN_FILE, RunSpec)
        return Run(Path(path).resolve(), spec, trusted)

    def replace_spec(self, spec: RunSpec) -> Run:
        """The same folder with other settings; OSError. Workers have read theirs at their start."""
        filesystem.replace_file(self.path / layout.RUN_FILE, manifest.as_json(spec))
        return replace(self, spec=spec)

    def check_present(self) -> None:
        """RunMoved where the folder is no longer that of a run; OSError where storage does not answer."""
        if layout.RUN_FILE not in filesystem.names(self.path):
            raise RunMoved(
                f"{self.path} no longer holds a run: it was moved or deleted. Nothing is created here; launch the run "
                "where it is now."
            )

    def make_module_folders(self, modules: Iterable[str]) -> None:
        """Create the folders of these modules, durable; RunMoved, OSError."""
        self.check_present()
        for module in modules:
            filesystem.make_folder(self.module_path(module))

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def modules(self) -> list[str]:
        """Every module, in the order of the placement."""
        return [module for worker in self.spec.placement for module in worker]

    def check_module(self, name: str) -> None:
        """InputError where the run has no module of this name."""
        if name not in self.modules:
            near = did_you_mean(str(name), self.modules)
            raise InputError(f"{self.name} has no module {name!r}; it has {', '.join(self.modules)}.{near}")

    def weights_of(self, module: str) -> InitialWeights | None:
        """The weights that a module begins with, or that a fixed one has; None where none were named."""
        weights = (self.spec.init | self.spec.fixed).get(module)
        return weights and weights.within(self.path)

    def worker_of(self, module: str) -> int:
        return next(number for number, modules in enumerate(self.spec.placement) if module in modules)

    def module_path(self, module: str) -> Path:
        return self.path.joinpath(layout.MODULES, module)

    def heartbeat_path(self, module: str) -> Path:
        return self.module_path(module) / layout.HEARTBEAT_FILE

    def metrics_path(self, module: str) -> Path:
        return self.module_path(module) / layout.METRICS_FILE

    def published_path(self, module: str) -> Path:
        return self.module_path(module) / layout.PUBLISHED_FILE

    def workers_path(self, module: str) -> Path:
        return self.module_path(module) / layout.WORKERS_FILE

    def log_path(self, module: str) -> Path:
        return self.module_path(module) / layout.WORKER_LOG

    @property
    def evaluation_path(self) -> Path:
        return self.path / layout.EVALUATION

    @property
    def evaluation_failure_path(self) -> Path:
        return self.evaluation_path / layout.FAILURE_FILE

    @property
    def evaluations_path(self) -> Path:
        return self.evaluation_path / layout.METRICS_FILE

    @property
    def validations_path(self) -> Path:
        return self.evaluation_path / layout.VALIDATION_FILE

    @property
    def scores_path(self) -> Path:
        return self.evaluation_path / layout.SCORES_FILE

    @property
    def jobs_path(self) -> Path:
        return self.path / layout.JOBS

    def store(self, module: str) -> CheckpointStore:
        """The versions of a module; InputError where the run has no such module."""
        self.check_module(module)
        return CheckpointStore(self.module_path(module))

    def is_finished(self, modules: Iterable[str]) -> bool:
        """Whether the newest version of each of these modules is its last."""
        return all(self.spec.is_last(self.store(module).latest()) for module in modules)

    def early_stop_outcome(self) -> Outcome | None:
        """What the validations say, None where the run has no early stopping; OSError."""
        rule = self.spec.early_stop
        if rule is None:
            return None
        records = read_evaluations(self.validations_path)
        return outcome_of(rule, records, lower_is_better=rule.metric in self.spec.lower_is_better)

    def request_stop(self, reason: str, *, kind: StopKind = "asked", sender: str = "modtrain") -> None:
        """Ask every worker to publish and leave at its next batch."""
        write_stop_request(self.path, StopRequest(kind=kind, reason=reason, sender=sender))

    def stop_request(self) -> StopRequest | None:
        return read_stop_request(self.path)

    def stop_outcome(self) -> str:
        """How a run that is not finished has ended, for sentences: `stopped (lunch)`."""
        return stop.outcome if (stop := self.stop_request()) else "stopped"

    def is_cancelled(self) -> bool:
        """Whether the jobs of the run are to end at once, without publishing, or were ended so."""
        stop = self.stop_request()
        return stop is not None and stop.kind == "cancelled"

    def clear_stop(self) -> None:
        clear_stop_request(self.path)

    def history(self) -> list[dict[str, Any]]:
        """Everything measured so far: the rows of `History.rows`, such as for `pandas.DataFrame(run.history())`."""
        history = History(self)
        history.refresh()
        return list(history.rows())

    def read_report(self, module: str) -> WorkerReport:
        """As `heartbeat.read_report`."""
        return read_report(self.heartbeat_path(module))
