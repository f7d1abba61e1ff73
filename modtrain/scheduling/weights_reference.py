"""Weights reference: what `--init MODULE=REFERENCE`, or the `weights` of a fixed module, name.

It is a file of weights or a version of another run's module.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modtrain.errors import InputError, did_you_mean
from modtrain.recipes.base import Recipe
from modtrain.recipes.contract import fixed_reference
from modtrain.storage import filesystem
from modtrain.storage.best_version import best_versions
from modtrain.storage.initial_weights import InitialWeights
from modtrain.storage.run import Run
from modtrain.storage.trained_weights import newest_trained, trained_at

SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar")
_REFERENCE = re.compile(r"(?P<run>.+?)(#(?P<module>[^#@/]+))?(@(?P<version>[^#@/]*))?")


def find_initial_weights(references: Mapping[str, str], recipe: Recipe) -> dict[str, InitialWeights]:
    """The weights that references name, by module; InputError where there is no such module, or no such weights.

    A reference is a file (`.safetensors`, or a state dict in `.pth`), or `RUN#MODULE@VERSION`: the module is the one of
    the same name where it is left out, the version is a number or `best`, else the newest. Of a version it is the
    moving average, where it has one.
    """
    for module in references:
        if module not in recipe.modules:
            near, known = did_you_mean(module, recipe.modules), ", ".join(recipe.modules)
            raise InputError(f"--init {module}: there is no such module; the recipe has {known}.{near}")
        if module not in recipe.trained:
            raise InputError(f"--init {module}: the module is never trained; its weights are those of the recipe.")
    return {module: _find(f"--init {module}", module, reference) for module, reference in references.items()}


def find_fixed_weights(recipe: Recipe, params: Any) -> dict[str, InitialWeights]:
    """The weights of the fixed modules that have any; InputError where there are no such weights."""
    references = {name: fixed_reference(name, recipe.modules[name], params) for name in recipe.fixed}
    return {
        name: _find(f"The weights of {name}", name, reference)
        for name, reference in references.items()
        if reference is not None
    }


def resolved(reference: str) -> str:
    """A reference with the absolute path of its file or run."""
    return str(Path(reference).expanduser().resolve())


def _find(what: str, module: str, reference: str) -> InitialWeights:
    file = Path(reference).expanduser()
    if file.name.endswith(SUFFIXES):
        path, sha256 = file, _checksum(what, file)
    else:
        path, sha256 = _of_version(what, module, reference)
    return InitialWeights(reference=resolved(reference), path=str(path.resolve()), sha256=sha256)


def _checksum(what: str, file: Path) -> str:
    if not file.is_file():
        raise InputError(f"{what}: there is no file {file}.")
    try:
        return hashlib.sha256(filesystem.read_file(file)).hexdigest()
    except OSError as error:
        raise InputError(f"{what}: {file} cannot be read: {error.strerror}.") from error


def _of_version(what: str, module: str, reference: str) -> tuple[Path, str]:
    """File and checksum of a version of another run's module, which verifies."""
    match = _REFERENCE.fullmatch(reference)
    if match is None or Path(reference).expanduser().is_file():
        raise InputError(
            f"{what}: {reference} is not allowed; give a file ({', '.join(SUFFIXES)}), or a module of another "
            "run as RUN#MODULE@VERSION."
        )
    run, name, version = Run.open(Path(match["run"]).expanduser()), match["module"] or module, match["version"]
    if version is not None and not re.fullmatch("[0-9]+|best", version):
        raise InputError(f"{what}: version {version!r} is not allowed; give a number or best.")
    run.check_module(name)
    if version is None:
        checkpoint, file, _ = newest_trained(run, name)
    else:
        number = best_versions(run, None)[0][name] if version == "best" else int(version)
        checkpoint, file, _ = trained_at(run, name, number)
    return run.store(name).folder(checkpoint.version) / file, str(checkpoint.files[file]["sha256"])
