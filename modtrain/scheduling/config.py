"""A run's configuration: a YAML file and the command line over it become a new run's `run.json`.

Deliberately not here: the recipe's own parameters (`params.py`), and starting anything (`launch.py`).
"""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from modtrain import plugins
from modtrain.errors import InputError, did_you_mean
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import recipe_name, recipe_sha256
from modtrain.recipes.params import REQUIRED, as_values, build_params, flatten, parameters, sentence, with_settings
from modtrain.scheduling.placement import Placement, parse
from modtrain.storage.run import RunSpec
from modtrain.storage.strict_yaml import read_mapping
from modtrain.training.trackers import base as tracking

HOW = {"name", "root", "nodes", "place", "backend", "address", "profile", "job", "sweep", "params"}
"""Options that say how and where a run is launched, or that `run.json` spells otherwise."""


class Config(BaseModel):
    """What a config file may say; the command line's options have the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    recipe: str = "latent-translation"
    name: str | None = None
    root: str = Field(default="runs", min_length=1)
    dataroot: str | None = None
    nodes: int | None = Field(default=None, ge=1)
    place: str | None = None
    backend: str = "ray"
    address: str | None = None
    profile: str | None = None
    job: dict[str, Any] = Field(default_factory=dict)
    epochs: int | None = Field(default=None, ge=1)
    exchange_every: int | None = Field(default=None, ge=1)
    max_staleness: int | None = Field(default=None, ge=0)
    peer_timeout_s: float = Field(default=1800.0, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    track: list[str] = Field(default_factory=list)
    params: dict[str, Any] = Field(default_factory=dict)
    sweep: dict[str, Any] = Field(default_factory=dict)
    """Read by `modtrain sweep` alone: the same file can be launched."""

    @field_validator("track", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


def read_config(path: Path | None, options: dict[str, Any], settings: list[str]) -> Config:
    """The file's values, the command line's `options` (those that are not None) over them, then every `--set`."""
    values = _relative_to(path, _read(path)) if path else {}
    values |= {name: value for name, value in options.items() if value is not None}
    params = values.get("params") or {}
    if not isinstance(params, dict):
        raise InputError(f"params = {params!r} in {path} is not allowed: it holds names and values of parameters.")
    values["params"] = with_settings(params, settings)
    try:
        config = Config(**values)
    except ValidationError as error:
        raise InputError(" ".join(_sentence(item, path) for item in error.errors())) from None
    if config.nodes and config.place and config.nodes != config.place.count("|") + 1:
        raise InputError(f"--nodes {config.nodes} contradicts --place {config.place!r}; leave one of them out.")
    return config


def new_spec(config: Config, recipe: Recipe, placement: Placement, *, trial: dict[str, Any] | None = None) -> RunSpec:
    """What `run.json` of a new run says: every default is decided now, so that it never changes for this run."""
    params = as_values(build_params(recipe.params, config.params))
    tracking.check(config.track)
    dataroot = str(Path(config.dataroot).expanduser().resolve()) if config.dataroot else None
    return RunSpec(
        recipe=recipe_name(config.recipe),
        recipe_sha256=recipe_sha256(recipe_name(config.recipe)),
        params=params,
        dataroot=dataroot,
        placement=placement,
        epochs=config.epochs or recipe.epochs,
        exchange_every=config.exchange_every or recipe.exchange_every,
        max_staleness=recipe.max_staleness if config.max_staleness is None else config.max_staleness,
        peer_timeout_s=config.peer_timeout_s,
        seed=config.seed,
        device=config.device,
        trial=trial,
        track=[recipe_name(name) for name in config.track],
        defaults=_defaults(recipe, params),
        usual={name: getattr(recipe, name) for name in ("epochs", "exchange_every", "max_staleness")},
        lower_is_better=list(recipe.lower_is_better),
        versions=_versions(),
        created_at=time.time(),
    )


def _defaults(recipe: Recipe, chosen: dict[str, Any]) -> dict[str, Any] | None:
    """What the recipe takes where nothing is said; a parameter without a default stands as it was chosen."""
    given = flatten(chosen)
    required = [p.name for p in parameters(recipe.params) if p.default is REQUIRED and p.name in given]
    settings = [f"{name}={json.dumps(given[name])}" for name in required]
    try:
        return as_values(build_params(recipe.params, with_settings({}, settings)))
    except InputError:  # a recipe may forbid its own defaults together
        return None


def differences(config: Config, recipe: Recipe, old: RunSpec) -> list[str]:
    """What a config says that an existing run was not begun with, one phrase each. What it leaves out never differs."""
    asked = {name: value for name, value in config.model_dump(exclude_unset=True).items() if name not in HOW}
    if "track" in asked:
        asked["track"] = [recipe_name(name) for name in asked["track"]]
    for name, spelled in (("recipe", recipe_name), ("dataroot", resolved_path)):
        if asked.get(name):
            asked[name] = spelled(asked[name])
    here = old.model_dump()
    found = {name: (here[name], value) for name, value in asked.items() if value is not None and here[name] != value}
    found |= _other_parameters(config, recipe, old)
    found |= _other_placement(config, recipe, old)
    return [f"{name} is {was!r}, not {wanted!r}" for name, (was, wanted) in found.items()]


def resolved_path(path: str) -> str:
    """An absolute path."""
    return str(Path(path).expanduser().resolve())


def _other_parameters(config: Config, recipe: Recipe, old: RunSpec) -> dict[str, tuple[Any, Any]]:
    wanted = flatten(as_values(build_params(recipe.params, config.params)))
    here = flatten(old.params)
    given = [name for name in flatten(config.params) if name in wanted]
    return {name: (here.get(name), wanted[name]) for name in given if here.get(name) != wanted[name]}


def _other_placement(config: Config, recipe: Recipe, old: RunSpec) -> dict[str, tuple[Any, Any]]:
    if config.place and (wanted := parse(config.place, list(recipe.modules))) != old.placement:
        return {"place": (written(old.placement), written(wanted))}
    if config.nodes and config.nodes != len(old.placement):
        return {"nodes": (len(old.placement), config.nodes)}
    return {}


def written(placement: Placement) -> str:
    """A placement as `--place` takes it."""
    return " | ".join(",".join(modules) for modules in placement)


def _read(path: Path) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in read_mapping(path, "config", "epochs: 10").items()}


def _relative_to(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """A recipe file, a dataroot and a profile are meant relative to the config that names them."""
    for name in ("recipe", "dataroot", "profile"):
        value = values.get(name)
        if isinstance(value, str) and (name != "recipe" or plugins.is_file(value)):
            values[name] = str((path.parent / Path(value).expanduser()).resolve())
    return values


def _sentence(item: Any, path: Path | None) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = list(Config.model_fields)
        return f"{path} has {name!r}, which is no option; there are {', '.join(known)}.{did_you_mean(name, known)}"
    if item["type"] == "string_pattern_mismatch":
        return f"{name} = {item['input']!r} is not allowed; take auto, cpu, cuda, cuda:1 or mps."
    return sentence(item)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("modtrain", "torch", "torchvision", "ray"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
