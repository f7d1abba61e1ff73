"""What `modtrain sweep` means: a sweep that exists or would be made, and how it is to run.

Deliberately not here: the command's options (`sweeping.py`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modtrain import plugins, space, study
from modtrain.backends.base import Backend, BackendOptions
from modtrain.cli.parsing import job_options, settings_of
from modtrain.config import Config, backend_options, load_recipe, read_config, recipe_name
from modtrain.errors import InputError, did_you_mean
from modtrain.params import flatten, parameters, sentence
from modtrain.prepare import draft
from modtrain.profile import read_profile
from modtrain.run import check_name
from modtrain.sweep import check_at_once, uses_arrays
from modtrain.trials import SWEEP_FILE, Sweep, SweepSpec, new_sweep


class Section(BaseModel):
    """`sweep:` of a config file; the command line's options have the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    space: dict[str, Any] = Field(default_factory=dict)
    sampler: str = "grid"
    trials: int | None = Field(default=None, ge=1, le=1_000_000)
    metric: str | None = None
    maximize: bool = True
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
        config_file, given = _target(target, {**given, "job": job_options(ctx)})
        config = read_config(config_file, given, [])
        path = Path(config.root).expanduser() / (config.name or _new_name(Path(config.root).expanduser()))
        check_name(path.name)
        existing = Sweep.open(path) if (path / SWEEP_FILE).exists() else None
        chosen = "recipe" in config.model_fields_set or existing is None
        recipe = load_recipe(config.recipe if chosen or existing is None else existing.spec.config["recipe"])
        names = [parameter.name for parameter in parameters(recipe.params)]
        config = read_config(config_file, given, [*settings_of(ctx, names), *settings])
        section = _section(config.sweep, asked)
        varied = _read_space(section, file, vary)
        space.resolve(varied.dimensions, names)
        plan = Plan(config, section, varied, path, existing)
        plan.check()
        return plan

    def check(self) -> None:
        """InputError where the options contradict each other, or the sweep that exists."""
        if self.existing is not None:
            other = self._differences(self.existing.spec)
            if other:
                raise InputError(
                    f"{self.existing.path} exists and was begun otherwise: {'; '.join(other)}. Leave that out to go on "
                    "with it, or choose another --name."
                )
            return
        section = self.section
        if not self.varied.dimensions:
            raise InputError("Say what varies: --vary translator.lr=1e-4,1e-3, --space FILE, or `sweep:` of a config.")
        for value, known in ((section.sampler, study.SAMPLERS), (section.prune, study.PRUNERS)):
            if value is not None and value not in known:
                raise InputError(f"{value!r} is not allowed: take {', '.join(known)}.{did_you_mean(value, known)}")
        if (section.prune or section.sampler == "tpe") and not section.metric:
            raise InputError("--prune and --sampler tpe need to know what is good: give --metric.")
        if section.sampler == "grid":
            points = space.size(self.varied)
            if section.trials and section.trials > points:
                raise InputError(f"--trials {section.trials} is more than the grid has points: {points}.")
        elif section.trials is None:
            raise InputError(f"--sampler {section.sampler} needs to know how many: give --trials.")

    def sweep(self) -> Sweep:
        """The sweep; made if there is none, with more trials if more are asked for."""
        if self.existing is not None:
            more = self.section.trials or 0
            return self.existing.with_trials(more) if more > self.existing.spec.trials else self.existing
        return Sweep.create(self.path, self.spec)

    @functools.cached_property
    def spec(self) -> SweepSpec:
        """What the sweep is or would be; costs are measured where they decide the placement."""
        if self.existing is not None:
            return self.existing.spec
        section, recipe = self.section, load_recipe(self.config.recipe)
        count = section.trials or space.size(self.varied)
        every = section.evaluate_every or (1 if section.prune and "." not in (section.metric or "") else None)
        return new_sweep(
            self.config,
            draft(self.config, recipe).spec.placement,
            self.varied,
            sampler=section.sampler,
            seed=self.config.seed,
            trials=count,
            metric=section.metric,
            maximize=section.maximize,
            prune=section.prune,
            evaluate_every=every,
        )

    @functools.cached_property
    def backend_name(self) -> str:
        """What is asked for, or the profile is for."""
        named = read_profile(Path(self.config.profile).expanduser()).backend if self.config.profile else None
        return self.config.backend if "backend" in self.config.model_fields_set or not named else named

    @functools.cached_property
    def options(self) -> BackendOptions:
        """What the backend is told."""
        return backend_options(self.config)

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
        """How many trials may run at the same time; None where nothing says."""
        return check_at_once(self.section.nodes, self.section.max_running, len(self.spec.placement))

    def _differences(self, spec: SweepSpec) -> list[str]:
        """What is asked for now and differs from how the sweep was begun, one phrase each."""
        found: dict[str, tuple[Any, Any]] = {}
        asked = self.config.model_dump(exclude_unset=True)
        if "recipe" in asked:
            asked["recipe"] = recipe_name(asked["recipe"])
        if asked.get("dataroot"):
            asked["dataroot"] = str(Path(asked["dataroot"]).expanduser().resolve())
        for name, was in spec.config.items():
            if name != "params" and asked.get(name) is not None and asked[name] != was:
                found[name] = (was, asked[name])
        here = flatten(spec.config["params"])
        given = flatten(self.config.params)
        found |= {name: (here.get(name), value) for name, value in given.items() if here.get(name) != value}
        for name in self.section.model_fields_set & {"sampler", "metric", "maximize", "prune", "evaluate_every"}:
            if (value := getattr(self.section, name)) != getattr(spec, name):
                found[name] = (getattr(spec, name), value)
        if self.section.trials and self.section.trials < spec.trials:
            found["trials"] = (spec.trials, self.section.trials)
        if self.varied.dimensions and space.as_json(self.varied) != spec.space:
            found["space"] = (spec.space, space.as_json(self.varied))
        return [f"{name} is {was!r}, not {wanted!r}" for name, (was, wanted) in found.items()]


def _target(target: Path | None, given: dict[str, Any]) -> tuple[Path | None, dict[str, Any]]:
    """A config file, or options that mean the sweep of a folder."""
    if target is None or target.suffix in (".yaml", ".yml") or target.is_file():
        return target, given
    sweep = Sweep.open(target)
    for option, value in (("name", sweep.name), ("root", str(sweep.path.parent))):
        if given[option] not in (None, value):
            raise InputError(f"--{option} {given[option]} contradicts the sweep {target}; leave one of them out.")
        given = {**given, option: value}
    return None, given


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


def _new_name(root: Path) -> str:
    from modtrain import fs

    there = fs.names(root)
    return next(name for number in range(1, len(there) + 2) if (name := f"sweep-{number}") not in there)
