"""modtrain trains a model module by module, asynchronously, over nothing but a shared folder.

The public names are loaded when they are first used: `import modtrain` loads neither torch nor ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modtrain.data.base import Batch as Batch
    from modtrain.data.base import Data as Data
    from modtrain.errors import ModtrainError as ModtrainError
    from modtrain.recipes.base import Evaluation as Evaluation
    from modtrain.recipes.base import Module as Module
    from modtrain.recipes.base import Reads as Reads
    from modtrain.recipes.base import Recipe as Recipe
    from modtrain.recipes.nets_view import Nets as Nets
    from modtrain.recipes.stages import Stage as Stage
    from modtrain.scheduling.backends.base import Backend as Backend
    from modtrain.scheduling.backends.base import Job as Job
    from modtrain.scheduling.backends.base import JobState as JobState
    from modtrain.scheduling.backends.base import Resources as Resources
    from modtrain.scheduling.config import Config as Config
    from modtrain.scheduling.launcher import launch as launch
    from modtrain.storage.checkpoint import Checkpoint as Checkpoint
    from modtrain.storage.checkpoint_store import CheckpointStore as CheckpointStore
    from modtrain.storage.early_stop import EarlyStop as EarlyStop
    from modtrain.storage.run import Run as Run
    from modtrain.sweeps.sweep import Sweep as Sweep
    from modtrain.training.inference.model import load as load

_HOME = {
    "modtrain.data.base": ("Batch", "Data"),
    "modtrain.errors": ("ModtrainError",),
    "modtrain.recipes.base": ("Evaluation", "Module", "Reads", "Recipe"),
    "modtrain.recipes.nets_view": ("Nets",),
    "modtrain.recipes.stages": ("Stage",),
    "modtrain.scheduling.backends.base": ("Backend", "Job", "JobState", "Resources"),
    "modtrain.scheduling.config": ("Config",),
    "modtrain.scheduling.launcher": ("launch",),
    "modtrain.storage.checkpoint": ("Checkpoint",),
    "modtrain.storage.checkpoint_store": ("CheckpointStore",),
    "modtrain.storage.early_stop": ("EarlyStop",),
    "modtrain.storage.run": ("Run",),
    "modtrain.sweeps.sweep": ("Sweep",),
    "modtrain.training.inference.model": ("load",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
