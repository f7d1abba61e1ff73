"""Evaluate and apply published checkpoints: metrics and a sample grid into `evaluation/`, images in, images out.

It reads modules and writes only `evaluation/`. Deliberately not here: what is measured (the recipe says) and training.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from modtrain import plugins
from modtrain.data.unpaired_batches import as_float
from modtrain.errors import CorruptCheckpoint, InputError, did_you_mean
from modtrain.metrics.sample_grid import to_uint8
from modtrain.recipes.base import Evaluation, Recipe
from modtrain.recipes.loading import data_of, params_of, recipe_of
from modtrain.recipes.nets_view import Nets
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import EMA, WEIGHTS, Checkpoint
from modtrain.storage.evaluations import read_evaluations
from modtrain.storage.run import Run
from modtrain.training import serialization
from modtrain.training.peers import freeze
from modtrain.training.trackers.base import EVALUATION, Subject, Tracking
from modtrain.training.worker_process import choose_device

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
log = logging.getLogger(__name__)


def evaluate(run: Run, *, device: str = "auto") -> dict[str, Any]:
    """Judge the newest checkpoints: {"versions", "metrics", "grid", ...}; the same, and the picture, in `evaluation/`.

    Random draws in a recipe's `evaluate` are seeded by the run: the same checkpoints give the same numbers. They are
    taken as they are: torch's global generator is put back afterwards.
    """
    recipe, device = recipe_of(run.spec), choose_device(device, 0)
    if recipe.evaluate is None:
        raise InputError(f"The recipe {run.spec.recipe} has no `evaluate`; add one to get metrics.")
    params = params_of(run.spec, recipe)
    nets, checkpoints = published_nets(run, recipe, params, device=device)
    judge = recipe.evaluate
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(run.spec.seed)
        test = on_device(data_of(run.spec, recipe, params).test, device)
        found = _of_recipe(run, lambda: judge(nets, test, params))
    for name in recipe.lower_is_better:
        if name not in found.metrics and (near := did_you_mean(name, found.metrics)):
            log.warning("lower_is_better of the recipe names %r, which `evaluate` does not measure.%s", name, near)
    return _record(run, found, checkpoints)


def conclude(run: Run) -> None:
    """Evaluate a run whose every module is finished, if its recipe can and nobody has done so; else do nothing."""
    if not run.is_finished(run.modules) or recipe_of(run.spec).evaluate is None:
        return
    newest = {name: checkpoint.version for name in run.modules if (checkpoint := run.store(name).latest())}
    evaluations = read_evaluations(run.evaluations_path)
    if not evaluations or evaluations[-1].versions != newest:
        evaluate(run, device=run.spec.device)


def published_nets(run: Run, recipe: Recipe, params: Any, *, device: str) -> tuple[Nets, dict[str, Checkpoint]]:
    """Every module of a run as its newest version that verifies has it: the moving average where there is one."""
    nets: dict[str, list[nn.Module]] = {}
    checkpoints = {}
    for name, module in recipe.modules.items():
        checkpoint, content = _newest(run, name)
        with torch.random.fork_rng():  # initial weights, to be replaced at once, are no draw that anybody should notice
            net = freeze(_of_recipe(run, lambda: module.build(params)), "eval").to(device)  # noqa: B023
        try:
            serialization.load_weights(net, content)
        except CorruptCheckpoint as error:
            raise InputError(
                f"Version {checkpoint.version} of {name} is sound but does not fit the recipe as it is now ({error}). "
                "Put the recipe back as it was when the run was begun."
            ) from error
        nets[name], checkpoints[name] = [net], checkpoint
    return Nets(nets, {}), checkpoints


def apply(
    run: Run, files: Mapping[Path, Path], *, device: str = "auto", broken: Callable[[Path, str], None]
) -> Iterator[tuple[Path, Path]]:
    """Run the trained modules on image files, one by one, in their own size; (source, result) each, written as PNG.

    `files` says where each result goes (`results` makes it). `broken(file, why)` is told of each that cannot be read.
    """
    from modtrain.data.images import read_rgb

    recipe, device = recipe_of(run.spec), choose_device(device, 0)
    if recipe.apply is None:
        raise InputError(f"The recipe {run.spec.recipe} has no `apply`; add one to use the trained modules on images.")
    params = params_of(run.spec, recipe)
    nets, _ = published_nets(run, recipe, params, device=device)
    translate = recipe.apply
    for file, result in files.items():
        try:
            image = read_rgb(file)
        except InputError as error:
            broken(file, str(error))
            continue
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(run.spec.seed)
            translated = _of_recipe(run, lambda: translate(nets, _to_tensor(image, device), params))  # noqa: B023
        result.parent.mkdir(parents=True, exist_ok=True)
        filesystem.replace_file(result, _png(to_uint8(translated[0]).permute(1, 2, 0)))
        yield file, result


def results(sources: list[Path], target: Path) -> dict[Path, Path]:
    """The image files that sources (files, or folders with all below them) mean, each with its place in `target`.

    A folder's tree is kept. InputError where a source is missing or holds no image, or where a result would take the
    place of an input or of another result.
    """
    from modtrain.data.images import find

    found: dict[Path, Path] = {}
    for source in sources:
        inside = list(find(source)) if source.is_dir() else [source]
        if not source.exists() or not inside:
            raise InputError(f"{source} {'holds no image' if source.exists() else 'does not exist'}.")
        below = source if source.is_dir() else source.parent
        found |= {file: (target / file.relative_to(below)).with_suffix(".png") for file in inside}
    _check_results(found)
    return found


def on_device(value: Any, device: str) -> Any:
    """Test data with its tensors on a device: a tensor, or a mapping, a sequence or a dataclass that holds some."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: on_device(item, device) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [on_device(item, device) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {item.name: on_device(getattr(value, item.name), device) for item in dataclasses.fields(value)}
        return dataclasses.replace(value, **items)
    return value


def _record(run: Run, found: Evaluation, checkpoints: Mapping[str, Checkpoint]) -> dict[str, Any]:
    versions = {name: checkpoint.version for name, checkpoint in checkpoints.items()}
    metrics = {name: float(value) for name, value in found.metrics.items()}
    # JSON knows neither NaN nor infinity; a perfect PSNR is infinite.
    plain = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    result: dict[str, Any] = {"run": run.name, "recipe": run.spec.recipe, "versions": versions, "metrics": plain}
    result |= {"epochs": {name: checkpoint.epoch for name, checkpoint in checkpoints.items()}, "grid": None}
    folder = run.path / "evaluation"
    folder.mkdir(exist_ok=True)
    if found.grid is not None:
        path = folder / f"grid-{'-'.join(str(version) for version in versions.values())}.png"
        filesystem.replace_file(path, _png(found.grid))
        result["grid"] = str(path)
    line = {**result, "at": time.time()}
    filesystem.append_line(folder / "metrics.jsonl", json.dumps(line))
    step = min(checkpoint.step for checkpoint in checkpoints.values())
    with Tracking(Subject(run=run, modules=(EVALUATION,), step=None)) as tracking:
        tracking.evaluation(line, step=step, grid=None if found.grid is None else path)
    return result


def _of_recipe(run: Run, action: Callable[[], T]) -> T:
    """What a user's own recipe file does wrong is said with its line; what one of ours does is a bug of ours."""
    if not plugins.is_file(run.spec.recipe):
        return action()
    with plugins.user_code_errors("recipe", run.spec.recipe):
        return action()


def _newest(run: Run, name: str) -> tuple[Checkpoint, bytes]:
    """The newest full version by its average where it has one, so that always the same kind of weights is judged.

    Versions inside of an epoch hold raw weights alone.
    """
    store = run.store(name)
    for file in (EMA, WEIGHTS):
        if found := store.read_newest(file, where=lambda checkpoint: checkpoint.full):
            return found[0]
    raise InputError(f"{run.name} has no readable checkpoint of {name} yet; see `modtrain status {run.path}`.")


def _check_results(found: Mapping[Path, Path]) -> None:
    inputs = {file.resolve() for file in found}
    taken: dict[Path, Path] = {}
    for file, path in found.items():
        if path.resolve() in inputs:
            raise InputError(f"{path} is an input and would be overwritten; give another --out folder.")
        if path in taken:
            raise InputError(f"{taken[path]} and {file} would both become {path}; translate them one after the other.")
        taken[path] = file


def _to_tensor(image: Image, device: str) -> Tensor:
    """(1, 3, height, width) in [-1, 1]."""
    pixels: Tensor = pil_to_tensor(image)
    return as_float(pixels.to(device))[None]


def _png(image: Tensor) -> bytes:
    """uint8 (height, width, 3) as PNG."""
    from PIL import Image as Pillow

    content = io.BytesIO()
    Pillow.fromarray(image.contiguous().cpu().numpy()).save(content, "PNG")
    return content.getvalue()
