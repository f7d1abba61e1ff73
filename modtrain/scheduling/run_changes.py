"""What a command may change in an existing run: its epochs, its metric, how often it is evaluated, how many versions it
keeps, where its data or its recipe lies now, and an edited recipe that it trusts.

Everything else decides what was trained already, and a command that has it otherwise is refused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modtrain.errors import InputError, ModtrainError, counted
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import recipe_name, recipe_sha256
from modtrain.recipes.params import as_values, build_params, flatten, with_values
from modtrain.recipes.stages import STAGES, split_settings
from modtrain.scheduling import placement, stage_range
from modtrain.scheduling.config import NO_EARLY_STOP, Config, resolved_path, staleness_of
from modtrain.scheduling.job_record import active_modules
from modtrain.scheduling.weights_reference import resolved
from modtrain.storage.best_version import check_measured
from modtrain.storage.folder_listing import listing_sha256
from modtrain.storage.run import Change, Run, RunSpec, StageSpec
from modtrain.training.stages import check_keep

_EXECUTION = {"name", "root", "nodes", "place", "backend", "address", "profile", "job", "check"}
_NOT_COMPARED = _EXECUTION | {"sweep", "params", "hold_schedule"}
"""Options that say where a run is executed, or that are compared separately."""
_NOUNS: Mapping[str, str] = {"dataroot": "data", "recipe": "recipe"}
"""What a setting that can be changed is the place of."""


def changed_spec(config: Config, recipe: Recipe, run: Run) -> RunSpec:
    """The settings of a run with what the config may change; equal to the present ones where it changes nothing.

    InputError where the config has other settings that cannot be changed, or where workers of the run are live.
    """
    spec, other = run.spec, _other_settings(config, recipe, run.spec)
    allowed = {name: new for name, (_, new) in other.items() if _is_allowed(name, new, spec)}
    if run.trusted and "recipe" not in other and (edited := recipe_sha256(spec.recipe)) != spec.recipe_sha256:
        other["recipe_sha256"], allowed["recipe_sha256"] = (spec.recipe_sha256, edited), edited
    if refused := {name: values for name, values in other.items() if name not in allowed}:
        raise InputError(
            f"{run.path} exists with other settings: {'; '.join(_phrases(refused))}. Leave them out to resume it, or "
            "choose another --name."
        )
    if "metric" in allowed:
        check_measured(run, str(allowed["metric"]))
    if allowed.keys() - {"metric"}:
        _check_idle(run)
    if "until_stage" in allowed:
        _check_not_early(run)
        allowed |= stage_range.continued(spec, allowed.pop("until_stage"))
    elif "epochs" in allowed:
        _check_not_early(run)
        allowed["schedule_epochs"] = (spec.schedule_epochs or spec.epochs) if config.hold_schedule else None
        allowed["stages"] = _prolonged(spec.stages, by=allowed["epochs"] - spec.epochs)
    before = {name: getattr(spec, name) for name in allowed}
    changes = [
        Change(name=name, before=before[name], after=new, at=time.time())
        for name, new in allowed.items()
        if before[name] != new and name not in ("stages", "later_stages")
    ]
    changed = replace(run, spec=spec.model_copy(update={**allowed, "changes": [*spec.changes, *changes]}))
    _check_dataroot(changed)
    check_keep(changed.spec, recipe)
    return changed.spec


def _prolonged(stages: list[StageSpec], *, by: int) -> list[StageSpec]:
    """The stages with more epochs in the last one: the others are trained already."""
    return stages and [*stages[:-1], stages[-1].model_copy(update={"epochs": stages[-1].epochs + by})]


def describe(before: RunSpec, after: RunSpec) -> list[str]:
    """The changes of a run in sentences whose subject is the run."""
    sentences = []
    last = f" They are of its last stage, {after.stages[-1].name}." if after.stages else ""
    for change in after.changes[len(before.changes) :]:
        if change.name == "metric":
            sentences.append(f"Compares its versions by {change.after}.")
        elif change.name == "evaluate_every":
            times = f"every {counted(change.after, 'epoch')}" if change.after else "at its end alone"
            sentences.append(f"Is evaluated {times}.")
        elif change.name == "keep":
            sentences.append(f"Keeps the newest {change.after} versions of each module.")
        elif change.name == "recipe_sha256":
            sentences.append(f"Takes the recipe {after.recipe} as it is now: it has changed since the run was created.")
        elif change.name in _NOUNS:
            sentences.append(f"Takes its {_NOUNS[change.name]} from {change.after}, the same as in {change.before}.")
        elif change.name != "epochs":
            continue
        elif before.later_stages:
            sentences.append(f"Goes on until the end of its stage {after.stages[-1].name}, epoch {change.after}.")
        elif after.schedule_epochs is None:
            sentences.append(
                f"Trains to epoch {change.after} instead of {change.before}.{last} Schedules cover all {change.after} "
                f"epochs: epoch {change.before} is at {change.before / change.after:.0%} of them. With "
                "--hold-schedule they keep the value of their last step."
            )
        else:
            sentences.append(
                f"Trains to epoch {change.after} instead of {change.before}.{last} Schedules keep the value that they "
                f"have at the end of epoch {after.schedule_epochs}."
            )
    return sentences


def differences(config: Config, recipe: Recipe, spec: RunSpec) -> list[str]:
    """Settings of the config that an existing run does not have, one phrase each; unset ones never differ."""
    return _phrases(_other_settings(config, recipe, spec))


def _other_settings(config: Config, recipe: Recipe, spec: RunSpec) -> dict[str, tuple[Any, Any]]:
    """By name the value of the run and that of the config, where they differ."""
    given = {name: value for name, value in config.model_dump(exclude_unset=True).items() if name not in _NOT_COMPARED}
    if "track" in given:
        given["track"] = [recipe_name(name) for name in given["track"]]
    for name, resolve in (("recipe", recipe_name), ("dataroot", resolved_path)):
        if given.get(name):
            given[name] = resolve(given[name])
    if "init" in given:
        given["init"] = {module: resolved(reference) for module, reference in config.init.items()}
    if "from_stage" in given:
        given["from_stage"] = stage_range.resolved(given["from_stage"])
    init = {module: weights.reference for module, weights in spec.init.items()}
    current = spec.model_dump() | {"init": init, "max_staleness": staleness_of(spec), "epochs": spec.planned_epochs}
    current["until_stage"] = spec.all_stages[-1].name
    current["from_stage"] = spec.from_stage and spec.from_stage.reference
    current["early_stop"] = current["early_stop"] or NO_EARLY_STOP
    other = {name: (current[name], new) for name, new in given.items() if new is not None and current[name] != new}
    own, of_stages = split_settings(recipe.params, config.params)
    other |= _other_params(own, spec.params, recipe)
    for stage in [*spec.all_stages, *spec.later_stages]:
        current_params, given_params = with_values(spec.params, stage.params), of_stages.get(stage.name, {})
        changed = _other_params(with_values({}, given_params), current_params, recipe)
        other |= {f"{STAGES}.{stage.name}.{name}": values for name, values in changed.items()}
    if config.place and (placed := placement.parse(config.place, recipe.trained)) != spec.placement:
        other["place"] = (placement.format_placement(spec.placement), placement.format_placement(placed))
    elif config.nodes and config.nodes != len(spec.placement):
        other["nodes"] = (len(spec.placement), config.nodes)
    return other


def _other_params(given: Mapping[str, Any], old: Mapping[str, Any], recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """By dotted name the old and the new value of the given parameters that differ."""
    before, values = flatten(old), flatten(as_values(build_params(recipe.params, with_values(old, flatten(given)))))
    return {name: (before.get(name), values[name]) for name in values if before.get(name) != values[name]}


def _phrases(other: Mapping[str, tuple[Any, Any]]) -> list[str]:
    return [f"{name} is {'not set' if old is None else repr(old)}, not {new!r}" for name, (old, new) in other.items()]


def _is_allowed(name: str, new: Any, spec: RunSpec) -> bool:
    """Whether a setting can be changed after training has begun without making what was trained another thing."""
    if name in ("metric", "evaluate_every", "keep"):
        return True
    if name == "until_stage":
        return new in [stage.name for stage in spec.later_stages]
    if name == "epochs":
        return bool(new > spec.planned_epochs) and not spec.later_stages and spec.from_stage is None
    if name == "dataroot":
        return spec.data_sha256 is not None and Path(new).is_dir() and listing_sha256(Path(new)) == spec.data_sha256
    return name == "recipe" and spec.recipe_sha256 is not None and recipe_sha256(new) == spec.recipe_sha256


def _check_idle(run: Run) -> None:
    """InputError where a worker of the run is live or queued: it would not know of the change."""
    try:
        active = active_modules(run)
    except ModtrainError as error:
        raise InputError(f"{run.name} cannot be changed while it is unknown whether it has jobs: {error}") from error
    if active:
        raise InputError(
            f"{run.name} is running or queued ({', '.join(active)}); `modtrain stop {run.path}`, or `modtrain cancel` "
            "for queued jobs, then change it."
        )


def _check_not_early(run: Run) -> None:
    """InputError where a run has stopped early: more epochs would change nothing."""
    outcome = run.early_stop_outcome()
    if outcome is not None and outcome.stopped_at is not None:
        raise InputError(
            f"{run.name} has stopped early, at epoch {outcome.stopped_at}, and is not trained further; begin a run "
            f"with its modules instead, as with --init {run.modules[0]}={run.path}@best."
        )


def _check_dataroot(run: Run) -> None:
    """InputError where the data of an unfinished run is no longer where it was."""
    dataroot = run.spec.dataroot
    if dataroot and not Path(dataroot).is_dir() and not run.is_finished(run.modules):
        raise InputError(
            f"The data of {run.name} is no longer in {dataroot}; if it was moved, give its new place with --dataroot."
        )
