"""modtrain trains a model module by module, asynchronously, over nothing but a shared folder.

The public names are loaded when they are first used: `import modtrain` loads neither torch nor ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modtrain.backends.base import Backend, Job, JobState, Resources
    from modtrain.errors import ModtrainError
    from modtrain.launch import launch
    from modtrain.recipe import Module, Recipe
    from modtrain.run import Run
    from modtrain.store import Checkpoint, CheckpointStore
    from modtrain.trials import Sweep

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
    "modtrain.backends.base": ("Backend", "Job", "JobState", "Resources"),
    "modtrain.errors": ("ModtrainError",),
    "modtrain.launch": ("launch",),
    "modtrain.recipe": ("Module", "Recipe"),
    "modtrain.run": ("Run",),
    "modtrain.store": ("Checkpoint", "CheckpointStore"),
    "modtrain.trials": ("Sweep",),
}


def __getattr__(name: str) -> Any:
    for module, exported in _HOME.items():
        if name in exported:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
