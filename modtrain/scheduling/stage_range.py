"""Stage range: which of a recipe's stages a run passes, from one of an older run, or until one of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from modtrain.errors import InputError, did_you_mean
from modtrain.storage.checkpoint import WEIGHTS, Checkpoint
from modtrain.storage.initial_weights import InitialWeights
from modtrain.storage.run import Run, RunSpec, StageSpec, StageStart

Stages = list[StageSpec]
_REFERENCE = re.compile(r"(?P<run>[^@]+)(@(?P<stage>[^@]+))?")


@dataclass(frozen=True, kw_only=True)
class StageRange:
    """The stages that a run passes."""

    stages: Stages
    later: Stages
    """Those after which it may go on later."""
    start: StageStart | None
    weights: dict[str, InitialWeights]
    """Those with which modules begin after the `start`."""


def choose_stages(stages: Stages, modules: Collection[str], *, after: str | None, until: str | None) -> StageRange:
    """The stages after one of an older run, `RUN@STAGE`, up to one of this name.

    InputError as of the parts of it, and where the older run trains a module that is none of `modules`.
    """
    start, weights = None, dict[str, InitialWeights]()
    if after is not None:
        stages, start, weights = split_from(stages, after)
        if other := [name for name in weights if name not in modules]:
            raise InputError(
                f"--from-stage {after}: that run trains {', '.join(other)}, but the recipe has {', '.join(modules)}; "
                "give a run with the same modules."
            )
    stages, later = split_until(stages, until)
    return StageRange(stages=stages, later=later, start=start, weights=weights)


def split_until(stages: Stages, until: str | None) -> tuple[Stages, Stages]:
    """The stages up to one of this name, and those after it; InputError where there is none."""
    if until is None:
        return stages, []
    count = _number(f"--until-stage {until}", until, stages) + 1
    return stages[:count], stages[count:]


def split_from(stages: Stages, reference: str) -> tuple[Stages, StageStart, dict[str, InitialWeights]]:
    """The stages after one of an older run, `RUN@STAGE`, where the run begins, and the weights of its modules.

    Without a stage it is the last one that the older run has completed. The weights are those with which that stage
    ended there, not their average. InputError where there is no such stage, or it was not completed.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError(f"--from-stage {reference} is not allowed; give a run and one of its stages, as RUN@STAGE.")
    run = Run.open(Path(match["run"]).expanduser())
    name, ends = _completed(run, match["stage"])
    names = [stage.name for stage in stages]
    if names and name not in names:
        raise InputError(
            f"--from-stage {reference}: that run has completed the stage {name}, but the recipe has "
            f"{', '.join(names)}; give a run with the same stages."
        )
    count = _number(f"--from-stage {reference}", name, stages) + 1
    if count == len(stages):
        raise InputError(f"--from-stage {reference}: {name} is the last stage; no stage is left to train.")
    start = StageStart(reference=resolved(reference), epochs=sum(stage.epochs for stage in stages[:count]))
    return stages[count:], start, {each.module: _weights(run, each) for each in ends}


def resolved(reference: str) -> str:
    """A reference with the absolute path of its run."""
    path, at, stage = reference.partition("@")
    return str(Path(path).expanduser().resolve()) + at + stage


def continued(spec: RunSpec, until: str) -> dict[str, object]:
    """What changes in a run that goes on until a stage after which it was to end."""
    further, later = split_until(spec.later_stages, until)
    epochs = spec.epochs + sum(stage.epochs for stage in further)
    return {"epochs": epochs, "stages": [*spec.stages, *further], "later_stages": later}


def _number(given: str, name: str, stages: Sequence[StageSpec]) -> int:
    names = [stage.name for stage in stages]
    if not names:
        raise InputError(f"{given}: the recipe has no stages; leave it out.")
    if name not in names:
        raise InputError(f"{given}: there is no such stage; there are {', '.join(names)}.{did_you_mean(name, names)}")
    return names.index(name)


def _completed(run: Run, name: str | None) -> tuple[str, list[Checkpoint]]:
    """A stage that a run has completed, by default the last one, and the versions of its modules at its end."""
    given, stages = f"--from-stage {run.path}" + (f"@{name}" if name else ""), run.spec.stages
    every = [*stages, *run.spec.later_stages]
    if not every:
        raise InputError(f"{given}: that run has no stages; give one with those of the recipe.")
    last = len(stages) if name is None else _number(given, name, every) + 1
    first = 1 if name is None else last
    for count in range(min(last, len(stages)), first - 1, -1):
        epochs = sum(stage.epochs for stage in stages[:count])
        ends = [_end(run, module, epochs) for module in run.modules]
        complete = [each for each in ends if each is not None]
        if len(complete) == len(ends):
            return stages[count - 1].name, complete
    what = f"the stage {name}" if name else "a stage"
    raise InputError(f"{run.name} has not completed {what}; see `modtrain status {run.path}`.")


def _end(run: Run, module: str, epochs: int) -> Checkpoint | None:
    """The version with which a module has completed so many epochs, or those of them that train it."""
    trained = run.spec.trained_epochs(module, epochs)
    found = run.store(module).newest(count=1, where=lambda each: each.full and each.epoch == trained)
    return found[0] if found else None


def _weights(run: Run, checkpoint: Checkpoint) -> InitialWeights:
    file = run.store(checkpoint.module).folder(checkpoint.version) / WEIGHTS
    reference = f"{run.path}#{checkpoint.module}@{checkpoint.version}"
    return InitialWeights(reference=reference, path=str(file), sha256=str(checkpoint.files[WEIGHTS]["sha256"]))
