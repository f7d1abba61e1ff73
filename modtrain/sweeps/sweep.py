"""Sweep: a folder with a `sweep.json`, and a run for each trial that has begun.

The values of a trial of grid, random or Sobol are a pure function of space, seed and number, so that any of its workers
can create its run.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from modtrain.errors import InputError, StopRequested, did_you_mean
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import load_recipe
from modtrain.recipes.params import parameters
from modtrain.scheduling.config import Config, new_spec, read_config
from modtrain.scheduling.run_plan import draft
from modtrain.storage import filesystem
from modtrain.storage.layout import RUN_FILE, SWEEP_FILE
from modtrain.storage.manifest import as_json, create_folder, read_manifest
from modtrain.storage.run import Placement, Run, RunSpec
from modtrain.storage.run_snapshot import JobPhase
from modtrain.storage.run_state import RunState
from modtrain.storage.stop_request import StopRequest, read_stop_request
from modtrain.sweeps import space, study
from modtrain.sweeps.trial import Trial, read_trial

CONFIG = (
    "recipe",
    "dataroot",
    "epochs",
    "exchange_every",
    "max_staleness",
    "peer_timeout_s",
    "seed",
    "device",
    "track",
    "params",
)
"""Fields of a config that every trial has."""
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
    sampler: str
    seed: int = 0
    trials: int = Field(ge=1, le=MOST_TRIALS)
    metric: str | None = None
    """A metric of the recipe's evaluation, or `module.scalar` of its training."""
    maximize: bool = True
    prune: str | None = None
    evaluate_every: int | None = Field(default=None, ge=1)
    """Epochs between two evaluations of a trial; None evaluates it at its end alone."""
    recipe_sha256: str | None = None
    """Hash of the recipe's file, where it is not one of the package."""
    versions: dict[str, str] = Field(default_factory=dict)
    created_at: float = 0.0

    @field_validator("config")
    @classmethod
    def _names_its_recipe(cls, config: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(config.get("recipe"), str):
            raise ValueError(f"its recipe is {config.get('recipe')!r}, which is not a name")
        return config


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder and what its `sweep.json` says."""

    path: Path
    spec: SweepSpec

    @staticmethod
    def create(path: Path | str, spec: SweepSpec) -> Sweep:
        """Create the folder of a new sweep; InputError where the name is taken or not allowed."""
        create_folder(path := Path(path), "sweep", SWEEP_FILE, spec)
        return Sweep.open(path)

    @staticmethod
    def open(path: Path | str) -> Sweep:
        """The sweep in a folder; InputError where there is none."""
        return Sweep(Path(path).resolve(), read_manifest(Path(path), "sweep", SWEEP_FILE, SweepSpec))

    def with_spec(self, spec: SweepSpec) -> Sweep:
        """The sweep with more trials, or another metric for ranking, written; existing trials are not changed."""
        if spec != self.spec:
            filesystem.replace_file(self.path / SWEEP_FILE, as_json(spec))
        return Sweep(self.path, spec)

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
        every = self.spec.evaluate_every
        return ("--unattended", *(("--evaluate-every", str(every)) if every else ()))

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The recipe of every trial."""
        return load_recipe(self.spec.config["recipe"])

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
        """The run of a trial, None where it has none yet; InputError where it is damaged."""
        path = self.run_path(number)
        return check_trial(Run.open(path)) if (path / RUN_FILE).exists() else None

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
        config = trial_config(self.spec.config, point, self.recipe)
        trial = {"number": number, "values": dict(point)}
        try:
            return Run.create(self.run_path(number), new_spec(config, self.recipe, self.spec.placement, trial=trial))
        except InputError:
            if self.run_path(number).name not in filesystem.names(self.path):
                raise
        # Another worker of this trial was quicker; this client may still have the name cached as missing.
        return filesystem.wait_until(lambda: self.run(number), timeout_s=CACHED_S) or Run.open(self.run_path(number))

    def trial(self, number: int, job: JobPhase | None = None) -> Trial:
        """A trial as it is now; `job` is the phase of its jobs, None where no backend was asked."""
        run = self.run(number)
        if run is not None:
            return dataclasses.replace(read_trial(run, self.spec.metric, job), number=number)
        return self.trial_without_run(number, "queued" if job in ("pending", "running") else "created")

    def trial_without_run(self, number: int, state: RunState, why: str = "") -> Trial:
        """A trial whose run does not exist or cannot be read; TPE chooses values only when a trial begins."""
        values = self.values(number) if self.spec.sampler != "tpe" else {}
        return Trial(number=number, values=values, state=state, why=why)

    def map_trials(self, function: Callable[[int], Item]) -> list[Item]:
        """The results of a function of a trial's number, for all trials; many at a time, as shared storage is slow."""
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(function, range(self.spec.trials)))

    def check_stop(self) -> None:
        """StopRequested where the whole sweep was asked to stop."""
        if (stop := self.stop_request()) is not None:
            raise StopRequested(f"{self.name} was stopped ({stop}): no further trial begins.")

    def stop_request(self) -> StopRequest | None:
        """The request that no further trial begins; None where there is none."""
        return read_stop_request(self.path)


def new_sweep(
    config: Config,
    varied: space.Space | Mapping[str, Any],
    *,
    sampler: str = "grid",
    trials: int | None = None,
    metric: str | None = None,
    maximize: bool | None = None,
    prune: str | None = None,
    evaluate_every: int | None = None,
) -> SweepSpec:
    """The `sweep.json` of a new sweep. `varied` is a space, or the content of a space file.

    `maximize` is the recipe's direction of the metric where it is None. InputError where something is wrong that can
    be known before anything runs, such as a value that the recipe does not allow.
    """
    recipe = load_recipe(config.recipe)
    search_space = varied if isinstance(varied, space.Space) else space.from_mapping(varied, "the space")
    for value, known in ((sampler, study.SAMPLERS), (prune, study.PRUNERS)):
        if value is not None and value not in known:
            raise InputError(f"{value!r} is not allowed: take {', '.join(known)}.{did_you_mean(value, known)}")
    check_metric(recipe, metric, needed=prune is not None or sampler == "tpe")
    count = count_trials(search_space, sampler, trials)
    config, base = _check_values(config, recipe, search_space)
    every_epoch = prune is not None and (metric or "").partition(".")[0] not in recipe.modules
    return SweepSpec(
        config={name: value for name in CONFIG if (value := getattr(base, name)) is not None},
        placement=draft(config, recipe)[0].placement,
        space=space.as_json(search_space),
        sampler=sampler,
        seed=config.seed,
        trials=count,
        metric=metric,
        maximize=metric not in recipe.lower_is_better if maximize is None else maximize,
        prune=prune,
        evaluate_every=evaluate_every or (1 if every_epoch else None),
        recipe_sha256=base.recipe_sha256,
        versions=base.versions,
        created_at=base.created_at,
    )


def check_metric(recipe: Recipe, metric: str | None, *, needed: bool) -> None:
    """InputError where no trial can have the metric; the metrics of an evaluation are not known before it runs."""
    if metric is None:
        if needed:
            raise InputError("--prune and --sampler tpe need a metric: give --metric.")
        return
    module, _, scalar = metric.partition(".")
    known = module in recipe.modules
    near = did_you_mean(module, recipe.modules) if scalar and not known else ""
    if near or (known and not scalar) or (recipe.evaluate is None and not known):
        raise InputError(
            f"--metric {metric} is not allowed: take a scalar of training, such as {next(iter(recipe.modules))}.loss"
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
    if not varied.dimensions:
        raise InputError("Say what varies: --vary translator.lr=1e-4,1e-3, --space FILE, or `sweep:` of a config.")
    if sampler != "grid" and trials is None:
        raise InputError(f"--sampler {sampler} needs a number of trials: give --trials.")
    points = space.size(varied) if sampler == "grid" else MOST_TRIALS
    if trials is not None and trials > points and sampler == "grid":
        raise InputError(f"--trials {trials} is more than the grid has points: {points}.")
    count = trials or points
    if count > MOST_TRIALS:
        raise InputError(f"{count} trials are too many for one sweep; take at most {MOST_TRIALS}, as with --trials.")
    return count


def trial_config(config: Mapping[str, Any], values: Mapping[str, Any], recipe: Recipe) -> Config:
    """The config of a trial: the sweep's, with the trial's values over it."""
    names = [parameter.name for parameter in parameters(recipe.params)]
    options, settings = space.split(values, names)
    return read_config(None, {**config, **options}, settings)


def _check_values(config: Config, recipe: Recipe, of: space.Space) -> tuple[Config, RunSpec]:
    """The config with the first values, and its run; InputError where the recipe refuses the config or a value."""
    given = {name: getattr(config, name) for name in (*CONFIG, "nodes", "place")}
    kept = {name: value for name, value in given.items() if value is not None}
    placement = [list(recipe.modules)]
    for corner in space.corners(of):
        new_spec(trial_config(kept, corner, recipe), recipe, placement)
    # A parameter without a default may be one that is varied.
    first = {name: value for name, value in next(space.corners(of)).items() if name not in space.FIELDS}
    config = trial_config(kept, first, recipe)
    return config, new_spec(config, recipe, placement)
