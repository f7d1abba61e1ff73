"""The rules of resuming a sweep: which settings of an existing sweep a command may change, and which differ."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from modtrain.errors import InputError
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import recipe_name, recipe_sha256
from modtrain.recipes.params import as_values, build_params, flatten, parameters, with_settings
from modtrain.scheduling.config import Config, resolved_path
from modtrain.scheduling.placement import format_placement, parse
from modtrain.sweeps import space
from modtrain.sweeps.space import Space
from modtrain.sweeps.sweep import CONFIG, Sweep, SweepSpec, check_metric, count_trials
from modtrain.sweeps.sweep_config import SweepSection

log = logging.getLogger(__name__)

Difference = tuple[Any, Any]
"""The value of the sweep, and the one that was given."""


def resumed_spec(sweep: Sweep, config: Config, section: SweepSection, varied: Space, recipe: Recipe) -> SweepSpec:
    """The spec of the sweep with more trials, or another metric; InputError where any other setting differs."""
    spec = sweep.spec
    if other := differences(config, section, varied, recipe, spec):
        raise InputError(
            f"{sweep.path} exists with other settings: {'; '.join(other)}. Leave them out to resume it, or "
            "choose another --name."
        )
    if spec.recipe_sha256 != recipe_sha256(spec.config["recipe"]):
        log.warning("The recipe %s has changed since this sweep was created.", spec.config["recipe"])
    given = section.model_fields_set & {"trials", "metric", "maximize"}
    changes = {name: value for name in given if (value := getattr(section, name)) is not None}
    if changes.get("metric", spec.metric) != spec.metric and "maximize" not in changes:
        changes["maximize"] = changes["metric"] not in recipe.lower_is_better
    changed = spec.model_copy(update=changes)
    check_metric(recipe, changed.metric, needed=False)
    count_trials(sweep.space, changed.sampler, changed.trials)
    return changed


def differences(config: Config, section: SweepSection, varied: Space, recipe: Recipe, spec: SweepSpec) -> list[str]:
    """Settings that were given and that the sweep does not have, one phrase each; of another recipe only its name."""
    other = _config_differences(config, spec)
    if "recipe" in other:
        return ["recipe is {!r}, not {!r}".format(*other["recipe"])]
    other |= _parameter_differences(config, recipe, spec) | _section_differences(section, spec)
    other |= _placement_differences(config, recipe, spec)
    phrases = [f"{name} is {old!r}, not {new!r}" for name, (old, new) in other.items()]
    return phrases + _space_differences(varied, spec)


def _config_differences(config: Config, spec: SweepSpec) -> dict[str, Difference]:
    given = config.model_dump(exclude_unset=True, exclude={"params"})
    for name, resolve in (("recipe", recipe_name), ("dataroot", resolved_path)):
        if given.get(name):
            given[name] = resolve(given[name])
    values = {name: (spec.config.get(name), given[name]) for name in CONFIG if given.get(name) is not None}
    return {name: (old, new) for name, (old, new) in values.items() if old != new}


def _parameter_differences(config: Config, recipe: Recipe, spec: SweepSpec) -> dict[str, Difference]:
    """A parameter that varies does not differ: a config may have a value of it for `modtrain launch`."""
    names = [parameter.name for parameter in parameters(recipe.params)]
    groups = space.resolve([entry["name"] for entry in spec.space], names).values()
    varied = {name for group in groups for name in group}
    given, old = flatten(config.params), flatten(spec.config["params"])
    settings = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    new = flatten(as_values(build_params(recipe.params, with_settings(spec.config["params"], settings))))
    return {name: (old.get(name), new[name]) for name in given if name not in varied and old.get(name) != new.get(name)}


def _section_differences(section: SweepSection, spec: SweepSpec) -> dict[str, Difference]:
    fixed = {"sampler", "prune", "evaluate_every"}
    if spec.sampler == "tpe" or spec.prune:  # otherwise the metric only ranks the trials
        fixed |= {"metric", "maximize"}
    given = {name: getattr(section, name) for name in sorted(section.model_fields_set & fixed)}
    other = {name: (old, new) for name, new in given.items() if new not in (None, old := getattr(spec, name))}
    if section.trials and section.trials < spec.trials:
        other["trials"] = (spec.trials, section.trials)
    return other


def _placement_differences(config: Config, recipe: Recipe, spec: SweepSpec) -> dict[str, Difference]:
    other: dict[str, Difference] = {}
    if config.nodes is not None and config.nodes != len(spec.placement):
        other["nodes-per-trial"] = (len(spec.placement), config.nodes)
    if config.place is not None and parse(config.place, list(recipe.modules)) != spec.placement:
        other["place"] = (format_placement(spec.placement), config.place)
    return other


def _space_differences(varied: Space, spec: SweepSpec) -> list[str]:
    if not varied.dimensions:
        return []
    old = {str(entry["name"]): entry for entry in spec.space}
    new = {str(entry["name"]): entry for entry in space.as_json(varied)}
    phrases = [f"{name} is not varied" for name in new if name not in old]
    phrases += [f"{name} is varied, too ({_format(entry)})" for name, entry in old.items() if name not in new]
    both = [name for name in old if name in new and old[name] != new[name]]
    phrases += [f"{name} varies over {_format(old[name])}, not {_format(new[name])}" for name in both]
    if not phrases and list(old) != list(new):
        phrases = [f"the order of the varied names is {', '.join(old)}"]
    return phrases


def _format(entry: Mapping[str, Any]) -> str:
    """A dimension as `--vary` takes it."""
    if "choices" in entry:
        return ", ".join(map(str, entry["choices"]))
    count = f":{entry['count']}" if entry.get("count") else ""
    return f"{'log:' if entry.get('log') else ''}{entry['low']}..{entry['high']}{count}"
