"""Evaluation of published checkpoints: metrics and a sample grid, written to the run's `evaluation/`."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from modtrain import plugins
from modtrain.data.nested import map_tensors
from modtrain.errors import InputError, ModtrainError, did_you_mean, message_of
from modtrain.recipes.base import Evaluation
from modtrain.recipes.contract import check_evaluation
from modtrain.recipes.loading import accept_recipe, data_of, recipe_of
from modtrain.storage import filesystem
from modtrain.storage.best_version import result_versions
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.early_stop import unmeasured
from modtrain.storage.evaluations import (
    TEST,
    VALID,
    EvaluationFailure,
    EvaluationRecord,
    parse_evaluation,
    read_evaluations,
    write_failure,
)
from modtrain.storage.run import Run, as_run
from modtrain.training.inference.image_files import png
from modtrain.training.inference.model import TrainedModel, load, recipe_errors, seeded
from modtrain.training.random_state import kept_random_state
from modtrain.training.trackers.base import EVALUATION, Subject, Tracking

log = logging.getLogger(__name__)

NOT_LOADED: Any = object()
"""As `test`: None is data without a test set."""


class NothingToEvaluate(InputError):
    """The data has no test set, and the recipe says that it needs one. No failure: such data can be trained on."""


def evaluate(
    run: Run | str | Path,
    *,
    version: Mapping[str, int] | None = None,
    best: bool | str = False,
    device: str = "auto",
    test: Any = NOT_LOADED,
    tracking: Tracking | None = None,
    validates: str | None = None,
) -> dict[str, Any]:
    """Evaluate the newest full checkpoints, and append the result to `evaluation/metrics.jsonl`.

    `version` selects others, by module, and `best` those of the best evaluation, as of `load`. `test` is the recipe's
    `Data.test`, which is loaded where it is not given, as `tracking` is opened. `validates`, `valid` or `test`, says
    what `test` is and records the result for early stopping instead, without a picture. Returns run, recipe, versions
    and epochs by module, metrics by name (None where not finite), and grid, the path of the picture or None. Random
    draws in a recipe's `evaluate` are seeded by the run, so the same checkpoints give the same numbers; every random
    generator is left as it was. `run` may also be the path of its folder.
    """
    run = accept_recipe(as_run(run))
    recipe = recipe_of(run)
    if recipe.evaluate is None:
        raise InputError(f"The recipe {run.spec.recipe} has no `evaluate`; add one to get metrics.")
    model = load(run, version=version, best=best, device=device)
    try:
        evaluation = _measure(model, recipe.evaluate, test)
        result = _record(run, evaluation, model.checkpoints, tracking, validates=validates)
    except NothingToEvaluate:
        raise
    except Exception as error:
        record_failure(run, error)
        raise
    write_failure(run.evaluation_failure_path, None)
    if validates:
        _check_early_stop(run, result["metrics"])
    unnamed = set(result["metrics"]) - set(recipe.lower_is_better)  # one that is named is not another one misspelt
    for name in recipe.lower_is_better:
        if name not in result["metrics"] and (near := did_you_mean(name, unnamed)):
            log.warning("lower_is_better of the recipe names %r, which `evaluate` does not measure.%s", name, near)
    return result


def final_evaluation(run: Run, *, device: str = "auto") -> EvaluationRecord | None:
    """The evaluation of a finished run, of its last versions or, with early stopping, of its best ones.

    As it was recorded, else measured now.

    None where the run is not finished or its recipe has no `evaluate`.
    """
    if not run.is_finished(run.modules) or recipe_of(run).evaluate is None:
        return None
    final = result_versions(run)
    for record in reversed(read_evaluations(run.evaluations_path)):
        if record.versions == final:
            return record
    return parse_evaluation(evaluate(run, version=final if run.spec.early_stop else None, device=device))


def share_evaluation(run: Run, versions: Mapping[str, int]) -> bool:
    """Record the evaluation of these versions for early stopping as well, on the same data; False if there is none."""
    records = reversed(read_evaluations(run.evaluations_path))
    record = next((each for each in records if each.versions == versions), None)
    if record is None:
        return False
    line = {"run": run.name, "recipe": run.spec.recipe, **asdict(record), "grid": None, "data": TEST}
    filesystem.append_line(run.validations_path, json.dumps(line))
    _check_early_stop(run, record.metrics)
    return True


def _check_early_stop(run: Run, metrics: Mapping[str, float | None]) -> None:
    """InputError where early stopping is by a metric that was not measured."""
    rule = run.spec.early_stop
    if rule is not None and rule.metric not in metrics:
        raise InputError(unmeasured(rule.metric, metrics))


def tracking_of(run: Run) -> Tracking:
    """The trackers of the evaluations of a run."""
    return Tracking(Subject(run=run, modules=(EVALUATION,), step=None))


def _measure(model: TrainedModel, function: Callable[..., Evaluation], test: Any) -> Evaluation:
    """What the recipe measures of a model on its test data; NothingToEvaluate where it says that there is none.

    ModtrainError where its `evaluate` is wrong: all is trained, and no option of a command was.
    """
    run = model.run
    with kept_random_state():
        test = data_of(run.spec, model.recipe, model.params).test if test is NOT_LOADED else test
    with seeded(model):
        test = map_tensors(test, lambda tensor: tensor.to(model.device))
        try:
            with recipe_errors(run), plugins.calling("`evaluate`", function):
                return check_evaluation(_evaluation(function, model, test), function)
        except NothingToEvaluate:
            raise
        except InputError as error:
            raise ModtrainError(str(error)) from error


def _evaluation(function: Callable[..., Evaluation], model: TrainedModel, test: Any) -> Evaluation:
    try:
        return function(model.nets, test, model.params)
    except InputError as error:
        if test is None:
            raise NothingToEvaluate(str(error)) from error
        raise


def record_failure(run: Run, error: Exception) -> None:
    """Record why the evaluation failed, so that every view of the run says it."""
    says = str(error) if isinstance(error, ModtrainError) else plugins.summary(error)
    failure = EvaluationFailure(says=says, exit_code=getattr(error, "exit_code", 1))
    try:
        write_failure(run.evaluation_failure_path, failure)
    except OSError as refused:
        log.warning("Could not write %s: %s", run.evaluation_failure_path, message_of(refused))


def _record(
    run: Run,
    evaluation: Evaluation,
    checkpoints: Mapping[str, Checkpoint],
    tracking: Tracking | None,
    *,
    validates: str | None,
) -> dict[str, Any]:
    metrics = {name: float(value) for name, value in evaluation.metrics.items()}
    newest = max(checkpoint.epoch for checkpoint in checkpoints.values())
    # A module that rests since its checkpoint is as it was then: it is evaluated at the epoch of the others.
    resting = {name for name, each in checkpoints.items() if run.spec.trained_epochs(name, newest) == each.epoch}
    result: dict[str, Any] = {
        "run": run.name,
        "recipe": run.spec.recipe,
        "versions": {name: checkpoint.version for name, checkpoint in checkpoints.items()},
        # JSON has neither NaN nor infinity, and a perfect PSNR is infinite.
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
        "epochs": {name: newest if name in resting else each.epoch for name, each in checkpoints.items()},
        "grid": None,
    }
    run.evaluation_path.mkdir(exist_ok=True)
    if evaluation.grid is not None and not validates:
        path = run.evaluation_path / f"grid-{'-'.join(map(str, result['versions'].values()))}.png"
        filesystem.replace_file(path, png(Image.fromarray(evaluation.grid.contiguous().cpu().numpy())))
        result["grid"] = str(path)
    line = {**result, "at": time.time()} | ({"data": validates} if validates else {})
    filesystem.append_line(run.validations_path if validates else run.evaluations_path, json.dumps(line))
    step = min(each.step for name, each in checkpoints.items() if result["epochs"][name] == each.epoch)
    names = {name: f"{VALID}.{name}" if validates == VALID else name for name in result["metrics"]}
    shown = {**line, "metrics": {names[name]: value for name, value in result["metrics"].items()}}
    with tracking_of(run) if tracking is None else contextlib.nullcontext(tracking) as open_tracking:
        open_tracking.evaluation(shown, step=step)
    return result
