"""Looking for files in folders that other processes change meanwhile."""

from __future__ import annotations

import os
from pathlib import Path


def below(folder: Path, prefix: str) -> list[Path]:
    """The files and folders below `folder` whose names begin with `prefix`; a folder that goes away is passed over."""
    found = ((Path(path), name) for path, folders, files in os.walk(folder) for name in (*folders, *files))
    return [path / name for path, name in found if name.startswith(prefix)]
