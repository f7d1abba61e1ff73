"""What tests share: small recipes, real commands, schedulers, a server and a browser to look at it."""

from pathlib import Path

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
"""The repository."""
