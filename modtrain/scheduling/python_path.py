"""The import path of this Python, as an environment variable for the Python of a job."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def python_path() -> dict[str, str]:
    """`PYTHONPATH` with this process's import path as absolute paths, independent of the working folder.

    Entries that every Python of this installation has by default are left out.
    """
    installation = tuple(os.path.join(prefix, "") for prefix in (sys.prefix, sys.base_prefix))
    inherited = [Path(entry).absolute() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    # An editable install adds the name of an import hook to sys.path, which is not a path.
    paths = [Path(entry).absolute() for entry in filter(os.path.exists, sys.path)]
    own = [str(path) for path in paths if path in inherited or not str(path).startswith(installation)]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(own))}
