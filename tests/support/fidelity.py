"""torch-fidelity's files one by one: its package loads torchvision's models, which takes 8 s of CPU."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import patch

PACKAGE = "torch_fidelity"


def fidelity(name: str) -> Any:
    """One of its files as a module; what that file only imports to download and to cache is left out."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    package, utils = types.ModuleType(PACKAGE), types.ModuleType(f"{PACKAGE}.utils")
    package.__path__ = [str(Path(spec.origin).parent)]
    utils.__getattr__ = lambda name: None  # type: ignore[method-assign]
    with patch.dict(sys.modules, {PACKAGE: package, utils.__name__: utils}):
        return importlib.import_module(f"{PACKAGE}.{name}")
