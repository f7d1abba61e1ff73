"""What `modtrain sweep` means: a sweep that exists or would be made, and how it is to run.

Deliberately not here: the command's options (`sweeping.py`).
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modtrain import plugins
from modtrain.cli.arguments import file_or_folder, job_options, recipe_settings
from modtrain.errors import InputError, did_you_mean
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import load_recipe, recipe_name, recipe_sha256
from modtrain.recipes.params import as_values, build_params, flatten, parameters, sentence, with_settings
from modtrain.scheduling.backends.base import Backend, BackendOptions
from modtrain.scheduling.config import Config, read_config
from modtrain.scheduling.placement import format_placement, parse
from modtrain.scheduling.resume import PreviousLaunch, choose_backend, choose_options
from modtrain.storage import filesystem
from modtrain.storage.layout import SWEEP_FILE
from modtrain.storage.manifest import check_name
from modtrain.sweeps import space
from modtrain.sweeps.array_jobs import Last, last
from modtrain.sweeps.runner import check_at_once, uses_arrays
from modtrain.sweeps.sweep import CONFIG, Sweep, SweepSpec, check_metric, count_trials, new_sweep

log = logging.getLogger(__name__)


class Section(BaseModel):
    """`sweep:` of a config file; the command line's options have the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    space: dict[str, Any] = Field(default_factory=dict)
    sampler: str = "grid"
    trials: int | None = Field(default=None, ge=1, le=1_000_000)
    metric: str | None = None
    maximize: bool | None = None
    """None leaves it to the recipe, which says of which metrics less is better."""
    prune: str | None = None
    evaluate_every: int | None = Field(default=None, ge=1)
    max_running: int | None = Field(default=None, ge=1)
    nodes: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class Plan:
    """The sweep that a command line means."""

    config: Config
    section: Section
    varied: space.Space
    path: Path
    existing: Sweep | None
    recipe: Recipe

    @staticmethod
    def of(
        ctx: typer.Context,
        target: Path | None,
        given: dict[str, Any],
        settings: list[str],
        asked: dict[str, Any],
        vary: list[str],
        file: Path | None,
    ) -> Plan:
        """Read the file or the sweep that is named, the space, and the options that only the recipe knows."""
        given = {**given, "job": job_options(ctx)}
        config_file, given = file_or_folder(target, given, "sweep", lambda folder: Sweep.open(folder).path)
        config = read_config(config_file, given, [])
        root = Path(config.root).expanduser()
        if root.exists() and not root.is_dir():
            raise InputError(f"--root {root} is a file, but must be a folder; sweeps are made in it.")
        name = _new_name(root) if config.name is None else config.name
        check_name(name)
        path = root / name
        existing = Sweep.open(path) if (path / SWEEP_FILE).exists() else None
        if existing is None and path.exists():
            raise InputError(f"{path} exists already, and is no sweep; choose another --name or --root.")
        named = "recipe" in config.model_fields_set or existing is None
        recipe = load_recipe(config.recipe if named or existing is None else existing.spec.config["recipe"])
        config = read_config(config_file, given, [*recipe_settings(ctx, _names(recipe)), *settings])
        section = _section(config.sweep, asked)
        varied = _read_space(section, file, vary)
        plan = Plan(config, section, varied, path, existing, recipe)
        plan.check()
        return plan

    def check(self) -> None:
        """InputError where the options contradict the recipe, or the sweep that exists."""
        modules, wanted = list(self.recipe.modules), self.config.nodes
        if wanted is not None and wanted > len(modules):
            raise InputError(
                f"--nodes-per-trial {wanted} is more than the recipe's {len(modules)} modules ({', '.join(modules)})."
            )
        if self.existing is not None and (other := self._differences(self.existing.spec)):
            raise InputError(
                f"{self.existing.path} exists and was begun otherwise: {'; '.join(other)}. Leave that out to go on "
                "with it, or choose another --name."
            )
        space.resolve(self.varied.dimensions, _names(self.recipe))
        if self.existing is not None:
            spec = self.existing.spec
            check_metric(self.recipe, self.section.metric or spec.metric, needed=False)
            count_trials(self.existing.space, spec.sampler, self.section.trials or spec.trials)
            if spec.recipe_sha256 != recipe_sha256(spec.config["recipe"]):
                log.warning("The recipe %s has changed since this sweep was begun.", spec.config["recipe"])

    def sweep(self) -> Sweep:
        """The sweep; made if there is none, with more trials or another metric if that is asked for."""
        if self.existing is None:
            return Sweep.create(self.path, self.spec)
        return self.existing.changed(**{name: getattr(self.spec, name) for name in ("trials", "metric", "maximize")})

    @functools.cached_property
    def spec(self) -> SweepSpec:
        """What the sweep is or would be; costs are measured where they decide the placement."""
        section, decided = self.section, self.section.model_dump(exclude={"space", "max_running", "nodes"})
        if self.existing is None:
            return new_sweep(self.config, self.varied, **decided)
        asked = section.model_fields_set & {"trials", "metric", "maximize"}
        news = {name: value for name in asked if (value := decided[name]) is not None}
        if news.get("metric", self.existing.spec.metric) != self.existing.spec.metric and "maximize" not in news:
            news["maximize"] = news["metric"] not in self.recipe.lower_is_better
        return self.existing.spec.model_copy(update=news)

    @functools.cached_property
    def last(self) -> Last | None:
        """How the sweep was run last, if it was."""
        return last(self.existing) if self.existing is not None else None

    @property
    def _previous(self) -> PreviousLaunch:
        return self.last.launch if self.last else PreviousLaunch()

    @functools.cached_property
    def backend_name(self) -> str:
        """The name of the backend."""
        return choose_backend(self.config, self._previous)

    @functools.cached_property
    def options(self) -> BackendOptions:
        """The options of the backend."""
        return choose_options(self.config, self.backend_name, self._previous)

    @functools.cached_property
    def backend(self) -> Backend:
        """Made before anything else is: what it refuses leaves no folder behind."""
        made: Backend = plugins.load("backend", self.backend_name)(self.options)
        return made

    @property
    def uses_arrays(self) -> bool:
        """Whether the trials are submitted as arrays, which nobody has to watch."""
        return uses_arrays(self.spec, self.backend)

    def at_once(self) -> int | None:
        """How many trials may run at the same time: as is asked for, else as last; None where nothing says."""
        asked = check_at_once(self.section.nodes, self.section.max_running, len(self.spec.placement))
        return asked or (self.last.at_once if self.last and self._previous.backend == self.backend_name else None)

    def _differences(self, spec: SweepSpec) -> list[str]:
        """What is asked for now and differs from how the sweep was begun, one phrase each."""
        found = self._other_config(spec)
        if "recipe" in found:  # nothing else can be compared
            return [f"recipe is {found['recipe'][0]!r}, not {found['recipe'][1]!r}"]
        found |= self._other_params(spec)
        fixed = {"sampler", "prune", "evaluate_every"}
        if spec.sampler == "tpe" or spec.prune:  # else it only says in which order the trials are shown
            fixed |= {"metric", "maximize"}
        for name in sorted(self.section.model_fields_set & fixed):
            if (value := getattr(self.section, name)) not in (None, getattr(spec, name)):
                found[name] = (getattr(spec, name), value)
        if self.section.trials and self.section.trials < spec.trials:
            found["trials"] = (spec.trials, self.section.trials)
        if self.config.nodes is not None and self.config.nodes != len(spec.placement):
            found["nodes-per-trial"] = (len(spec.placement), self.config.nodes)
        if self.config.place is not None and parse(self.config.place, list(self.recipe.modules)) != spec.placement:
            found["place"] = (format_placement(spec.placement), self.config.place)
        phrases = [f"{name} is {was!r}, not {wanted!r}" for name, (was, wanted) in found.items()]
        return [*phrases, *self._other_space(spec)]

    def _other_config(self, spec: SweepSpec) -> dict[str, tuple[Any, Any]]:
        asked = self.config.model_dump(exclude_unset=True, exclude={"params"})
        if "recipe" in asked:
            asked["recipe"] = recipe_name(asked["recipe"])
        if asked.get("dataroot"):
            asked["dataroot"] = str(Path(asked["dataroot"]).expanduser().resolve())
        here = {name: spec.config.get(name) for name in CONFIG if asked.get(name) is not None}
        return {name: (was, asked[name]) for name, was in here.items() if asked[name] != was}

    def _other_params(self, spec: SweepSpec) -> dict[str, tuple[Any, Any]]:
        """What varies is no difference: a config may have a value for it, for `modtrain launch`."""
        here, entries = flatten(spec.config["params"]), [str(entry["name"]) for entry in spec.space]
        varied = {name for its in space.resolve(entries, _names(self.recipe)).values() for name in its}
        given = flatten(self.config.params)
        all_of_it = with_settings(spec.config["params"], [f"{n}={json.dumps(value)}" for n, value in given.items()])
        wanted = flatten(as_values(build_params(self.recipe.params, all_of_it)))
        asked = [name for name in given if name not in varied]
        return {name: (here.get(name), wanted[name]) for name in asked if here.get(name) != wanted.get(name)}

    def _other_space(self, spec: SweepSpec) -> list[str]:
        if not self.varied.dimensions:
            return []
        here = {str(entry["name"]): entry for entry in spec.space}
        asked = {str(entry["name"]): entry for entry in space.as_json(self.varied)}
        found = [f"{name} is not varied" for name in asked if name not in here]
        found += [f"{name} is varied, too ({_shown(its)})" for name, its in here.items() if name not in asked]
        both = [name for name in here if name in asked and here[name] != asked[name]]
        found += [f"{name} varies over {_shown(here[name])}, not {_shown(asked[name])}" for name in both]
        if not found and list(here) != list(asked):
            found = [f"the order of what varies is {', '.join(here)}"]
        return found


def _names(recipe: Recipe) -> list[str]:
    return [parameter.name for parameter in parameters(recipe.params)]


def _section(values: dict[str, Any], asked: dict[str, Any]) -> Section:
    try:
        return Section(**{**values, **{name: value for name, value in asked.items() if value is not None}})
    except ValidationError as error:
        known = list(Section.model_fields)
        for item in error.errors():
            if item["type"] == "extra_forbidden":
                name = str(item["loc"][0])
                near = did_you_mean(name, known)
                raise InputError(f"`sweep:` has no {name!r}; it takes {', '.join(known)}.{near}") from None
        raise InputError(" ".join(sentence(item) for item in error.errors())) from None


def _read_space(section: Section, file: Path | None, vary: list[str]) -> space.Space:
    named = space.from_mapping(section.space, "`sweep:` of the config")
    named = space.merged(named, space.read_space(file)) if file else named
    return space.merged(named, space.parse_vary(vary))


def _shown(entry: Mapping[str, Any]) -> str:
    """A dimension as `--vary` takes it."""
    if "choices" in entry:
        return ", ".join(map(str, entry["choices"]))
    count = f":{entry['count']}" if entry.get("count") else ""
    return f"{'log:' if entry.get('log') else ''}{entry['low']}..{entry['high']}{count}"


def _new_name(root: Path) -> str:
    there = filesystem.names(root)
    return next(name for number in range(1, len(there) + 2) if (name := f"sweep-{number}") not in there)
