"""A sweep as a folder: `sweep.json`, and a run for each trial that has begun.

A trial of grid, random or Sobol is a pure function of the space, the seed and its number, so whoever is to train it
makes its run. Deliberately not here: running trials (`queue.py`, `sweep.py`), and the points themselves (`space.py`).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modtrain import fs, space
from modtrain.config import Config, load_recipe, new_spec, read_config
from modtrain.errors import InputError, StopRequested, did_you_mean
from modtrain.params import parameters
from modtrain.recipe import Recipe
from modtrain.run import RUN_FILE, STOP_FILE, Run, check_name
from modtrain.status import LIVE, evaluations

SWEEP_FILE = "sweep.json"
PRUNED = "pruned: "
"""How the reason in the `stop` file of a pruned trial begins: the folder itself says that it was pruned."""

State = Literal["waiting", "queued", "running", "finished", "pruned", "failed", "stopped"]


class SweepSpec(BaseModel):
    """What `sweep.json` holds: everything that decides what the trials are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = 1
    config: dict[str, Any]
    """Of every trial, before its values are put in: what a config file may say about training."""
    placement: list[list[str]]
    space: list[dict[str, Any]]
    sampler: str
    seed: int = 0
    trials: int = Field(ge=1)
    metric: str | None = None
    """A metric of the recipe's evaluation, or `module.scalar` of its training."""
    maximize: bool = True
    prune: str | None = None
    evaluate_every: int | None = Field(default=None, ge=1)
    """Epochs between two evaluations of a trial; None evaluates it at its end alone."""
    versions: dict[str, str] = Field(default_factory=dict)
    created_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial as its run's folder and its jobs tell it."""

    number: int
    values: Mapping[str, Any]
    state: State
    result: float | None = None
    """The sweep's metric; None where there is none yet."""
    epoch: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    why: str = ""
    """Why it failed, was pruned or stopped, in one sentence."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder and what its `sweep.json` says."""

    path: Path
    spec: SweepSpec

    @staticmethod
    def create(path: Path, spec: SweepSpec) -> Sweep:
        """Make the folder of a new sweep appear, complete; InputError where the name is taken or not allowed."""
        check_name(path.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fs.publish_folder(path.parent, path.name, {SWEEP_FILE: spec.model_dump_json(indent=2).encode() + b"\n"})
        except FileExistsError:
            raise InputError(f"{path} exists already; choose another --name or --root.") from None
        except OSError as error:
            raise InputError(f"The sweep's folder {path} cannot be made: {error.strerror}.") from error
        return Sweep.open(path)

    @staticmethod
    def open(path: Path) -> Sweep:
        """The sweep in a folder; InputError where there is none."""
        try:
            content = fs.read_file(path / SWEEP_FILE)
        except OSError:
            there = [name for name in fs.names(path.parent) if (path.parent / name / SWEEP_FILE).is_file()]
            near = did_you_mean(path.name, there)
            raise InputError(f"There is no sweep in {path} (no {SWEEP_FILE}).{near}") from None
        try:
            return Sweep(path.resolve(), SweepSpec.model_validate_json(content))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InputError(
                f"{path / SWEEP_FILE} is damaged or of another version: {where}: {first['msg']}."
            ) from None

    def with_trials(self, count: int) -> Sweep:
        """The same sweep with more trials; those that there are stay what they are."""
        spec = self.spec.model_copy(update={"trials": count})
        fs.replace_file(self.path / SWEEP_FILE, spec.model_dump_json(indent=2).encode() + b"\n")
        return Sweep(self.path, spec)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def workers(self) -> int:
        """Of each trial."""
        return len(self.spec.placement)

    @functools.cached_property
    def recipe(self) -> Recipe:
        """What every trial trains."""
        return load_recipe(self.spec.config["recipe"])

    @functools.cached_property
    def space(self) -> space.Space:
        """What varies."""
        return space.from_json(self.spec.space)

    def values(self, number: int) -> dict[str, Any]:
        """The point of a trial whose sampler is pure."""
        return space.point(self.space, self.spec.sampler, seed=self.spec.seed, index=number)

    def run_path(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.path / f"trial-{number:04d}"

    def run(self, number: int) -> Run | None:
        """The run of a trial that has begun."""
        path = self.run_path(number)
        return Run.open(path) if (path / RUN_FILE).exists() else None

    def begin(self, number: int, values: Mapping[str, Any] | None = None) -> Run:
        """The run of a trial, made if there is none; workers may do so at once. `values` where TPE chose them."""
        if (there := self.run(number)) is not None:
            return there
        chosen = self.values(number) if values is None else values
        config = config_of(self.spec.config, chosen, self.recipe)
        trial = {"number": number, "values": dict(chosen)}
        try:
            return Run.create(self.run_path(number), new_spec(config, self.recipe, self.spec.placement, trial=trial))
        except InputError:
            if (other := self.run(number)) is not None:  # another worker of this trial was quicker
                return other
            raise

    def trial(self, number: int, job: str | None = None) -> Trial:
        """What is known of a trial; `job` is the phase of its jobs where their backend was asked."""
        run = self.run(number)
        if run is None:
            values = self.values(number) if self.spec.sampler != "tpe" else {}
            return Trial(number=number, values=values, state="queued" if job else "waiting")
        beats = {module: run.heartbeat(module) for module in run.modules}
        state, why = _state(run, beats, job)
        found = evaluations(run)
        metrics = found[-1]["metrics"] if found else {}
        result = result_of(run, self.spec.metric, metrics)
        if state == "finished" and self.spec.metric and result is None:
            why = f"it has no {self.spec.metric}; see its evaluation or its worker.log"
        return Trial(
            number=number,
            values=(run.spec.trial or {}).get("values", {}),
            state=state,
            result=result,
            epoch=min((int(beat.get("epoch") or 0) for beat in beats.values()), default=0),
            metrics=metrics,
            why=why,
        )

    def check_stop(self) -> None:
        """StopRequested where the whole sweep was asked to stop."""
        if STOP_FILE in fs.names(self.path):
            raise StopRequested(f"{self.name} was stopped: no trial begins.")


def new_sweep(config: Config, placement: list[list[str]], varied: space.Space, **decided: Any) -> SweepSpec:
    """What `sweep.json` of a new sweep says; InputError where a value of the space is not allowed by the recipe."""
    recipe = load_recipe(config.recipe)
    base = new_spec(config, recipe, placement)
    known = ("recipe", "dataroot", "epochs", "exchange_every", "max_staleness", "peer_timeout_s", "seed", "device")
    kept = {name: getattr(base, name) for name in known if getattr(base, name) is not None} | {"params": base.params}
    for corner in space.corners(varied):
        new_spec(config_of(kept, corner, recipe), recipe, placement)
    return SweepSpec(
        config=kept,
        placement=placement,
        space=space.as_json(varied),
        versions=base.versions,
        created_at=time.time(),
        **decided,
    )


def config_of(config: Mapping[str, Any], values: Mapping[str, Any], recipe: Recipe) -> Config:
    """The config of a trial: the sweep's, with the trial's values over it."""
    names = [parameter.name for parameter in parameters(recipe.params)]
    options, settings = space.split(values, names)
    return read_config(None, {**config, **options}, settings)


def result_of(run: Run, metric: str | None, metrics: Mapping[str, float | None]) -> float | None:
    """The newest value of a sweep's metric: from the evaluation, or from training (`module.scalar`)."""
    if metric is None:
        return None
    if metric in metrics:
        return metrics[metric]
    module, _, scalar = metric.partition(".")
    if scalar and module in run.modules:
        newest = run.store(module).latest()
        return newest.metrics.get(scalar) if newest else None
    return None


def reports(run: Run, metric: str) -> dict[int, float]:
    """The metric after each epoch that has one; NaN where it was not finite."""
    module, _, scalar = metric.partition(".")
    if scalar and module in run.modules:
        found = [c for c in run.store(module).history() if c.full and c.epoch > 0 and scalar in c.metrics]
        return {checkpoint.epoch: checkpoint.metrics[scalar] for checkpoint in found}
    judged = [found for found in evaluations(run) if metric in found["metrics"]]
    values = {min(found["epochs"].values()): found["metrics"][metric] for found in judged}
    return {epoch: math.nan if value is None else value for epoch, value in values.items() if epoch > 0}


def _state(run: Run, beats: Mapping[str, Mapping[str, Any]], job: str | None) -> tuple[State, str]:
    """Of a run that exists, and why."""
    said = [str(beat.get("state", "")) for beat in beats.values()]
    if set(said) == {"finished"} or (not job and run.is_finished(run.modules)):
        return "finished", ""
    stop = run.stop_requested() or ""
    if stop.startswith(PRUNED):
        return "pruned", stop.removeprefix(PRUNED)
    if job is not None:
        return ("running" if job == "running" else "queued"), ""
    failed = [beat for beat in beats.values() if beat.get("state") == "failed"]
    if failed:
        return "failed", _first_reason(failed)
    if set(said) & set(LIVE):
        return "stopped", "its worker died without a word"
    return "stopped", stop


def _first_reason(failed: Sequence[Mapping[str, Any]]) -> str:
    """The cause rather than its consequences: the others were late, or overtaken, because of it."""
    causes = [beat for beat in failed if beat.get("exit_code") not in (7, 4)] or failed
    return str(causes[0].get("trouble") or f"exit code {causes[0].get('exit_code')}")
