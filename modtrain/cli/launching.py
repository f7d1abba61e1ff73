"""`launch`: begin a run, or go on with one, and watch it."""

from __future__ import annotations

import typer


def add_to(app: typer.Typer) -> None:
    """Register the command."""
