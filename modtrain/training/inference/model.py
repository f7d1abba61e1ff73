"""Trained networks of a run, loaded from its published checkpoints, with the recipe's `apply` and `sample`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from modtrain import plugins
from modtrain.data.decoding import read_rgb
from modtrain.data.images import as_float
from modtrain.errors import CorruptCheckpoint, InputError
from modtrain.metrics.sample_grid import to_uint8
from modtrain.nets.noise import Truncate, draw_noise
from modtrain.recipes.base import Module, Recipe, resolve
from modtrain.recipes.contract import build_network, check_applied, check_classes, check_samples
from modtrain.recipes.loading import accept_recipe, params_of, recipe_of
from modtrain.recipes.nets_view import Nets
from modtrain.recipes.sampling import Sampling, label_of
from modtrain.storage.best_version import best_versions
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.run import Run, as_run
from modtrain.storage.trained_weights import newest_trained, trained_at
from modtrain.training import serialization
from modtrain.training.fixed_modules import build_fixed
from modtrain.training.learner import choose_device, derived_seed
from modtrain.training.peers import freeze
from modtrain.training.random_state import kept_random_state, seed_all

AT_ONCE = 64
"""Samples that are made in one call."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The trained networks of a run, frozen and in their `infer_mode`, with the recipe's way to apply them."""

    run: Run
    recipe: Recipe
    params: Any
    """The parameters of the stage in which the newest of the checkpoints was trained."""
    networks: Mapping[str, nn.Module]
    """Every module by its name, as its moving average where the checkpoint has one."""
    checkpoints: Mapping[str, Checkpoint]
    """Of the trained modules: a fixed one has none."""
    device: str

    @property
    def nets(self) -> Nets:
        """The networks as a recipe's `apply` and `evaluate` take them."""
        return Nets({name: [net] for name, net in self.networks.items()}, {})

    @property
    def grey_range(self) -> tuple[float, float] | None:
        """Black and white of deep grey images, where the recipe has a parameter of that name."""
        return getattr(self.params, "grey_range", None)

    @property
    def versions(self) -> dict[str, int]:
        return {name: checkpoint.version for name, checkpoint in self.checkpoints.items()}

    def apply(self, images: str | Path | Image.Image | Tensor) -> Image.Image | Tensor:
        """Run the recipe's `apply` on one image or a batch.

        The path of an image file, or a PIL image, gives a PIL image (RGB, 8 bits). A float tensor in [-1, 1], of shape
        (3, H, W) or (N, 3, H, W), gives a tensor of as many dimensions on the same device; its size is up to the recipe
        (in general that of the input). Random draws of the recipe are seeded by the run: the same input gives the same
        output, and the generators of torch, NumPy and Python are left as they were. InputError for anything else.
        """
        self.check_applicable()
        if isinstance(images, Tensor):
            _check_tensor(images)
            applied = self._apply(images if images.dim() == 4 else images[None]).to(images.device)
            return applied if images.dim() == 4 else applied[0]
        if isinstance(images, str | Path):
            images = read_rgb(Path(images), self.grey_range)
        if isinstance(images, Image.Image):
            return self.apply_image(images.convert("RGB"))
        raise InputError(f"images is a {type(images).__name__}; give a path, a PIL image or a tensor.")

    def apply_image(self, image: Image.Image) -> Image.Image:
        """One RGB image to another one."""
        applied = self._apply(as_float(torch.from_numpy(np.array(image)).permute(2, 0, 1).to(self.device))[None])
        return Image.fromarray(to_uint8(applied[0]).permute(1, 2, 0).contiguous().cpu().numpy())

    def check_applicable(self) -> None:
        """InputError where the recipe has no `apply`, whatever the images are."""
        if self.recipe.apply is None:
            use = (
                ": it makes images from noise; use `sample`" if self.recipe.sample else "; add one to use it on images"
            )
            raise InputError(f"The recipe {self.run.spec.recipe} has no `apply`{use}.")

    def sample(
        self,
        count: int,
        *,
        class_name: str | None = None,
        truncation: float | None = None,
        truncate: Truncate = "resample",
        seed: int = 0,
    ) -> Tensor:
        """Images made from noise: float32 (count, 3, H, W) in [-1, 1] on the CPU.

        `class_name` is the class of all of them; without one a recipe with classes makes each in turn. `truncation` as
        of `draw_noise`. Sample i depends on the seed and i, whatever `count` is. InputError for anything else.
        """
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"count = {count!r} is not allowed; give a number of samples, at least 1.")
        noise = self.noise(count, truncation=truncation, truncate=truncate, seed=seed)
        return torch.cat(list(self.generate(noise, self.labels(count, class_name), seed=seed)))

    def noise(
        self, count: int, *, truncation: float | None = None, truncate: Truncate = "resample", seed: int = 0
    ) -> Tensor:
        """Noise of samples (count, noise_size), as of `draw_noise`."""
        with recipe_errors(self.run):
            size = resolve(self.sampling.noise_size, self.params, "noise_size", "`sample`")
        return draw_noise(count, size, seed=seed, truncation=truncation, truncate=truncate)

    def labels(self, count: int, class_name: str | None = None) -> Tensor | None:
        """The labels of samples, int64 (count,): of one class or of each in turn; None where there are no classes."""
        names = self.classes
        if class_name is not None:
            return torch.full((count,), label_of(class_name, names, self.run.spec.recipe))
        return torch.arange(count) % len(names) if names else None

    def generate(self, noise: Tensor, labels: Tensor | None, *, seed: int = 0) -> Iterator[Tensor]:
        """The images of noise, float32 (N, 3, H, W) in [-1, 1] on the CPU, up to AT_ONCE at a time.

        What a recipe draws meanwhile follows from `seed`; the random generators are left as they were.
        """
        function = self.sampling.generate
        for first in range(0, len(noise), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            given = noise[part].to(self.device), None if labels is None else labels[part].to(self.device)
            own_seed = derived_seed(seed, f"samples from {first}")
            with seeded(self, own_seed), recipe_errors(self.run), plugins.calling("`sample`", function):
                images = check_samples(function(self.nets, *given, self.params), given[0], function)
            yield images.float().cpu()

    @property
    def sampling(self) -> Sampling:
        """The recipe's `sample`; InputError where it has none."""
        if self.recipe.sample is None:
            raise InputError(
                f"The recipe {self.run.spec.recipe} has no `sample`: it makes no images from noise alone"
                f"{'; use `apply` on images' if self.recipe.apply else ''}."
            )
        return self.recipe.sample

    @cached_property  # a recipe lists the folders of the data for it, and says what is odd there
    def classes(self) -> tuple[str, ...]:
        """The names of the classes by label, empty where there are none."""
        function = self.sampling.classes
        if function is None:
            return ()
        dataroot = self.run.spec.dataroot
        with recipe_errors(self.run), plugins.calling("`classes` of `sample`", function):
            return check_classes(function(Path(dataroot) if dataroot else None, self.params), function)

    def _apply(self, images: Tensor) -> Tensor:
        function = self.recipe.apply
        assert function
        with seeded(self), recipe_errors(self.run), plugins.calling("`apply`", function):
            return check_applied(function(self.nets, images.to(self.device), self.params), images, function)


def load(
    run: str | Path | Run,
    *,
    version: int | Mapping[str, int] | None = None,
    best: bool | str = False,
    device: str = "auto",
) -> TrainedModel:
    """The trained networks of a run: `modtrain.load("runs/apples").apply("apple.jpg")` is a PIL image.

    By default every module is loaded at its newest full version that verifies. `version` selects another one: a number
    for all modules, or a mapping of module to number (modules that it leaves out are loaded at their newest). `best`
    selects the versions of the best evaluation instead: of the metric that it names, or with True of the run's
    primary metric; less is better for the metrics in the run's `lower_is_better`. `device` is auto, cpu,
    cuda, cuda:1 or mps.

    InputError where there is no such run, module, version, metric or device, or where a version was pruned meanwhile:
    a run keeps only its newest versions.
    """
    run = accept_recipe(as_run(run))
    if best is not False and version is not None:
        raise InputError("Give either version or best to load, not both.")
    if not isinstance(best, bool | str):
        raise InputError(f"best = {best!r} is not allowed; give True, or the name of a metric.")
    recipe = recipe_of(run)
    params, device = params_of(run.spec, recipe), choose_device(device)
    versions, reason = _selected_versions(run, version), ""
    if best is not False:
        versions, reason = best_versions(run, None if best is True else best)
    networks, checkpoints = dict[str, nn.Module](), dict[str, Checkpoint]()
    for name in recipe.trained:
        selected = versions.get(name)
        if selected is None:
            checkpoint, _, content = newest_trained(run, name)
        else:
            checkpoint, _, content = trained_at(run, name, selected, of=reason)
        networks[name] = _build(run, recipe, name, params, checkpoint, content)
        checkpoints[name] = checkpoint
    newest = max(checkpoint.epoch for checkpoint in checkpoints.values())
    stage = run.spec.stage_at(max(0, newest - 1))
    with recipe_errors(run):
        networks |= {
            name: build_fixed(run.spec.seed, recipe, params, name, run.weights_of(name)) for name in recipe.fixed
        }
        params = params_of(run.spec, recipe, stage)
        for name, module in recipe.modules.items():
            networks[name] = settled(networks[name].to(device), name, module, params, seed=run.spec.seed)
    return TrainedModel(
        run=run, recipe=recipe, params=params, networks=networks, checkpoints=checkpoints, device=device
    )


def recipe_errors(run: Run) -> contextlib.AbstractContextManager[None]:
    """Around calls of a run's recipe: an exception in a user's recipe file becomes an InputError with its line."""
    recipe = run.spec.recipe
    return plugins.user_code_errors("recipe", recipe) if plugins.is_file(recipe) else contextlib.nullcontext()


@contextlib.contextmanager
def seeded(model: TrainedModel, seed: int | None = None) -> Iterator[None]:
    """Inference without gradients and seeded, by the run or with `seed`: the same input gives the same output.

    Every random generator is as before afterwards, and the buffers that a network in train mode changes.
    """
    buffers = [buffer for net in model.networks.values() for buffer in net.buffers()]
    with kept_random_state(), torch.no_grad():
        before = [buffer.clone() for buffer in buffers]
        seed_all(model.run.spec.seed if seed is None else seed)
        try:
            yield
        finally:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


def settled(net: nn.Module, name: str, module: Module, params: Any, *, seed: int) -> nn.Module:
    """A trained network, frozen in its `infer_mode`, after the module's `settle`, which `seed` seeds."""
    mode = resolve(module.infer_mode, params, "infer_mode", name)
    if module.settle is not None:
        freeze(net, mode)
        with kept_random_state(), torch.no_grad(), plugins.calling(f"`settle` of {name}", module.settle):
            seed_all(derived_seed(seed, f"settle {name}"))
            module.settle(net, params)
    return freeze(net, mode)  # `settle` may have changed the mode


def _build(run: Run, recipe: Recipe, module: str, params: Any, checkpoint: Checkpoint, content: bytes) -> nn.Module:
    # Initial weights are replaced at once: their draws must not show outside.
    with kept_random_state(), recipe_errors(run):
        net = build_network(module, recipe.modules[module], params)
    try:
        serialization.load_weights(net, content)
    except CorruptCheckpoint as error:
        raise InputError(
            f"Version {checkpoint.version} of {module} is intact but does not fit the recipe as it is now ({error}). "
            "Restore the recipe as it was when the run was created."
        ) from error
    return net


def _selected_versions(run: Run, version: int | Mapping[str, int] | None) -> dict[str, int]:
    selected = dict(version or {}) if isinstance(version, Mapping | None) else dict.fromkeys(run.modules, version)
    for module, number in selected.items():
        run.check_module(module)
        if not isinstance(number, int) or isinstance(number, bool):
            raise InputError(
                f"version = {version!r} is not allowed; give a number, or numbers by module, such as "
                f"{{{module!r}: 12}}."
            )
    return selected


def _check_tensor(images: Tensor) -> None:
    if not images.is_floating_point() or images.dim() not in (3, 4) or images.shape[-3] != 3:
        raise InputError(
            f"images is a tensor of {images.dtype} and shape {tuple(images.shape)}; give floats in [-1, 1] of shape "
            "(3, H, W) or (N, 3, H, W)."
        )
    if images.numel() and float(images.abs().amax()) > 1.001:
        raise InputError(f"images has values up to {float(images.abs().amax()):g}; scale them to [-1, 1].")
