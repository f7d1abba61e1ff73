"""modtrain trains a model module by module, asynchronously, over nothing but a shared folder.

The public names are loaded when they are first used: `import modtrain` loads neither torch nor ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modtrain.errors import ModtrainError
    from modtrain.recipes.base import Module, Recipe
    from modtrain.scheduling.backends.base import Backend, Job, JobState, Resources
    from modtrain.scheduling.launcher import launch
    from modtrain.storage.checkpoint import Checkpoint
    from modtrain.storage.checkpoint_store import CheckpointStore
    from modtrain.storage.run import Run
    from modtrain.sweeps.sweep import Sweep

__all__ = [
    "Backend",
    "Checkpoint",
    "CheckpointStore",
    "Job",
    "JobState",
    "ModtrainError",
    "Module",
    "Recipe",
    "Resources",
    "Run",
    "Sweep",
    "launch",
]

_HOME = {
    "modtrain.scheduling.backends.base": ("Backend", "Job", "JobState", "Resources"),
    "modtrain.errors": ("ModtrainError",),
    "modtrain.scheduling.launcher": ("launch",),
    "modtrain.recipes.base": ("Module", "Recipe"),
    "modtrain.storage.run": ("Run",),
    "modtrain.storage.checkpoint_store": ("Checkpoint", "CheckpointStore"),
    "modtrain.sweeps.sweep": ("Sweep",),
}


def __getattr__(name: str) -> Any:
    for module, exported in _HOME.items():
        if name in exported:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
