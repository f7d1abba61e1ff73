"""Stage: a stretch of a run's epochs with its own parameters and its own set of trained modules.

As in progressive growing, where each resolution is a stage, or in pix2pix, whose recogniser is trained first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any

from modtrain.errors import InputError, counted, did_you_mean, one_of
from modtrain.plugins import calling, place_of
from modtrain.recipes.params import as_values, build_params, flatten, parameters, with_values
from modtrain.storage.run import StageSpec

STAGES = "stages"
"""First part of the name of a parameter of a stage, as in `--set stages.fade.lr=1e-4`."""


def _unchanged(params: Any) -> Any:
    return params


@dataclass(frozen=True)
class Stage:
    """A stretch of consecutive epochs; all workers pass the stages of a run in the same order."""

    name: str
    """What `nets.stage` and every view of the run call it."""
    epochs: float
    """Its length in proportion to the other stages: a run of N epochs divides them so, at least one for each stage."""
    _: KW_ONLY
    params: Callable[[Any], Any] = _unchanged
    """`params(params)` returns the Params of this stage, such as `replace(params, size=8)`.

    Data, losses, optimizers, schedules and the options of modules get these; networks and memories those of the run.
    """
    trains: Sequence[str] | None = None
    """The modules that are trained; the others rest. None trains all of them."""
    fresh_optimizers: bool | Sequence[str] = False
    """Whether optimizers begin anew, or of which modules; others keep moments and step counts of the stage before."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"The name {self.name!r} of a stage is not allowed; give a text, as in Stage('fade', 1).")
        is_number = isinstance(self.epochs, int | float) and not isinstance(self.epochs, bool)
        if not is_number or not 0 < self.epochs < math.inf:
            raise InputError(
                f"epochs of the stage {self.name!r} = {self.epochs!r} is not allowed; it is a number above 0, in "
                "proportion to the other stages. Leave out a stage that has none."
            )
        if not callable(self.params):
            raise InputError(f"`params` of the stage {self.name!r} is {self.params!r}, but must be a function.")
        names, fresh = self.trains, self.fresh_optimizers
        if names is not None and not (_are_names(names) and names):
            raise InputError(
                f"trains of the stage {self.name!r} is {names!r}; name the modules that it trains, as in "
                "trains=('recogniser',), or leave it out to train all."
            )
        if not isinstance(fresh, bool) and not _are_names(fresh):
            raise InputError(
                f"fresh_optimizers of the stage {self.name!r} is {fresh!r}; it is True or False, or names modules, as "
                "in fresh_optimizers=('generator',)."
            )


def _are_names(names: Any) -> bool:
    return isinstance(names, list | tuple | set | frozenset) and all(isinstance(name, str) for name in names)


Settings = Mapping[str, Mapping[str, Any]]
"""Parameters by dotted name, by the name of the stage that has them instead of its own."""


def split_settings(params: type[Any], values: Mapping[str, Any]) -> tuple[dict[str, Any], Settings]:
    """The parameters of a run, and those that `stages.NAME.parameter` sets in one of its stages.

    InputError where `stages` holds something else. A recipe may have a parameter of that name, which it is then.
    """
    own = {name: value for name, value in values.items() if name != STAGES}
    if STAGES not in values or any(parameter.name.partition(".")[0] == STAGES for parameter in parameters(params)):
        return dict(values), {}
    given: Any = values[STAGES]
    if not isinstance(given, Mapping) or not all(isinstance(each, Mapping) for each in given.values()):
        raise InputError(
            f"stages = {given!r} is not allowed: it has parameters by the name of a stage, as in stages.fade.lr=1e-4."
        )
    return own, {str(name): flatten(each) for name, each in given.items()}


def plan_stages(
    function: Callable[[Any], Sequence[Stage]] | None,
    params: Any,
    modules: Collection[str],
    epochs: int,
    settings: Settings | None = None,
) -> list[StageSpec]:
    """The stages of a run of `epochs` epochs, as `run.json` has them; InputError where they cannot be trained."""
    settings = settings or {}
    if function is None:
        if settings:
            raise InputError(f"stages.{next(iter(settings))} is set, but the recipe has no stages; leave it out.")
        return []
    with calling("`stages` of the recipe", function):
        stages: Any = function(params)
    where = f"`stages` of the recipe ({place_of(function)})"
    if not isinstance(stages, list | tuple) or not stages or not all(isinstance(stage, Stage) for stage in stages):
        raise InputError(f"{where} returned {stages!r}; it must return a list of Stage(name, epochs).")
    _check_names(where, stages, modules)
    names = [stage.name for stage in stages]
    if unknown := next((name for name in settings if name not in names), None):
        raise InputError(f"There is no stage {unknown!r}; name {one_of(names)}.{did_you_mean(unknown, names)}")
    counts = split_epochs([stage.epochs for stage in stages], epochs)
    return [
        _plan(where, stage, params, modules, count, settings.get(stage.name, {}))
        for stage, count in zip(stages, counts, strict=True)
    ]


def split_epochs(proportions: Sequence[float], epochs: int) -> list[int]:
    """Divide epochs in these proportions: each stage ends at the epoch nearest to its exact end, half up.

    A stage that would get no epoch gets one, of those of the stage after it; the last ones of those before.
    InputError where there are fewer epochs than stages.
    """
    if epochs < len(proportions):
        raise InputError(
            f"{counted(epochs, 'epoch')} cannot be divided into {counted(len(proportions), 'stage')}, each of which "
            f"needs one; give at least --epochs {len(proportions)}."
        )
    exact = list(accumulate(map(Fraction, proportions)))
    ends = [0]
    for number, end in enumerate(exact, 1):
        nearest = math.floor(epochs * end / exact[-1] + Fraction(1, 2))
        ends.append(min(max(nearest, ends[-1] + 1), epochs - (len(exact) - number)))
    return [end - begin for begin, end in pairwise(ends)]


def _check_names(where: str, stages: Sequence[Stage], modules: Collection[str]) -> None:
    names = [stage.name for stage in stages]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{where} has two stages called {twice!r}; give each a name of its own.")
    for stage in stages:
        fresh = () if isinstance(stage.fresh_optimizers, bool) else stage.fresh_optimizers
        for verb, named in (("trains", stage.trains or ()), ("has a fresh optimizer of", fresh)):
            if unknown := next((name for name in named if name not in modules), None):
                raise InputError(
                    f"The stage {stage.name!r} {verb} {unknown!r}, which is no module; name {one_of(modules)}."
                    f"{did_you_mean(unknown, modules)}"
                )
    for name in modules:
        if not any(stage.trains is None or name in stage.trains for stage in stages):
            raise InputError(f"No stage trains {name}; add it to the `trains` of one of {', '.join(names)}.")


def _plan(
    where: str, stage: Stage, params: Any, modules: Collection[str], epochs: int, settings: Mapping[str, Any]
) -> StageSpec:
    with calling(f"`params` of the stage {stage.name!r}", stage.params):
        own = stage.params(params)
    if type(own) is not type(params):
        raise InputError(
            f"`params` of the stage {stage.name!r} ({place_of(stage.params)}) returned {own!r}; it must return the "
            f"{type(params).__name__} of this stage, as in lambda params: dataclasses.replace(params, lr=1e-4)."
        )
    base = flatten(as_values(params))
    values = as_values(build_params(type(params), with_values(as_values(own), settings)))
    fresh = stage.fresh_optimizers
    return StageSpec(
        name=stage.name,
        epochs=epochs,
        trains=[name for name in modules if stage.trains is None or name in stage.trains],
        params={name: value for name, value in flatten(values).items() if name not in base or base[name] != value},
        fresh_optimizers=fresh if isinstance(fresh, bool) else [name for name in modules if name in fresh],
    )
