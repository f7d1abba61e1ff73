"""modtrain trains a model module by module, asynchronously, over nothing but a shared folder.

The public names are loaded when they are first used: `import modtrain` loads neither torch nor ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modtrain.data.base import Batch, Data
    from modtrain.errors import ModtrainError
    from modtrain.recipes.base import Evaluation, Module, Reads, Recipe
    from modtrain.recipes.nets_view import Nets
    from modtrain.scheduling.backends.base import Backend, Job, JobState, Resources
    from modtrain.scheduling.config import Config
    from modtrain.scheduling.launcher import launch
    from modtrain.storage.checkpoint import Checkpoint
    from modtrain.storage.checkpoint_store import CheckpointStore
    from modtrain.storage.run import Run
    from modtrain.sweeps.sweep import Sweep
    from modtrain.training.inference import load

__all__ = [
    "Backend",
    "Batch",
    "Checkpoint",
    "CheckpointStore",
    "Config",
    "Data",
    "Evaluation",
    "Job",
    "JobState",
    "ModtrainError",
    "Module",
    "Nets",
    "Reads",
    "Recipe",
    "Resources",
    "Run",
    "Sweep",
    "launch",
    "load",
]

_HOME = {
    "modtrain.data.base": ("Batch", "Data"),
    "modtrain.errors": ("ModtrainError",),
    "modtrain.recipes.base": ("Evaluation", "Module", "Reads", "Recipe"),
    "modtrain.recipes.nets_view": ("Nets",),
    "modtrain.scheduling.backends.base": ("Backend", "Job", "JobState", "Resources"),
    "modtrain.scheduling.config": ("Config",),
    "modtrain.scheduling.launcher": ("launch",),
    "modtrain.storage.checkpoint": ("Checkpoint",),
    "modtrain.storage.checkpoint_store": ("CheckpointStore",),
    "modtrain.storage.run": ("Run",),
    "modtrain.sweeps.sweep": ("Sweep",),
    "modtrain.training.inference": ("load",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
