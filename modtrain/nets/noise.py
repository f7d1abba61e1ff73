"""Noise of generators: draws from N(0, 1), truncated in both senses, and walks from one draw to another."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from modtrain.errors import InputError

Truncate = Literal["resample", "scale"]


def draw_noise(
    count: int, size: int, *, seed: int, truncation: float | None = None, truncate: Truncate = "resample"
) -> Tensor:
    """Noise of `count` samples, float32 (count, size) on the CPU, from N(0, 1).

    `truncation` t > 0 trades variety for fidelity (Brock et al. 2019, section 3.1). `resample`: values beyond t are
    drawn again, which is the normal distribution truncated to [-t, t]; `scale`: all values are multiplied by t. Each
    value is the quantile of one uniform draw, so that sample i depends on the seed and i alone, and the same sample
    changes little between two near truncations.
    """
    check_truncation(truncation, truncate)
    is_bounded = truncation is not None and truncate == "resample"
    bound = torch.tensor(truncation if is_bounded else math.inf, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, size, generator=generator, dtype=torch.float64).clamp_min(2.0**-54)
    below = torch.special.ndtr(-bound)
    noise: Tensor = torch.special.ndtri(below + uniform * (1 - 2 * below)).clamp(-bound, bound)
    scale = truncation if truncation is not None and truncate == "scale" else 1.0
    return noise.mul(scale).float()


def check_truncation(truncation: float | None, truncate: str) -> None:
    """InputError where noise cannot be truncated so."""
    if truncate not in get_args(Truncate):
        raise InputError(f"truncate = {truncate!r} is not allowed; use {' or '.join(get_args(Truncate))}.")
    if truncation is not None and not 0 < truncation < math.inf:
        raise InputError(f"truncation = {truncation!r} is not allowed; give a number above 0, such as 0.5.")


def walk(points: Tensor, steps: int, *, closed: bool) -> Tensor:
    """Noise on the way through `points` (P, size), in `steps` for each leg: (legs, steps, size).

    Two draws are joined by spherical interpolation (White 2016, "Sampling Generative Networks"), which keeps the length
    that a generator is used to. `closed` goes back to the first point and takes no point twice, for a film; otherwise
    each leg has both its ends.
    """
    begin, end = (points, points.roll(-1, 0)) if closed else (points[:-1], points[1:])
    shares = torch.linspace(0, 1, steps + closed, dtype=torch.float64)[:steps].view(1, -1, 1)
    a, b = begin.double()[:, None], end.double()[:, None]
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=2).clamp(-1, 1)[..., None]
    angle = cosine.acos()
    straight = a + shares * (b - a)
    curved = (((1 - shares) * angle).sin() * a + (shares * angle).sin() * b) / angle.sin()
    return torch.where(angle.sin().abs() < 1e-6, straight, curved).float()
