"""Twelve cultivars of apples, each recognised by its outline, its spots and its colours.

A cultivar stands for a person. The outline and the spots, which are dents, are seen in a thermal picture, too; the
colours are not, but follow from the cultivar. Within a cultivar only the place, the size, the tilt and the light vary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modtrain.data.fruits import rendering
from modtrain.data.fruits.rendering import RGB, Array, Layer, Scenes, Surface, rgb


@dataclass(frozen=True, kw_only=True)
class Cultivar:
    """What the fruits of one cultivar have in common."""

    outline: tuple[float, float, float, float]
    """Amplitudes of the harmonics 2 to 5 of the outline, about the stem: tall, conical, square, five-lobed."""
    lean: float
    """Amplitude of the second harmonic that makes it lopsided."""
    skin: RGB
    blush: RGB
    """Colour of the side that ripened in the sun."""
    ripeness: float
    """Share of the blush: 0 is little, 1 nearly all of the skin."""
    sunny: float
    """Radians: direction of that side."""
    spots: tuple[tuple[float, float, float], ...] = ()
    """Place in radii, and radius."""
    spot: RGB = (0.30, 0.17, 0.08)


CULTIVARS = (
    Cultivar(
        outline=(-0.13, 0.00, 0.00, 0.00), lean=0.00, ripeness=0.85, sunny=0.6,
        skin=(0.80, 0.55, 0.16), blush=(0.74, 0.06, 0.08),
    ),
    Cultivar(
        outline=(0.16, 0.00, 0.00, 0.00), lean=0.00, ripeness=0.10, sunny=2.4,
        skin=(0.50, 0.72, 0.18), blush=(0.66, 0.74, 0.26), spots=((-0.38, -0.10, 0.18),),
    ),
    Cultivar(
        outline=(0.05, -0.18, 0.00, 0.00), lean=0.00, ripeness=0.45, sunny=0.2,
        skin=(0.95, 0.80, 0.22), blush=(0.88, 0.34, 0.12), spots=((0.34, -0.30, 0.17), (-0.30, -0.42, 0.14)),
    ),
    Cultivar(
        outline=(0.00, 0.16, 0.00, 0.00), lean=0.00, ripeness=0.75, sunny=2.9,
        skin=(0.62, 0.20, 0.34), blush=(0.34, 0.05, 0.20),
    ),
    Cultivar(
        outline=(-0.04, 0.00, 0.10, 0.00), lean=0.00, ripeness=0.55, sunny=1.2,
        skin=(0.93, 0.62, 0.42), blush=(0.90, 0.30, 0.34), spots=((0.00, -0.25, 0.24),),
    ),
    Cultivar(
        outline=(0.00, 0.00, -0.10, 0.00), lean=0.00, ripeness=0.30, sunny=-0.4,
        skin=(0.60, 0.44, 0.22), blush=(0.72, 0.36, 0.14),
        spots=((-0.42, 0.16, 0.13), (-0.10, -0.20, 0.13), (0.36, 0.10, 0.13), (0.20, -0.52, 0.13)),
        spot=(0.88, 0.76, 0.52),
    ),
    Cultivar(
        outline=(0.00, 0.00, 0.00, 0.10), lean=0.00, ripeness=0.60, sunny=3.6,
        skin=(0.98, 0.60, 0.10), blush=(0.94, 0.36, 0.05),
    ),
    Cultivar(
        outline=(0.04, 0.00, 0.00, 0.00), lean=0.14, ripeness=0.40, sunny=0.9,
        skin=(0.86, 0.88, 0.58), blush=(0.92, 0.52, 0.52), spots=((0.40, 0.22, 0.15), (0.12, 0.02, 0.11)),
    ),
    Cultivar(
        outline=(0.07, -0.09, 0.05, 0.00), lean=-0.14, ripeness=0.90, sunny=2.0,
        skin=(0.48, 0.10, 0.12), blush=(0.28, 0.03, 0.06), spots=((-0.34, 0.12, 0.20),), spot=(0.70, 0.40, 0.28),
    ),
    Cultivar(
        outline=(0.18, 0.11, 0.00, 0.00), lean=0.00, ripeness=0.25, sunny=1.6,
        skin=(0.30, 0.52, 0.20), blush=(0.46, 0.30, 0.14),
        spots=((0.00, 0.15, 0.14), (-0.28, -0.15, 0.14), (0.28, -0.15, 0.14)), spot=(0.78, 0.80, 0.42),
    ),
    Cultivar(
        outline=(-0.14, 0.00, 0.05, -0.05), lean=0.07, ripeness=0.50, sunny=2.7,
        skin=(0.97, 0.88, 0.36), blush=(0.78, 0.84, 0.26), spots=((-0.44, -0.30, 0.14), (0.46, -0.26, 0.14)),
    ),
    Cultivar(
        outline=(0.09, -0.11, -0.04, 0.07), lean=0.09, ripeness=0.65, sunny=0.0,
        skin=(0.44, 0.26, 0.48), blush=(0.24, 0.16, 0.40),
        spots=((-0.20, 0.20, 0.10), (0.16, -0.06, 0.10), (-0.14, -0.34, 0.10), (0.40, -0.40, 0.10),
               (-0.50, -0.10, 0.10)),
        spot=(0.80, 0.66, 0.74),
    ),
)  # fmt: skip
MOST_SPOTS = max(len(cultivar.spots) for cultivar in CULTIVARS)


@dataclass(frozen=True)
class Fruit:
    """One fruit in each picture: its colours, and what a thermal camera sees."""

    body: Layer
    stem: Layer
    facing: Array
    """How far the surface is turned to the viewer, (N, 1, S, S) from 0 to 1."""
    hollow: Array
    """Depth of the hollow at the stem, and of the spots, (N, 1, S, S) from 0 to about 1."""


def of_cultivars(scenes: Scenes, labels: NDArray[np.int64]) -> Scenes:
    """The scenes, with the blush and the pattern of the skin that the cultivar of each has."""
    return replace(
        scenes,
        ripeness=_each([cultivar.ripeness for cultivar in CULTIVARS], labels),
        blush=_each([cultivar.sunny for cultivar in CULTIVARS], labels),
        tone=np.zeros_like(scenes.tone),
        texture=_each([number / len(CULTIVARS) for number in range(len(CULTIVARS))], labels),
    )


def fruit(scenes: Scenes, labels: NDArray[np.int64], surface: Surface) -> Fruit:
    """The fruit in each scene of `of_cultivars`, of the cultivars numbered `labels` (N,)."""
    distance, normal = rendering.sphere(surface, _outline(labels, surface))
    dents = _spots(labels, surface)
    stalk, normal = rendering.with_hollow(normal, surface)
    spots = dents.max(1, keepdims=True)
    painted = Layer(_colours([cultivar.spot for cultivar in CULTIVARS], labels), np.clip(1.5 * spots, 0, 1))
    colour = painted.over(_skin(scenes, labels, surface) * (1 - 0.35 * stalk))
    lit = rendering.shaded(colour, normal, surface, scenes, gloss=0.45, sharpness=30.0)
    body = Layer(lit, rendering.antialiased(distance, surface))
    return Fruit(body, rendering.stem(scenes, surface), normal[:, 2:], np.maximum(stalk, spots))


def _outline(labels: NDArray[np.int64], surface: Surface) -> Array:
    """Radius of the edge at each pixel's angle from the stem: harmonics, and the dip that every apple has."""
    angle = np.arctan2(surface.x, surface.y)
    dip = 0.13 * np.exp(-((angle / 0.36) ** 2))
    waves = [
        _each([cultivar.outline[number] for cultivar in CULTIVARS], labels) * np.cos((number + 2) * angle)
        for number in range(4)
    ]
    lopsided = _each([cultivar.lean for cultivar in CULTIVARS], labels) * np.sin(2 * angle)
    edge: Array = (0.85 - dip + sum(waves) + lopsided).astype(np.float32)
    return edge


def _spots(labels: NDArray[np.int64], surface: Surface) -> Array:
    """Depth of each spot, (N, MOST_SPOTS, S, S) from 0 to 1; a cultivar with fewer has none in the others."""
    table = np.full((len(CULTIVARS), MOST_SPOTS, 3), (9.0, 9.0, 1.0), np.float32)
    for row, cultivar in zip(table, CULTIVARS, strict=True):
        row[: len(cultivar.spots)] = cultivar.spots or row[:0]
    x, y, radius = table[labels].transpose(2, 0, 1)[..., None, None]
    depth: Array = np.exp(-((((surface.x - x) ** 2 + (surface.y - y) ** 2) / radius**2) ** 2))
    return depth


def _skin(scenes: Scenes, labels: NDArray[np.int64], surface: Surface) -> Array:
    """The blush over the skin: more of it on the sunny side, in streaks from pole to pole."""
    around, away = rendering.meridians(surface)
    streaks = rendering.noise(around, away * 0.06, scenes.texture, 16)
    sunny = surface.x * np.cos(scenes.blush) + surface.y * np.sin(scenes.blush)
    share = np.clip(0.5 + 1.1 * (scenes.ripeness - 0.5) + 0.55 * sunny + 0.12 * streaks, 0, 1)
    skin = Layer(_colours([cultivar.blush for cultivar in CULTIVARS], labels), share * share * (3 - 2 * share))
    return skin.over(_colours([cultivar.skin for cultivar in CULTIVARS], labels))


def _each(values: list[float], labels: NDArray[np.int64]) -> Array:
    """The value of each picture's cultivar, (N, 1, 1, 1)."""
    return np.array(values, np.float32)[labels][:, None, None, None]


def _colours(values: list[RGB], labels: NDArray[np.int64]) -> Array:
    """The colour of each picture's cultivar, (N, 3, 1, 1)."""
    return np.concatenate([rgb(*value) for value in values])[labels]
