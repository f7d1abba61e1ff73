"""Sweep: a folder with a `sweep.json`, the record of its jobs, and a run for each trial that has begun.

The values of a trial of grid, random or Sobol are a pure function of space, seed and number, so that any of its workers
can create its run.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from modtrain.errors import InputError, did_you_mean, one_of
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import load_recipe, recorded_recipe
from modtrain.recipes.params import parameters
from modtrain.scheduling.backends.base import BackendOptions
from modtrain.scheduling.config import NO_EARLY_STOP, Config, new_spec, read_config, staleness_of
from modtrain.scheduling.job_record import JobId, Record, foreign, launch_values, options_of, read_record
from modtrain.scheduling.run_plan import draft
from modtrain.storage import filesystem
from modtrain.storage.layout import JOBS, JOBS_FILE, RUN_FILE, SWEEP_FILE
from modtrain.storage.liveness import Liveness
from modtrain.storage.manifest import Placement, Time, as_json, create_folder, read_json, read_manifest
from modtrain.storage.run import Run, RunSpec
from modtrain.storage.run_snapshot import JobPhase, WorkerJob, read_snapshot
from modtrain.storage.run_state import RunState
from modtrain.storage.stop_request import StopRequest, read_stop_request, write_stop_request
from modtrain.sweeps import space
from modtrain.sweeps.space import SAMPLERS
from modtrain.sweeps.study import PRUNERS
from modtrain.sweeps.trial import Trial, build_trial

EXECUTION = {
    "name",
    "root",
    "nodes",
    "place",
    "backend",
    "address",
    "profile",
    "job",
    "check",
    "sweep",
    "evaluate_every",
}
"""Fields of a config that say where it is executed, or that a sweep has itself; every trial has the other ones."""
MOST_TRIALS = 1_000_000
CACHED_S = 60.0
"""How long an NFS client may report that an existing name is missing."""
READERS = 16
"""Trials that are read at the same time."""
Item = TypeVar("Item")


class SweepSpec(BaseModel):
    """The content of `sweep.json`: everything that decides what the trials are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = 1
    config: dict[str, Any]
    """The config of every trial, before its values are put in."""
    placement: Placement
    space: list[dict[str, Any]]
    sampler: str = Field(pattern=f"^({'|'.join(SAMPLERS)})$")
    seed: int = Field(default=0, ge=0, lt=2**63)
    trials: int = Field(ge=1, le=MOST_TRIALS)
    metric: str | None = None
    """A metric of the recipe's evaluation, or `module.scalar` of its training."""
    maximize: bool = True
    prune: str | None = Field(default=None, pattern=f"^({'|'.join(PRUNERS)})$")
    evaluate_every: int = Field(default=0, ge=0, lt=2**53)
    """Epochs between two evaluations of a trial; 0 evaluates it at its end alone."""
    recipe_sha256: str | None = None
    """Hash of the recipe's file, where it is not one of the package."""
    versions: dict[str, str] = Field(default_factory=dict)
    created_at: Time = 0.0

    @field_validator("config")
    @classmethod
    def _is_of_trials(cls, config: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(config.get("recipe"), str):
            raise ValueError(f"its recipe is {config.get('recipe')!r}, which is not a name")
        if other := sorted(config.keys() - (Config.model_fields.keys() - EXECUTION)):
            raise ValueError(f"it has {other[0]!r}, which trials do not have")
        return config


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """What was submitted as arrays, and how the sweep was run last."""

    arrays: Record = field(default_factory=Record)
    """The job of each task; its number is trial * workers of a trial + worker."""
    backend: str | None = None
    options: BackendOptions = field(default_factory=BackendOptions)
    at_once: int | None = None
    """Trials at the same time."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder and what its `sweep.json` says."""

    path: Path
    spec: SweepSpec
    trusted: bool = False
    """Of every run of the sweep."""

    @staticmethod
    def create(path: Path | str, spec: SweepSpec, *, trusted: bool = False) -> Sweep:
        """Create the folder of a new sweep; InputError where the name is taken or not allowed."""
        create_folder(path := Path(path), "sweep", SWEEP_FILE, spec)
        return Sweep.open(path, trusted=trusted)

    @staticmethod
    def open(path: Path | str, *, trusted: bool = False) -> Sweep:
        """The sweep in a folder; InputError where there is none. No code of the folder is executed."""
        spec = read_manifest(Path(path), "sweep", SWEEP_FILE, SweepSpec)
        return Sweep(Path(path).resolve(), spec, trusted)

    def with_spec(self, spec: SweepSpec) -> Sweep:
        """The sweep with more trials, or another metric for ranking, written; existing trials are not changed."""
        if spec != self.spec:
            filesystem.replace_file(self.path / SWEEP_FILE, as_json(spec))
        return replace(self, spec=spec)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def workers(self) -> int:
        """The number of workers of each trial."""
        return len(self.spec.placement)

    @property
    def worker_options(self) -> tuple[str, ...]:
        """Options of the command of every worker."""
        return ("--unattended",)

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The recipe of every trial; InputError as of `recipe_of`."""
        recipe, trackers = self.spec.config["recipe"], self.spec.config.get("track", [])
        sha256, manifest = self.spec.recipe_sha256, self.path / SWEEP_FILE
        return recorded_recipe(manifest, recipe, sha256, trackers, trusted=self.trusted)

    @functools.cached_property
    def space(self) -> space.Space:
        """The parameters that vary."""
        return space.from_json(self.spec.space)

    def values(self, number: int) -> dict[str, Any]:
        """The values of a trial, for any sampler but TPE."""
        return space.point(self.space, self.spec.sampler, seed=self.spec.seed, index=number)

    def run_path(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.path / f"trial-{number:04d}"

    def number_of(self, name: str) -> int | None:
        """The number of the trial with a folder of this name; None for any other folder."""
        digits = name.removeprefix("trial-")
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < len(str(MOST_TRIALS)) else -1
        return number if 0 <= number < self.spec.trials and self.run_path(number).name == name else None

    def run(self, number: int) -> Run | None:
        """The run of a trial, None where it has not begun; InputError where it is damaged or there is no such trial."""
        if number not in range(self.spec.trials):
            raise InputError(f"{self.name} has no trial {number!r}; its trials are 0 to {self.spec.trials - 1}.")
        path = self.run_path(number)
        return check_trial(Run.open(path, trusted=self.trusted)) if (path / RUN_FILE).exists() else None

    def intact_run(self, number: int) -> Run | None:
        """The run of a trial; None also where it is damaged."""
        try:
            return self.run(number)
        except InputError:
            return None

    def begin(self, number: int, values: Mapping[str, Any] | None = None) -> Run:
        """Open the run of a trial, or create it; several workers may do so at once. `values` are those of TPE."""
        if (run := self.run(number)) is not None:
            return run
        point = self.values(number) if values is None else values
        config = trial_config(self.spec.config, point, self.recipe.params)
        trial = {"number": number, "values": dict(point)}
        try:
            spec = new_spec(config, self.recipe, self.spec.placement, trial=trial)
            spec = spec.model_copy(update={"evaluate_every": self.spec.evaluate_every})
            return Run.create(self.run_path(number), spec, trusted=self.trusted)
        except InputError:
            if self.run_path(number).name not in filesystem.names(self.path):
                raise
        # Another worker of this trial was quicker; this client may still have the name cached as missing.
        return filesystem.wait_until(lambda: self.run(number), timeout_s=CACHED_S) or Run.open(
            self.run_path(number), trusted=self.trusted
        )

    def trial(self, number: int, job: JobPhase | None = None, *, liveness: Liveness | None = None) -> Trial:
        """A trial as it is now; `job` is the phase of its jobs, None where no backend was asked.

        A reader that stays passes its own `liveness`; InputError where the run is damaged.
        """
        run = self.run(number)
        if run is None:
            return self.trial_without_run(number, "queued" if job in ("pending", "running") else "created")
        jobs = {worker: WorkerJob(phase=job) for worker in range(self.workers)} if job else None
        snapshot = read_snapshot(run, Liveness() if job else liveness, jobs=jobs)
        return replace(build_trial(snapshot, self.spec.metric), number=number)

    def trial_without_run(self, number: int, state: RunState, why: str = "") -> Trial:
        """A trial whose run does not exist or cannot be read; TPE chooses values only when a trial begins."""
        values = self.values(number) if self.spec.sampler != "tpe" else {}
        return Trial(number=number, values=values, state=state, why=why)

    def map_trials(self, function: Callable[[int], Item]) -> list[Item]:
        """The results of a function of a trial's number, for all trials; many at a time, as shared storage is slow."""
        with ThreadPool(READERS) as readers:
            return readers.map(function, range(self.spec.trials))

    def stop_request(self) -> StopRequest | None:
        """The request that no further trial begins; None where there is none."""
        return read_stop_request(self.path)

    def request_stop(self, number: int, request: StopRequest) -> bool:
        """Ask a trial to stop, unless a request records how it ended; whether the trial has a run."""
        run = self.intact_run(number)
        if run is not None:
            before = run.stop_request()
            if before is None or (request.kind == "cancelled" and not before.is_final):
                write_stop_request(run.path, request)
        return run is not None

    def read_record(self) -> SweepRecord:
        """The record of the sweep's jobs, empty where it never ran; InputError where it is damaged."""
        path = self.path / JOBS / JOBS_FILE
        values = read_json(path)
        try:
            last = values.get("last", {})
            jobs = {int(task): JobId(values["backend"], str(id)) for task, id in values.get("tasks", {}).items()}
            arrays = Record(
                backend=values.get("backend"), options=options_of(values, path), jobs=jobs, foreign=foreign(path)
            )
            options = options_of(last, path)
            return SweepRecord(arrays=arrays, backend=last.get("backend"), options=options, at_once=last.get("at_once"))
        except (TypeError, ValueError, KeyError, AttributeError):
            raise InputError(f"{path} is damaged: it does not name the tasks of the sweep.") from None

    def write_record(self, record: SweepRecord) -> None:
        """Write the record of the sweep's jobs."""
        last = launch_values(record.backend, record.options) | {"at_once": record.at_once}
        tasks = {str(task): job.id for task, job in record.arrays.jobs.items()}
        arrays = launch_values(record.arrays.backend, record.arrays.options) | {"tasks": tasks} if tasks else {}
        (self.path / JOBS).mkdir(exist_ok=True)
        filesystem.replace_file(self.path / JOBS / JOBS_FILE, json.dumps({**arrays, "last": last}).encode())

    def previous_launch(self, record: SweepRecord) -> Record:
        """How the sweep was run last, for the rules of resuming."""
        first = self.run(0)
        jobs = record.arrays.jobs or (read_record(first).jobs if first is not None else {})
        return Record(backend=record.backend, options=record.options, jobs=jobs, foreign=record.arrays.foreign)


def new_sweep(
    config: Config,
    varied: Mapping[str, Any],
    *,
    sampler: str = "grid",
    trials: int | None = None,
    metric: str | None = None,
    maximize: bool | None = None,
    prune: str | None = None,
    evaluate_every: int | None = None,
) -> SweepSpec:
    """The `sweep.json` of a new sweep. `varied` is what a space file holds.

    `maximize` is the recipe's direction of the metric where it is None. InputError where something is wrong that can
    be known before anything runs, such as a value that the recipe does not allow.
    """
    if not isinstance(config, Config):
        raise InputError(f"config is a {type(config).__name__}; give a Config, such as Config(recipe='./my_gan.py').")
    for name, number, least in (("trials", trials, 1), ("evaluate_every", evaluate_every, 0)):
        if number is not None and (not isinstance(number, int) or number < least):
            raise InputError(f"{name} = {number!r} is not allowed; give a whole number from {least}.")
    recipe = load_recipe(config.recipe)
    search_space = space.from_mapping(varied, "the space")
    for name, value, known in (("sampler", sampler, SAMPLERS), ("prune", prune, PRUNERS)):
        if value is not None and value not in known:
            near = did_you_mean(str(value), known)
            raise InputError(f"{name} = {value!r} is not allowed; give {one_of(known)}.{near}")
    metric = metric or config.metric or recipe.primary_metric
    check_metric(recipe, metric, needed=prune is not None or sampler == "tpe")
    count = count_trials(search_space, sampler, trials)
    base, _ = draft(_checked(config, recipe, search_space), recipe)
    every = config.evaluate_every if evaluate_every is None else evaluate_every
    if prune is not None and (metric or "").partition(".")[0] not in recipe.trained:  # not a loss that workers log
        if every == 0:
            raise InputError(f"prune needs the {metric} of epochs, but evaluate_every = 0 has none; give 1 or more.")
        every = every or 1
    return SweepSpec(
        config={
            **base.model_dump(include=Config.model_fields.keys() - EXECUTION - {"init"}, exclude_none=True),
            "init": {module: weights.reference for module, weights in base.init.items()},
            "max_staleness": staleness_of(base),
            "early_stop": asdict(base.early_stop) if base.early_stop else NO_EARLY_STOP,
        },
        space=space.as_json(search_space),
        sampler=sampler,
        seed=config.seed,
        trials=count,
        metric=metric,
        maximize=metric not in recipe.lower_is_better if maximize is None else maximize,
        prune=prune,
        evaluate_every=every or 0,
        **base.model_dump(include={"placement", "recipe_sha256", "versions", "created_at"}),
    )


def check_metric(recipe: Recipe, metric: str | None, *, needed: bool) -> None:
    """InputError where no trial can have the metric; the metrics of an evaluation are not known before it runs."""
    if metric is None:
        if needed:
            raise InputError("--prune and --sampler tpe need a metric: give --metric.")
        return
    module, _, scalar = metric.partition(".")
    known = module in recipe.trained
    near = did_you_mean(module, recipe.trained) if scalar and not known else ""
    if near or (known and not scalar) or (recipe.evaluate is None and not known):
        raise InputError(
            f"--metric {metric} is not allowed: take a scalar of training, such as {recipe.trained[0]}.loss"
            f"{', or a metric of the evaluation' if recipe.evaluate else '; the recipe has no `evaluate`'}.{near}"
        )


def check_trial(run: Run) -> Run:
    """The same run; InputError where its description of the trial is not one that a sweep writes."""
    trial = run.spec.trial
    if trial is None or (isinstance(trial.get("number"), int) and isinstance(trial.get("values"), dict)):
        return run
    raise InputError(
        f"{run.path / RUN_FILE} is damaged or of another version: `trial` has no whole number and named values."
    )


def count_trials(varied: space.Space, sampler: str, trials: int | None) -> int:
    """The number of trials; InputError where a grid has fewer points, or the number is needed and not given."""
    if not varied:
        raise InputError("Say what varies: --vary translator.lr=1e-4,1e-3, --space FILE, or `sweep:` of a config.")
    if sampler != "grid" and trials is None:
        raise InputError(f"--sampler {sampler} needs a number of trials: give --trials.")
    points = space.size(varied) if sampler == "grid" else MOST_TRIALS
    count = trials or points
    if count > points and sampler == "grid":
        raise InputError(f"--trials {trials} is more than the grid has points: {points}.")
    if sampler == "tpe" and count > (different := math.prod(each.number_of_values for each in varied.values())):
        raise InputError(
            f"--trials {trials} is more than the space has points: {different:g}. --sampler grid tries each of them."
        )
    if count > MOST_TRIALS:
        raise InputError(f"{count} trials are too many for one sweep; take at most {MOST_TRIALS}, as with --trials.")
    return count


def trial_config(config: Mapping[str, Any], values: Mapping[str, Any], params: type[Any]) -> Config:
    """The config of a trial: the sweep's, with the trial's values over it."""
    fields = {name: value for name, value in values.items() if name in space.FIELDS}
    groups = space.resolve(values, [parameter.name for parameter in parameters(params)])
    # JSON is YAML, and its quotes keep the text "1" a text
    settings = [
        f"{each}={json.dumps(values[name], ensure_ascii=False)}" for name, group in groups.items() for each in group
    ]
    return read_config(None, {**config, **fields}, settings)


def first_trial(spec: SweepSpec, recipe: Recipe) -> RunSpec:
    """The `run.json` of a trial with the first values of the space, and the metric of the sweep."""
    values = next(space.corners(space.from_json(spec.space)))
    run = new_spec(trial_config(spec.config, values, recipe.params), recipe, spec.placement)
    return run.model_copy(update={"metric": spec.metric})


def _checked(config: Config, recipe: Recipe, varied: space.Space) -> Config:
    """The config with the first values of the parameters; InputError where the recipe refuses it or a value."""
    kept = config.model_dump(exclude=EXECUTION - {"nodes", "place"}, exclude_none=True)
    for corner in space.corners(varied):
        new_spec(trial_config(kept, corner, recipe.params), recipe, [recipe.trained])
    # A parameter without a default may be one that is varied.
    first = {name: value for name, value in next(space.corners(varied)).items() if name not in space.FIELDS}
    return trial_config(kept, first, recipe.params)
