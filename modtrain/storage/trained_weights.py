"""Trained weights: the file of a version that is used outside of the training of its run."""

from __future__ import annotations

from modtrain.errors import InputError
from modtrain.storage.checkpoint import EMA, WEIGHTS, Checkpoint
from modtrain.storage.run import Run


def trained_file(checkpoint: Checkpoint) -> str:
    """The moving average where the version has one, else the weights."""
    return EMA if EMA in checkpoint.files else WEIGHTS


def newest_trained(run: Run, module: str) -> tuple[Checkpoint, str, bytes]:
    """The newest full version that verifies, with the name and content of its file; InputError where there is none.

    The moving average where any full version has one, since versions that are not full have raw weights alone.
    """
    store = run.store(module)
    for file in (EMA, WEIGHTS):
        for checkpoint, content in store.read_newest(file, where=lambda checkpoint: checkpoint.full):
            return checkpoint, file, content
    raise InputError(f"{run.name} has no readable checkpoint of {module} yet; see `modtrain status {run.path}`.")
