"""Programs that tests put in the place of real ones."""

from __future__ import annotations

from pathlib import Path


def executable(path: Path, text: str) -> Path:
    """Write an executable file: a program that begins with `#!`, else a bash script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.startswith("#!") else f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path
