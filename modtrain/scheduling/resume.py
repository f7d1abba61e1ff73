"""The rules of resuming, for Python and the command line: settings, backend and job options of an existing run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from modtrain import plugins
from modtrain.errors import InputError, ModtrainError
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import recipe_name
from modtrain.recipes.params import as_values, build_params, flatten
from modtrain.scheduling.backends.base import Backend, BackendOptions
from modtrain.scheduling.config import Config, resolved_path
from modtrain.scheduling.job_record import Record, job_states, read_record
from modtrain.scheduling.placement import format_placement, parse
from modtrain.scheduling.profile import Profile, read_profile
from modtrain.storage.liveness import live_modules
from modtrain.storage.run import Run, RunSpec

_NOT_COMPARED = {"name", "root", "nodes", "place", "backend", "address", "profile", "job", "sweep", "params"}
"""Options that say where a run is executed, or that are compared separately."""


@dataclass(frozen=True, kw_only=True)
class PreviousLaunch:
    """How a run or a sweep was launched last."""

    backend: str | None = None
    options: BackendOptions = field(default_factory=BackendOptions)
    has_jobs: bool = False
    """Whether any job was submitted. What was refused so far may be corrected by the next command."""


@dataclass(frozen=True, kw_only=True)
class BackendChoice:
    """The backend of a launch with its options."""

    name: str
    options: BackendOptions
    backend: Backend


def has_begun(run: Run) -> bool:
    """Whether anything was published, runs, or is queued; true as well where the scheduler does not answer."""
    if any(run.store(module).versions() for module in run.modules) or live_modules(run):
        return True
    try:
        return any(state.live for state in job_states(run).values())
    except ModtrainError:
        return True


def check_settings(config: Config, recipe: Recipe, run: Run) -> None:
    """InputError where the config has other settings than the run."""
    if other := differences(config, recipe, run.spec):
        raise InputError(
            f"{run.path} exists with other settings: {'; '.join(other)}. Leave them out to resume it, or choose "
            "another --name."
        )


def differences(config: Config, recipe: Recipe, spec: RunSpec) -> list[str]:
    """Settings of the config that an existing run does not have, one phrase each; unset ones never differ."""
    given = {name: value for name, value in config.model_dump(exclude_unset=True).items() if name not in _NOT_COMPARED}
    if "track" in given:
        given["track"] = [recipe_name(name) for name in given["track"]]
    for name, resolve in (("recipe", recipe_name), ("dataroot", resolved_path)):
        if given.get(name):
            given[name] = resolve(given[name])
    current = spec.model_dump()
    other = {name: (current[name], new) for name, new in given.items() if new is not None and current[name] != new}
    values, old = flatten(as_values(build_params(recipe.params, config.params))), flatten(spec.params)
    changed = [name for name in flatten(config.params) if name in values and old.get(name) != values[name]]
    other |= {name: (old.get(name), values[name]) for name in changed}
    if config.place and (placement := parse(config.place, list(recipe.modules))) != spec.placement:
        other["place"] = (format_placement(spec.placement), format_placement(placement))
    elif config.nodes and config.nodes != len(spec.placement):
        other["nodes"] = (len(spec.placement), config.nodes)
    return [f"{name} is {old!r}, not {new!r}" for name, (old, new) in other.items()]


def choose_launch(config: Config, run: Run | None) -> BackendChoice:
    """The backend and options with which a run is launched, new or resumed."""
    record = read_record(run) if run is not None else Record()
    previous = PreviousLaunch(backend=record.backend, options=record.options, has_jobs=bool(record.jobs))
    name = choose_backend(config, previous)
    options = choose_options(config, name, previous)
    return BackendChoice(name=name, options=options, backend=plugins.load("backend", name)(options))


def choose_backend(config: Config, previous: PreviousLaunch) -> str:
    """The backend that is named, or that the named profile is for, else the previous one, else the default."""
    if "backend" in config.model_fields_set:
        return config.backend
    profile = _named_profile(config)
    return (profile.backend if profile else None) or previous.backend or config.backend


def choose_options(config: Config, backend: str, previous: PreviousLaunch) -> BackendOptions:
    """The options of the backend: the named profile, else the previous one; then the job options of the config.

    The previous options hold for the same backend only. While no job was submitted, a command that names a backend or
    a profile ignores them, so that it can correct what was refused.
    """
    is_named = "backend" in config.model_fields_set or config.profile is not None
    is_same = previous.backend == backend and (previous.has_jobs or not is_named)
    before = previous.options if is_same else BackendOptions()
    profile = (_named_profile(config) or before.profile).with_values(config.job, "The job options")
    options = BackendOptions(address=config.address, profile=profile)
    return options if options.address else replace(options, address=before.address)


def _named_profile(config: Config) -> Profile | None:
    return read_profile(Path(config.profile).expanduser()) if config.profile else None
