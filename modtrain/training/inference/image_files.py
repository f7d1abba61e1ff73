"""The results of trained networks as image files: of `apply` on images, and of `sample` from noise."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from modtrain.data.decoding import read_rgb
from modtrain.data.images import find
from modtrain.errors import InputError
from modtrain.metrics.sample_grid import sample_sheet, to_uint8
from modtrain.storage import filesystem
from modtrain.storage.manifest import create_output
from modtrain.training.inference.model import TrainedModel

FRAME_MS = 80
"""Milliseconds that a film shows each of its pictures."""


def apply_to_files(
    model: TrainedModel, files: Mapping[Path, Path], *, broken: Callable[[Path, str], None]
) -> Iterator[tuple[Path, Path]]:
    """Apply the trained modules to image files, one by one, in their own size; yields (source, result) of each.

    `files` maps each source to its result, a PNG file (see `result_paths`). `broken(file, message)` is called for each
    source that cannot be read as an image.
    """
    for file, result in files.items():
        try:
            image = read_rgb(file, model.grey_range)
        except InputError as error:
            broken(file, str(error))
            continue
        _write(result, png(model.apply_image(image)))
        yield file, result


def result_paths(sources: list[Path], target: Path) -> dict[Path, Path]:
    """The image files of `sources` (files, or folders with everything below), each with its PNG file in `target`.

    The tree of a folder is kept. InputError where a source is missing or holds no image, or where a result would
    replace an input or another result.
    """
    results: dict[Path, Path] = {}
    for source in sources:
        files = list(find(source)) if source.is_dir() else [source]
        if not source.exists() or not files:
            raise InputError(f"{source} {'holds no image' if source.exists() else 'does not exist'}.")
        folder = source if source.is_dir() else source.parent
        results |= {file: (target / file.relative_to(folder)).with_suffix(".png") for file in files}
    inputs = {file.resolve() for file in results}
    taken: dict[Path, Path] = {}
    for file, path in results.items():
        if path.resolve() in inputs:
            raise InputError(f"{path} is an input and would be overwritten; give another --out folder.")
        if path in taken:
            raise InputError(f"{taken[path]} and {file} would both become {path}; rename one of them.")
        taken[path] = file
    return results


def sample_paths(model: TrainedModel, target: Path, labels: Tensor | None, count: int) -> list[Path]:
    """The PNG file of each sample: `target/00000.png`, in a recipe with classes in a folder for each class."""
    names = model.classes
    folders = [target] * count if labels is None else [target / names[label] for label in labels.tolist()]
    return [folder / f"{number:05}.png" for number, folder in enumerate(folders)]


def sample_to_files(
    model: TrainedModel, paths: Sequence[Path], noise: Tensor, labels: Tensor | None, *, seed: int
) -> Iterator[Path]:
    """Write the image of each row of noise (N, noise_size) to its PNG file; yields the files."""
    for path, image in zip(paths, _images(model, noise, labels, seed), strict=True):
        _write(path, png(to_picture(image)))
        yield path


def sample_to_sheet(
    model: TrainedModel, path: Path, noise: Tensor, labels: Tensor | None, *, seed: int, columns: int | None = None
) -> Iterator[Tensor]:
    """Write the images of all noise as one PNG file, in so many columns; yields the images as they are made."""
    images = list[Tensor]()
    for image in _images(model, noise, labels, seed):
        images.append(image)
        yield image
    _write(path, png(Image.fromarray(sample_sheet(torch.stack(images), columns).contiguous().numpy())))


def sample_to_film(
    model: TrainedModel, path: Path, noise: Tensor, labels: Tensor | None, *, seed: int
) -> Iterator[Tensor]:
    """Write the images of all noise as one GIF, which begins again at its end; yields the images as they are made."""
    frames = list[Image.Image]()
    for image in _images(model, noise, labels, seed):
        frames.append(Image.fromarray(sample_sheet(image[None]).contiguous().numpy()))
        yield image
    content = BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    _write(path, content.getvalue())


def _images(model: TrainedModel, noise: Tensor, labels: Tensor | None, seed: int) -> Iterator[Tensor]:
    """The images (3, H, W) of noise, one by one."""
    return itertools.chain.from_iterable(model.generate(noise, labels, seed=seed))


def _write(path: Path, content: bytes) -> None:
    create_output(path.parent, "The folder")
    filesystem.replace_file(path, content)


def to_picture(image: Tensor) -> Image.Image:
    """An image (3, H, W) in [-1, 1] as RGB with 8 bits."""
    return Image.fromarray(to_uint8(image).permute(1, 2, 0).contiguous().cpu().numpy())


def png(image: Image.Image) -> bytes:
    """An image as the content of a PNG file."""
    content = BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
