"""Images of noise as files, which tests train on as on a user's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def save_noise(root: Path, *names: str, size: tuple[int, int] = (24, 24)) -> Path:
    """Save an image of this width and height at each of these paths below `root`, always the same ones; `root`."""
    rng = np.random.default_rng(0)
    for path in (root / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(*reversed(size), 3), dtype=np.uint8)).save(path)
    return root


def numbered(count: int, *folders: str) -> list[str]:
    """The names of so many images in each of these folders."""
    return [f"{folder}/{number}.png" for folder in folders for number in range(count)]
