"""Config: the settings of a run from a YAML file and the command line, and the `RunSpec` that they become."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from modtrain import plugins
from modtrain.errors import InputError, counted, did_you_mean
from modtrain.recipes.base import Recipe
from modtrain.recipes.loading import recipe_name, recipe_sha256
from modtrain.recipes.params import REQUIRED, as_values, build_params, flatten, parameters, sentence, with_settings
from modtrain.recipes.stages import plan_stages, split_settings
from modtrain.scheduling.placement import Placement
from modtrain.scheduling.stage_range import choose_stages
from modtrain.scheduling.weights_reference import find_fixed_weights, find_initial_weights
from modtrain.storage.early_stop import EarlyStop
from modtrain.storage.filesystem import STORAGE_TIMEOUT_S
from modtrain.storage.run import DEVICE, Precision, RunSpec
from modtrain.storage.strict_yaml import read_mapping
from modtrain.training.stages import check_keep
from modtrain.training.trackers import base as tracking

NO_EARLY_STOP = "none"
NO_BOUND: Final = "none"
"""As `max_staleness`: a peer may be any number of epochs behind."""


class Config(BaseModel):
    """The settings of a config file; the options of the command line have the same names."""

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
    until_stage: str | None = None
    """The stage after which the run ends for now; of an existing run one of those that were left out."""
    from_stage: str | None = None
    """`RUN@STAGE`: the stage of another run after which this one begins; RUN is at the last one that it completed."""
    hold_schedule: bool = False
    """For more epochs of an existing run: schedules keep the value of their last step instead of covering them too."""
    exchange_every: int | None = Field(default=None, ge=1)
    max_staleness: int | Literal["exchange", "none"] | None = None
    """Epochs that a peer may be behind; "none" is no bound, None the recipe's default."""
    keep: int | None = Field(default=None, ge=1, lt=2**53)
    """Versions of each module that stay on disk; None: as many as its peers need, and those of the last minute."""
    evaluate_every: int | None = Field(default=None, ge=0, lt=2**53)
    """Epochs between two evaluations while the run trains; 0 is none, None a tenth of its epochs."""
    early_stop: EarlyStop | Literal["none"] | None = None
    """As `METRIC[,window=N][,patience=N][,min_delta=X]`; "none" never ends a run early, None is the recipe's."""
    peer_timeout_s: float = Field(default=1800.0, gt=0)
    storage_timeout_s: float = Field(default=STORAGE_TIMEOUT_S, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = Field(default="auto", pattern=DEVICE)
    precision: Precision = "float32"
    metric: str | None = None
    check: bool = True
    """Whether a new run's recipe is checked before the run is created."""
    track: list[str] = Field(default_factory=list)
    init: dict[str, str] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    sweep: dict[str, Any] = Field(default_factory=dict)
    """Read by `modtrain sweep` only, so that the same file can be launched."""

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, values: Any, handler: ModelWrapValidatorHandler[Config]) -> Config:
        """InputError with one sentence for each value that is not allowed."""
        try:
            config = handler(values)
        except ValidationError as error:
            raise InputError(" ".join(map(_sentence, error.errors()))) from None
        if config.nodes and config.place and config.nodes != config.place.count("|") + 1:
            raise InputError(f"--nodes {config.nodes} contradicts --place {config.place!r}; leave one of them out.")
        return config

    @field_validator("backend")
    @classmethod
    def _check_backend(cls, name: str) -> str:
        plugins.load("backend", name)
        return name

    @field_validator("recipe", "name", "root", "dataroot", "profile", mode="before")
    @classmethod
    def _as_text(cls, path: Any) -> Any:
        """A path of Python as text."""
        return str(path) if isinstance(path, Path) else path

    @field_validator("init", mode="before")
    @classmethod
    def _as_table(cls, values: Any) -> Any:
        """`MODULE=REFERENCE` of the command line as name and value; InputError where a module is named twice."""
        if isinstance(values, Mapping):
            return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
        if not isinstance(values, list | tuple):
            return values
        if wrong := [value for value in values if not all(str(value).partition("="))]:
            raise InputError(
                f"--init {wrong[0]} is not allowed: give MODULE=REFERENCE, such as translator=runs/apples."
            )
        named = [str(value).partition("=")[0] for value in values]
        if twice := [name for name in named if named.count(name) > 1]:
            raise InputError(f"--init names {twice[0]} twice; a module begins with one set of weights.")
        return dict(str(value).split("=", 1) for value in values)

    @field_validator("early_stop", mode="plain")
    @classmethod
    def _check_early_stop(cls, value: Any) -> EarlyStop | str | None:
        if value is None or isinstance(value, EarlyStop):
            return value
        if value == NO_EARLY_STOP:
            return NO_EARLY_STOP
        if isinstance(value, str):
            return EarlyStop.parse(value)
        known = {field.name for field in fields(EarlyStop)}
        if not isinstance(value, Mapping) or "metric" not in value or value.keys() - known:
            raise InputError(
                f"early_stop = {value!r} is not allowed; give a metric and what else differs, such as "
                "'psnr,window=20,patience=30', or none."
            )
        return EarlyStop(**value)

    @field_serializer("early_stop")
    def _as_values(self, rule: EarlyStop | str | None) -> dict[str, Any] | str | None:
        return asdict(rule) if isinstance(rule, EarlyStop) else rule

    @field_validator("track", mode="before")
    @classmethod
    def _as_list(cls, names: Any) -> Any:
        return [names] if isinstance(names, str) else list(names) if isinstance(names, tuple) else names

    @field_validator("track")
    @classmethod
    def _check_track(cls, names: list[str]) -> list[str]:
        tracking.check(names)
        return names

    @field_validator("max_staleness", mode="plain")
    @classmethod
    def _check_bound(cls, value: Any) -> int | str | None:
        if value is None:
            return None
        if value in (NO_BOUND, "exchange"):
            return str(value)
        if type(value) is int or (isinstance(value, str) and value.isdecimal()):
            bound = int(value)
            if 0 <= bound < 2**53:
                return bound
        raise InputError(
            f"max_staleness = {value!r} is not allowed; give a number of epochs, at least 0, exchange for a wait "
            "at every exchange point, or none for no bound."
        )

    def with_settings(self, settings: Iterable[str]) -> Config:
        """The same config with settings `a.b=value` put into its parameters."""
        return self.model_copy(update={"params": with_settings(self.params, settings)})


def read_config(path: Path | None, options: Mapping[str, Any], settings: Iterable[str] = ()) -> Config:
    """The values of a config file, then the options, then `settings` as of `--set`; None is no value.

    Recipe file, dataroot, profile and initial weights of a config file are relative to it.
    """
    values = {name.replace("-", "_"): value for name, value in _read(path).items()} if path else {}
    values |= {name: value for name, value in options.items() if value is not None}
    return Config(**{name: value for name, value in values.items() if value is not None}).with_settings(settings)


def new_spec(config: Config, recipe: Recipe, placement: Placement, *, trial: dict[str, Any] | None = None) -> RunSpec:
    """The `run.json` of a new run, with every default filled in, so that later defaults do not change the run."""
    own, of_stages = split_settings(recipe.params, config.params)
    built, epochs = build_params(recipe.params, own), config.epochs or recipe.epochs
    params, init = as_values(built), find_initial_weights(config.init, recipe)
    stages = plan_stages(recipe.stages, built, recipe.trained, epochs, of_stages)
    chosen = choose_stages(stages, recipe.trained, after=config.from_stage, until=config.until_stage)
    spec = RunSpec(
        recipe=recipe_name(config.recipe),
        recipe_sha256=recipe_sha256(recipe_name(config.recipe)),
        params=params,
        dataroot=resolved_path(config.dataroot) if config.dataroot else None,
        placement=placement,
        epochs=sum(stage.epochs for stage in chosen.stages) or epochs,
        stages=chosen.stages,
        later_stages=chosen.later,
        from_stage=chosen.start,
        exchange_every=config.exchange_every or recipe.exchange_every,
        max_staleness=_bound(config, recipe),
        keep=config.keep,
        evaluate_every=_evaluate_every(config, recipe),
        early_stop=_early_stop(config, recipe),
        peer_timeout_s=config.peer_timeout_s,
        storage_timeout_s=config.storage_timeout_s,
        seed=config.seed,
        device=config.device,
        precision=config.precision,
        init=chosen.weights | init,
        fixed=find_fixed_weights(recipe, built),
        trial=trial,
        track=[recipe_name(name) for name in config.track],
        defaults=_defaults(recipe, params),
        usual={name: getattr(recipe, name) for name in ("epochs", "exchange_every", "max_staleness")},
        metric=config.metric,
        primary_metric=recipe.primary_metric,
        lower_is_better=list(recipe.lower_is_better),
        versions=_versions(),
        created_at=time.time(),
    )
    check_keep(spec, recipe)
    if isinstance(config.early_stop, EarlyStop) and (problem := never_early(spec)):
        raise InputError(problem)
    return spec


def never_early(spec: RunSpec) -> str | None:
    """Why the early stopping of a run can end it at no epoch, in a sentence; None where it can, or there is none."""
    rule = spec.early_stop
    if rule is None or spec.validated_from + rule.window + rule.patience < spec.epochs:
        return None
    before = f" after the {counted(spec.validated_from, 'epoch')} of earlier stages" if spec.validated_from else ""
    return (
        f"A run of {counted(spec.epochs, 'epoch')} cannot stop early: that takes a window of "
        f"{counted(rule.window, 'epoch')} and a patience of {rule.patience}{before}. Train for more epochs, or "
        f"shorten them, as in --early-stop {rule.metric},window=5,patience=5."
    )


def staleness_of(spec: RunSpec) -> int | str:
    """The bound of a run as a config has it."""
    return NO_BOUND if spec.max_staleness is None else spec.max_staleness


def _bound(config: Config, recipe: Recipe) -> int | Literal["exchange"] | None:
    if config.max_staleness is None:
        return recipe.max_staleness
    return None if config.max_staleness == NO_BOUND else config.max_staleness


def _early_stop(config: Config, recipe: Recipe) -> EarlyStop | None:
    if isinstance(config.early_stop, str):
        return None
    if config.early_stop is not None and recipe.evaluate is None:
        raise InputError(f"early_stop names {config.early_stop.metric}, but the recipe has no `evaluate`.")
    return config.early_stop or recipe.early_stop


def _evaluate_every(config: Config, recipe: Recipe) -> int:
    """By default so that a run has some ten evaluations, a short one after each epoch."""
    if config.evaluate_every is not None:
        return config.evaluate_every
    return max(1, round((config.epochs or recipe.epochs) / 10)) if recipe.evaluate is not None else 0


def resolved_path(path: str) -> str:
    """An absolute path."""
    return str(Path(path).expanduser().resolve())


def _defaults(recipe: Recipe, params: dict[str, Any]) -> dict[str, Any] | None:
    """The recipe's default parameters; one without a default has the value of `params`."""
    given = flatten(params)
    required = [p.name for p in parameters(recipe.params) if p.default is REQUIRED and p.name in given]
    settings = [f"{name}={json.dumps(given[name])}" for name in required]
    try:
        return as_values(build_params(recipe.params, with_settings({}, settings)))
    except InputError:  # the recipe does not allow all of its defaults together
        return None


def _read(path: Path) -> dict[str, Any]:
    values = read_mapping(path, "config", "epochs: 10")
    for name in ("recipe", "dataroot", "profile"):
        value = values.get(name)
        if isinstance(value, str) and (name != "recipe" or plugins.is_file(value)):
            values[name] = str((path.parent / Path(value).expanduser()).resolve())
    if isinstance(init := values.get("init"), dict):
        values["init"] = {
            name: str((path.parent / Path(str(each)).expanduser()).resolve()) for name, each in init.items()
        }
    if isinstance(start := values.get("from_stage", values.get("from-stage")), str):
        values["from_stage"] = str((path.parent / Path(start).expanduser()).resolve())
        values.pop("from-stage", None)
    return values


def _sentence(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = list(Config.model_fields)
        return f"The config has an unknown option {name!r}; known are {', '.join(known)}.{did_you_mean(name, known)}"
    if item["type"] == "dict_type":
        return f"{name} = {item['input']!r} is not allowed: it holds names and values."
    if item["type"] == "string_pattern_mismatch":
        return f"{name} = {item['input']!r} is not allowed; use auto, cpu, cuda, cuda:1 or mps."
    return sentence(item)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("modtrain", "torch", "ray"):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
