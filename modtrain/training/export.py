"""Export: the trained modules of a run as the files of another project."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modtrain.errors import InputError
from modtrain.recipes.formats import LATEST, format_named
from modtrain.recipes.loading import recipe_of
from modtrain.storage import filesystem
from modtrain.storage.checkpoint import EMA
from modtrain.storage.manifest import create_output
from modtrain.storage.run import Run, as_run
from modtrain.storage.trained_weights import trained_file
from modtrain.training.inference.model import load, recipe_errors


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A file that was written."""

    module: str
    path: Path
    version: int
    is_average: bool
    """Whether it holds the moving average of the weights."""


def export(
    run: Run | str | Path,
    target: Path,
    *,
    format: str | None = None,
    version: int | Mapping[str, int] | None = None,
    best: bool | str = False,
    replace: bool = False,
) -> list[ExportedFile]:
    """Write the networks of a run, as `load` gives them, into the files of one of its recipe's formats.

    `version` and `best` are those of `load`. InputError where the recipe has no such format, and unless `replace` where
    a file exists.
    """
    run = as_run(run)
    files = format_named(recipe_of(run).formats, format, run.spec.recipe).files
    if target.exists() and not target.is_dir():
        raise InputError(f"--out {target} is a file, but must be a folder.")
    paths = {module: target / file.at(LATEST) for module, file in files.items()}
    if not replace and (there := [path for path in paths.values() if path.exists()]):
        raise InputError(f"{there[0]} exists already; give another --out folder, or replace it with --force.")
    model = load(run, version=version, best=best, device="cpu")
    with recipe_errors(run):
        contents = {module: _packed(file.exported(model.networks[module]), file.key) for module, file in files.items()}
    create_output(target, "--out")
    for module, path in paths.items():
        filesystem.replace_file(path, contents[module])
    return [
        ExportedFile(
            module=module,
            path=path,
            version=model.versions[module],
            is_average=trained_file(model.checkpoints[module]) == EMA,
        )
        for module, path in paths.items()
    ]


def _packed(tensors: Mapping[str, Tensor], key: str) -> bytes:
    """A state dict, under a key if there is one, as `torch.save` writes it, each tensor with memory of its own."""
    content = io.BytesIO()
    state = {name: value.detach().clone() for name, value in tensors.items()}
    torch.save({key: state} if key else state, content)
    return content.getvalue()
