"""SweepPlan: a sweep with the settings of a config and a command, and how its trials are to run.

Existing settings are compared, and nothing is created before `SweepPlan.write`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modtrain import plugins
from modtrain.errors import InputError, counted, did_you_mean
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import recipe_name, recipe_sha256
from modtrain.recipes.params import flatten, parameters, sentence, with_settings
from modtrain.recipes.trust import check_files
from modtrain.scheduling import run_changes, run_plan
from modtrain.scheduling.backends.base import Array, Backend, BackendOptions, Resources, python_path
from modtrain.scheduling.config import Config, new_spec, read_config
from modtrain.scheduling.job_record import Record
from modtrain.scheduling.launcher import worker_command
from modtrain.scheduling.profile import Profile
from modtrain.scheduling.recipe_check import require_sound
from modtrain.scheduling.weights_reference import resolved
from modtrain.storage import filesystem
from modtrain.storage.layout import JOBS, SWEEP_FILE
from modtrain.storage.manifest import check_name
from modtrain.storage.run import RunSpec
from modtrain.sweeps import space
from modtrain.sweeps.space import Space
from modtrain.sweeps.sweep import (
    MOST_TRIALS,
    Sweep,
    SweepRecord,
    SweepSpec,
    check_metric,
    count_trials,
    first_trial,
    new_sweep,
)


class SweepSection(BaseModel):
    """The section `sweep:` of a config file; the options of `modtrain sweep` have the same names and override it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    space: dict[str, Any] = Field(default_factory=dict)
    sampler: str | None = None
    trials: int | None = Field(default=None, ge=1, le=MOST_TRIALS)
    metric: str | None = None
    maximize: bool | None = None
    prune: str | None = None
    evaluate_every: int | None = Field(default=None, ge=0)
    max_running: int | None = Field(default=None, ge=1)
    nodes: int | None = Field(default=None, ge=1)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `new_sweep` that are given."""
        return self.model_dump(exclude={"space", "max_running", "nodes"}, exclude_none=True)


def read_section(values: Mapping[str, Any], options: Mapping[str, Any]) -> SweepSection:
    """The section of a config with the options that are not None; InputError names what is not allowed."""
    known = list(SweepSection.model_fields)
    for name in values:
        if name not in known:
            near = did_you_mean(name, known)
            raise InputError(f"`sweep:` has no {name!r}; it takes {', '.join(known)}.{near}")
    try:
        return SweepSection(**{**values, **{name: value for name, value in options.items() if value is not None}})
    except ValidationError as error:
        raise InputError(" ".join(sentence(item) for item in error.errors())) from None


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """A sweep as it is, or as it will be once `write` has created it, and how it is to run."""

    path: Path
    sweep: Sweep | None
    """The sweep in the folder, if there is one."""
    spec: SweepSpec
    backend_name: str
    options: BackendOptions
    backend: Backend
    at_once: int | None
    """Trials at the same time; None where neither the command nor an earlier one says it."""
    trusted: bool = False
    """As of `Sweep`."""
    checked: RunSpec | None = None
    """The run whose recipe is checked before the sweep is created; None where it exists, or without the check."""

    @property
    def uses_arrays(self) -> bool:
        """Whether the trials are submitted as arrays.

        That needs a scheduler with arrays, and trials that depend on no result: TPE and pruning need a running process.
        """
        limit = getattr(self.backend, "profile", Profile()).array_limit
        independent = self.spec.sampler != "tpe" and not self.spec.prune
        return self.backend.unattended and limit >= len(self.spec.placement) and independent

    def check(self, notify: Callable[[str], None]) -> None:
        """InputError where this is a new sweep whose trials cannot be submitted from this machine, or be trained."""
        if self.sweep is None:
            self.backend.check(self.spec.config["device"])
        if self.checked is not None:
            require_sound(self.checked, notify, metric=self.spec.metric)

    def write(self) -> Sweep:
        """Create the sweep, or write what the command changes of an existing one."""
        if self.sweep is None:
            return Sweep.create(self.path, self.spec, trusted=self.trusted)
        return self.sweep.with_spec(self.spec)

    def record(self, before: SweepRecord) -> SweepRecord:
        """The record of the sweep with the backend, options and number of trials of this plan."""
        return replace(before, backend=self.backend_name, options=self.options, at_once=self.at_once)

    def array(self, sweep: Sweep, numbers: Iterable[int]) -> Array:
        """The workers of these trials as one array: task = trial * workers of a trial + worker."""
        threads, trusted = self.backend.cores(1), ("--trust-recipe",) if sweep.trusted else ()
        return Array(
            name=sweep.name,
            command=(*worker_command("trial", sweep.path), "--threads", str(threads), *trusted, *sweep.worker_options),
            tasks=[number * sweep.workers + worker for number in numbers for worker in range(sweep.workers)],
            max_running=self.at_once * sweep.workers if self.at_once else None,
            group_size=sweep.workers,
            log=sweep.path / JOBS,
            resources=Resources(cpus=threads),
            environment=python_path(),
        )


def find_sweep(config: Config, *, trusted: bool = False) -> tuple[Path, Sweep | None]:
    """The folder of the named sweep, or the first of sweep-1, sweep-2, ... that is new, and the sweep in it, if any."""
    root = Path(config.root).expanduser()
    if root.exists() and not root.is_dir():
        raise InputError(f"--root {root} is a file, but must be a folder; sweeps are created in it.")
    names = filesystem.names(root)
    new = next(name for number in range(1, len(names) + 2) if (name := f"sweep-{number}") not in names)
    check_name(config.name or new)
    path = root / (config.name or new)
    if (path / SWEEP_FILE).exists():
        return path, Sweep.open(path, trusted=trusted)
    if path.exists():
        raise InputError(f"{path} exists and is not a sweep; choose another --name or --root.")
    return path, None


def plan_sweep(
    path: Path,
    sweep: Sweep | None,
    config: Config,
    section: SweepSection,
    varied: Space,
    recipe: Recipe,
    *,
    trusted: bool = False,
) -> SweepPlan:
    """Decide everything about the sweep and write nothing; what the backend refuses leaves no folder behind.

    Step costs are measured where they decide the placement. InputError where the options contradict the recipe, or an
    existing sweep.
    """
    if config.nodes is not None and config.nodes > len(recipe.trained):
        modules = f"{counted(len(recipe.trained), 'module')} ({', '.join(recipe.trained)})"
        raise InputError(f"--nodes-per-trial {config.nodes} is more than the recipe's {modules}.")
    record = sweep.read_record() if sweep else SweepRecord()
    previous = sweep.previous_launch(record) if sweep else Record()
    if not trusted:
        run_plan.check_record(previous)
    name = run_plan.choose_backend(config, previous)
    options = run_plan.choose_options(config, name, previous)
    backend: Backend = plugins.load("backend", name)(options)
    if sweep is None:
        spec = new_sweep(config, varied, **section.settings)
        if not trusted:
            check_files(path.resolve() / SWEEP_FILE, spec.config["recipe"], config.track)  # before the trials do
    else:
        spec = resumed_spec(sweep, config, section, varied, recipe)
    workers, nodes = len(spec.placement), section.nodes
    if nodes is not None and nodes < workers:
        needed = counted(workers, "worker")
        raise InputError(f"--nodes {nodes} is less than one trial needs: it has {needed}, a node each.")
    limits = [limit for limit in (section.max_running, nodes // workers if nodes else None) if limit]
    before = record.at_once if record.backend == name else None
    at_once = min(limits, default=before)
    return SweepPlan(
        path=path,
        sweep=sweep,
        spec=spec,
        backend_name=name,
        options=options,
        backend=backend,
        at_once=at_once,
        trusted=trusted,
        checked=first_trial(spec, recipe) if config.check and sweep is None else None,
    )


def resumed_spec(sweep: Sweep, config: Config, section: SweepSection, varied: Space, recipe: Recipe) -> SweepSpec:
    """The spec of the sweep with more trials, or another metric; InputError where any other setting differs."""
    spec = sweep.spec
    if other := differences(sweep, config, section, varied, recipe):
        raise InputError(
            f"{sweep.path} exists with other settings: {'; '.join(other)}. Leave them out to resume it, or "
            f"choose another --name.{_advice(sweep, other)}"
        )
    dataroot = spec.config.get("dataroot")
    if dataroot and not Path(dataroot).is_dir() and not all(sweep.map_trials(lambda n: _is_finished(sweep, n))):
        raise InputError(
            f"The data of {sweep.name} is no longer in {dataroot}; put it back, or a link to its new place."
        )
    changes = {name: value for name, value in section.settings.items() if name in ("trials", "metric", "maximize")}
    if sweep.trusted:
        changes["recipe_sha256"] = recipe_sha256(spec.config["recipe"])
    if changes.get("metric", spec.metric) != spec.metric and "maximize" not in changes:
        changes["maximize"] = changes["metric"] not in recipe.lower_is_better
    changed = spec.model_copy(update=changes)
    check_metric(recipe, changed.metric, needed=False)
    count_trials(sweep.space, changed.sampler, changed.trials)
    return changed


def differences(sweep: Sweep, config: Config, section: SweepSection, varied: Space, recipe: Recipe) -> list[str]:
    """Settings that were given and that the sweep does not have, one phrase each; of another recipe only its name."""
    spec = sweep.spec
    if "recipe" in config.model_fields_set and (other := recipe_name(config.recipe)) != spec.config["recipe"]:
        return [f"recipe is {spec.config['recipe']!r}, not {other!r}"]
    # A parameter that varies does not differ: a config may have a value of it for `modtrain launch`.
    groups = space.resolve(sweep.space, [parameter.name for parameter in parameters(recipe.params)]).values()
    free = {name for group in groups for name in group}
    given = [f"{name}={json.dumps(value)}" for name, value in flatten(config.params).items() if name not in free]
    params = with_settings(spec.config["params"], given)
    # The files of `init` are not needed any more once the trials have begun.
    base = new_spec(read_config(None, {**spec.config, "init": {}}), recipe, spec.placement)
    compared = config.model_copy(update={"params": params, "nodes": None, "init": {}})
    phrases = run_changes.differences(compared, recipe, base)
    init = {module: resolved(reference) for module, reference in config.init.items()}
    if init not in ({}, old := spec.config.get("init", {})):
        phrases.append(f"init is {old!r}, not {init!r}")
    if config.nodes not in (None, sweep.workers):
        phrases.append(f"nodes-per-trial is {sweep.workers}, not {config.nodes}")
    fixed = {"sampler", "prune", "evaluate_every"}
    if spec.sampler == "tpe" or spec.prune:  # otherwise the metric only ranks the trials
        fixed |= {"metric", "maximize"}
    for name, new in section.settings.items():
        if (old := getattr(spec, name)) != new and (name in fixed or (name == "trials" and new < old)):
            phrases.append(f"{name} is {old!r}, not {new!r}")
    return phrases + (_space_differences(sweep.space, varied) if varied else [])


def _advice(sweep: Sweep, phrases: Sequence[str]) -> str:
    """What to do instead of giving a sweep other settings that a run may get."""
    names = [phrase.partition(" is ")[0] for phrase in phrases]
    if "epochs" in names:
        return f" One of its trials is trained longer by `modtrain launch {sweep.run_path(0)} --epochs N`."
    return " If the data was moved, put a link to it in the old place." if "dataroot" in names else ""


def _is_finished(sweep: Sweep, number: int) -> bool:
    run = sweep.intact_run(number)
    return run is not None and run.is_finished(run.modules)


def _space_differences(old: Space, new: Space) -> list[str]:
    phrases = [f"{name} is not varied" for name in new if name not in old]
    phrases += [f"{name} is varied, too ({old[name]})" for name in old if name not in new]
    both = [name for name in old if name in new and old[name] != new[name]]
    phrases += [f"{name} varies over {old[name]}, not {new[name]}" for name in both]
    if not phrases and list(old) != list(new):
        phrases = [f"the order of the varied names is {', '.join(old)}"]
    return phrases
