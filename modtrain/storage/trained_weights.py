"""Trained weights: the file of a version that is used outside of the training of its run."""

from __future__ import annotations

from modtrain.errors import CorruptCheckpoint, InputError, MissingCheckpoint, ranges
from modtrain.storage.checkpoint import EMA, WEIGHTS, Checkpoint
from modtrain.storage.run import Run


def trained_file(checkpoint: Checkpoint) -> str:
    """The moving average where the version has one, else the weights."""
    return EMA if EMA in checkpoint.files else WEIGHTS


def trained_at(run: Run, module: str, version: int, *, of: str = "") -> tuple[Checkpoint, str, bytes]:
    """One version, with the name and content of its file; InputError where it cannot be read.

    `of` says in that error which version it is, such as ` (of the best evaluation)`.
    """
    store = run.store(module)
    try:
        checkpoint = store.meta(version)
        file = trained_file(checkpoint)
        return checkpoint, file, store.read(checkpoint, file)
    except CorruptCheckpoint as error:
        raise InputError(f"Version {version} of {module}{of} cannot be read: {error}") from error
    except MissingCheckpoint as error:
        versions = store.versions()
        pruned = any(0 <= version < other for other in versions)
        missing = "was pruned: a run keeps only its newest versions" if pruned else "does not exist"
        available = ranges(versions) or "none"
        raise InputError(f"Version {version} of {module}{of} {missing}. Available: {available}.") from error


def newest_trained(run: Run, module: str) -> tuple[Checkpoint, str, bytes]:
    """The newest full version that verifies, with the name and content of its file; InputError where there is none.

    The moving average where any full version has one, since versions that are not full have raw weights alone.
    """
    store = run.store(module)
    for file in (EMA, WEIGHTS):
        for checkpoint, content in store.read_newest(file, where=lambda checkpoint: checkpoint.full):
            return checkpoint, file, content
    raise InputError(f"{run.name} has no readable checkpoint of {module} yet; see `modtrain status {run.path}`.")
