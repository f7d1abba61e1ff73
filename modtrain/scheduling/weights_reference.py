"""Weights reference: what `--init MODULE=REFERENCE` names, a file of weights or a version of another run's module."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from modtrain.errors import CorruptCheckpoint, InputError, MissingCheckpoint, did_you_mean
from modtrain.storage import filesystem
from modtrain.storage.best_version import best_versions
from modtrain.storage.checkpoint import Checkpoint
from modtrain.storage.initial_weights import InitialWeights
from modtrain.storage.run import Run
from modtrain.storage.trained_weights import newest_trained, trained_file

SUFFIXES = (".safetensors", ".pth", ".pt")
_REFERENCE = re.compile(r"(?P<run>.+?)(#(?P<module>[^#@/]+))?(@(?P<version>[0-9]+|best))?")


def find_initial_weights(references: Mapping[str, str], modules: Sequence[str]) -> dict[str, InitialWeights]:
    """The weights that references name, by module; InputError where there is no such module, or no such weights.

    A reference is a file (`.safetensors`, or a state dict in `.pth`), or `RUN#MODULE@VERSION`: the module is the one of
    the same name where it is left out, the version is a number or `best`, else the newest. Of a version it is the
    moving average, where it has one.
    """
    for module in references:
        if module not in modules:
            near = did_you_mean(module, modules)
            raise InputError(f"--init {module}: there is no such module; the recipe has {', '.join(modules)}.{near}")
    return {module: _find(module, reference) for module, reference in references.items()}


def resolved(reference: str) -> str:
    """A reference with the absolute path of its file or run."""
    return str(Path(reference).expanduser().resolve())


def _find(module: str, reference: str) -> InitialWeights:
    file = Path(reference).expanduser()
    if file.suffix in SUFFIXES:
        path, sha256 = file, _checksum(module, file)
    else:
        path, sha256 = _of_version(module, reference)
    return InitialWeights(reference=resolved(reference), path=str(path.resolve()), sha256=sha256)


def _checksum(module: str, file: Path) -> str:
    if not file.is_file():
        raise InputError(f"--init {module}: there is no file {file}.")
    try:
        return hashlib.sha256(filesystem.read_file(file)).hexdigest()
    except OSError as error:
        raise InputError(f"--init {module}: {file} cannot be read: {error.strerror}.") from error


def _of_version(module: str, reference: str) -> tuple[Path, str]:
    """File and checksum of a version of another run's module, which verifies."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError(f"--init {module}: {reference!r} is neither a file nor RUN#MODULE@VERSION.")
    run, name, version = Run.open(Path(match["run"]).expanduser()), match["module"] or module, match["version"]
    if name not in run.modules:
        raise InputError(f"--init {module}: {run.name} has no module {name!r}; it has {', '.join(run.modules)}.")
    if version is None:
        checkpoint, file, _ = newest_trained(run, name)
    else:
        number = best_versions(run, None)[0][name] if version == "best" else int(version)
        checkpoint, file = _at_version(run, name, number)
    return run.store(name).folder(checkpoint.version) / file, str(checkpoint.files[file]["sha256"])


def _at_version(run: Run, module: str, version: int) -> tuple[Checkpoint, str]:
    store = run.store(module)
    try:
        checkpoint = store.meta(version)
        file = trained_file(checkpoint)
        store.read(checkpoint, file)
    except (CorruptCheckpoint, MissingCheckpoint) as error:
        available = ", ".join(map(str, store.versions())) or "none"
        raise InputError(f"Version {version} of {module} cannot be read: {error} Available: {available}.") from error
    return checkpoint, file
