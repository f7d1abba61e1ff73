"""The run that a config names, new or resumed: found in its folder or placed on workers, and how it is launched.

target = find_target(config)                            # folder, recipe, existing run
plan = plan_run(target)                                 # settings compared, or modules placed
backend, options = choose_launch(config, target.run)    # as the config says, else as before
run = plan.write()                                      # only now the folder is created
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modtrain import plugins
from modtrain.errors import InputError, ModtrainError, did_you_mean
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import load_recipe, recipe_name, recipe_of
from modtrain.recipes.trust import HOW, check_files
from modtrain.scheduling import placement
from modtrain.scheduling.backends.base import BackendOptions, python_path
from modtrain.scheduling.config import Config, never_early, new_spec
from modtrain.scheduling.job_record import Record, active_modules, read_record
from modtrain.scheduling.profile import Profile, read_profile
from modtrain.scheduling.run_changes import changed_spec, describe
from modtrain.storage import filesystem
from modtrain.storage.folder_listing import listing_sha256
from modtrain.storage.layout import RUN_FILE
from modtrain.storage.manifest import as_json, check_name
from modtrain.storage.run import Run, RunSpec
from modtrain.training.stages import check_keep, idle_workers


@dataclass(frozen=True, kw_only=True)
class Target:
    """The folder that a config names, its recipe, and the run in it."""

    config: Config
    path: Path
    recipe: Recipe
    run: Run | None
    """The run in the folder, if there is one."""
    resumes: bool
    """Whether that run is resumed. False for a new run, and for one in which nothing has begun: it is replaced."""
    trusted: bool = False
    """As of `Run`."""


def find_target(config: Config, *, named_by_folder: bool = False, trusted: bool = False) -> Target:
    """Open what the config names; InputError where its root, name or recipe is wrong.

    An existing run in which nothing was published, and nothing runs or is queued, takes the settings of the config, so
    that a corrected command repairs it. Not so for a run that is `named_by_folder`: that command has no settings.
    InputError also where the run's recipe or a tracker is a file that is not trusted, unless `trusted`.
    """
    if config.name is not None:
        check_name(config.name)
    path = _root(config) / (config.name or new_name(config))
    run = Run.open(path, trusted=trusted) if (path / RUN_FILE).exists() else None
    resumes = run is not None and (named_by_folder or has_begun(run))
    is_other = "recipe" in config.model_fields_set and run is not None and recipe_name(config.recipe) != run.spec.recipe
    recipe = _recipe_of(run) if run is not None and resumes and not is_other else load_recipe(config.recipe)
    return Target(config=config, path=path, recipe=recipe, run=run, resumes=resumes, trusted=trusted)


def target_of(subject: Config | Run, *, trusted: bool = False) -> Target:
    """What Python's `launch` is called with; InputError for anything but a config or a run."""
    if isinstance(subject, Run):
        config = Config(name=subject.path.name, root=str(subject.path.parent))
        return find_target(config, named_by_folder=True, trusted=trusted or subject.trusted)
    if not isinstance(subject, Config):
        raise InputError(
            f"launch takes a Config or a Run, not {subject!r}; such as launch(Config(recipe='./my_gan.py', nodes=2)), "
            "or launch(Run.open('runs/my-gan')) to resume one."
        )
    return find_target(subject, trusted=trusted)


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run as it is, or as it will be once `write` has created it."""

    target: Target
    run: Run
    """Its folder may not exist yet."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Seconds of a step by module, where they decided the placement."""
    notes: Sequence[str] = ()
    """What the plan changes in an existing run, or what is to be known of a new one, in sentences."""

    @property
    def is_checked(self) -> bool:
        """Whether the recipe is checked before anything is submitted."""
        return self.target.config.check and not self.target.resumes

    def write(self) -> Run:
        """Create the run, or write what the plan changes of an existing one."""
        before = self.target.run
        if before is None:
            return Run.create(self.target.path, self.run.spec, trusted=self.run.trusted)
        return before if before.spec == self.run.spec else before.replace_spec(self.run.spec)


def plan_run(target: Target, settings: Iterable[str] = ()) -> RunPlan:
    """Decide everything about the run, with `settings` as of `--set`, and write nothing.

    InputError where a resumed run has settings that cannot be changed.
    """
    config, resumed = target.config.with_settings(settings), target.run if target.resumes else None
    if config.hold_schedule and (resumed is None or (config.epochs or 0) <= resumed.spec.epochs):
        raise InputError("--hold-schedule is for a run that exists and gets more --epochs.")
    if resumed is not None:
        spec = changed_spec(config, target.recipe, resumed)
        return RunPlan(target=target, run=replace(resumed, spec=spec), notes=describe(resumed.spec, spec))
    spec, costs = draft(config, target.recipe)
    if spec.dataroot:
        spec = spec.model_copy(update={"data_sha256": listing_sha256(Path(spec.dataroot))})
    run = Run(target.path.resolve(), spec, target.trusted)
    if not run.trusted:
        check_files(run.path / RUN_FILE, spec.recipe, spec.track)  # before the workers do
    with plugins.user_code_errors("recipe", spec.recipe):
        notes = never_early(spec), idle_workers(spec, target.recipe)
    return RunPlan(target=target, run=run, costs=costs, notes=[note for note in notes if note])


def new_name(config: Config) -> str:
    """A name that no run in the root has: the recipe's with a number."""
    root = _root(config)
    if root.exists() and not root.is_dir():
        raise InputError(f"--root {root} is a file, but must be a folder; runs are created in it.")
    stem, names = Path(config.recipe).stem, filesystem.names(root)
    return next(name for number in range(1, len(names) + 2) if (name := f"{stem}-{number}") not in names)


def unfinished(config: Config) -> Run | None:
    """The newest run that `new_name` named for this recipe, if it is not finished."""
    number = int(new_name(config).rpartition("-")[2]) - 1
    path = _root(config) / f"{Path(config.recipe).stem}-{number}"
    if not (path / RUN_FILE).exists():
        return None
    run = Run.open(path)
    return None if run.is_finished(run.modules) else run


def draft(config: Config, recipe: Recipe) -> tuple[RunSpec, dict[str, float]]:
    """The `run.json` of a new run with its modules placed on workers, and the step costs that decided the placement.

    Nothing is written. InputError where the run cannot be trained.
    """
    if config.dataroot:
        check_dataroot(Path(config.dataroot).expanduser(), recipe)
    modules = recipe.trained
    spec, costs = new_spec(config, recipe, [modules]), dict[str, float]()
    nodes = config.nodes or len(recipe.placement or modules)
    if config.place is not None:
        placed = placement.parse(config.place, modules)
    elif nodes == len(recipe.placement):
        placed = placement.ordered(recipe.placement, modules)
    else:
        if 1 < nodes < len(modules):  # the only case in which `place` needs them
            costs = measured_costs(spec)
        placed = placement.place(modules, nodes, costs)
    if spec.init or spec.fixed:
        from modtrain.training.initialisation import check_initial_weights  # imports torch, as the recipe has done

        check_initial_weights(spec, recipe)
    spec = spec.model_copy(update={"placement": placed})
    check_keep(spec, recipe)
    return spec, costs


def check_dataroot(path: Path, recipe: Recipe) -> None:
    """InputError where the folder of the data does not exist, or does not have the layout that the recipe needs."""
    if not path.is_dir():
        beside = [other.name for other in path.parent.iterdir() if other.is_dir()] if path.parent.is_dir() else []
        problem = "is a file, but must be a folder" if path.exists() else "does not exist"
        raise InputError(f"--dataroot {path} {problem}.{did_you_mean(path.name, beside)}")
    if recipe.check_dataroot:
        recipe.check_dataroot(path)


def measured_costs(spec: RunSpec) -> dict[str, float]:
    """Seconds a step by module, measured in a process of its own (`training/step_costs.py`)."""
    command = [sys.executable, "-m", "modtrain.training.step_costs"]
    environment = os.environ | python_path()
    result = subprocess.run(command, input=as_json(spec).decode(), capture_output=True, text=True, env=environment)
    if result.returncode:
        reasons = result.stderr.strip().splitlines() or ["no reason given"]
        raise InputError(f"The costs of the modules could not be measured: {reasons[-1]}")
    return {name: float(cost) for name, cost in json.loads(result.stdout.strip().splitlines()[-1]).items()}


def has_begun(run: Run) -> bool:
    """Whether anything was published, runs, or is queued; true as well where the scheduler does not answer."""
    if any(run.store(module).versions() for module in run.modules):
        return True
    try:
        return bool(active_modules(run))
    except ModtrainError:
        return True


def choose_launch(config: Config, run: Run | None) -> tuple[str, BackendOptions]:
    """The backend and options with which a run is launched, new or resumed."""
    previous = read_record(run) if run is not None else Record()
    if run is not None and not run.trusted:
        check_record(previous)
    backend = choose_backend(config, previous)
    return backend, choose_options(config, backend, previous)


def check_record(previous: Record) -> None:
    """InputError where the record of the last launch may be another user's, and holds what a launch would execute."""
    if previous.foreign and (executed := previous.executed):
        raise InputError(
            f"{previous.foreign} may be another user's, and a launch uses {', '.join(executed)} of it; {HOW}."
        )


def choose_backend(config: Config, previous: Record) -> str:
    """The backend that is named, or that the named profile is for, else the previous one, else the default."""
    if "backend" in config.model_fields_set:
        return config.backend
    profile = _named_profile(config)
    return (profile.backend if profile else None) or previous.backend or config.backend


def choose_options(config: Config, backend: str, previous: Record) -> BackendOptions:
    """The options of the backend: the named profile, else the previous one; then the job options of the config.

    The previous options hold for the same backend only. While no job was submitted, a command that names a backend or
    a profile ignores them, so that it can correct what was refused.
    """
    is_named = "backend" in config.model_fields_set or config.profile is not None
    is_same = previous.backend == backend and (bool(previous.jobs) or not is_named)
    before = previous.options if is_same else BackendOptions()
    profile = (_named_profile(config) or before.profile).with_values(config.job, "The job options")
    return BackendOptions(address=config.address or before.address, profile=profile)


def _recipe_of(run: Run) -> Recipe:
    name = run.spec.recipe
    if plugins.is_file(name) and not Path(name).exists():
        raise InputError(f"The recipe {name} of {run.name} is gone; if it was moved, give its new place with --recipe.")
    return recipe_of(run)


def _named_profile(config: Config) -> Profile | None:
    return read_profile(Path(config.profile).expanduser()) if config.profile else None


def _root(config: Config) -> Path:
    return Path(config.root).expanduser()
