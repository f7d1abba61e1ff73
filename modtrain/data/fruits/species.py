"""Eight classes of fruit, told apart by outline, colour and skin: how each is painted, and how its scenes vary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modtrain.data.fruits import rendering
from modtrain.data.fruits.rendering import ORANGE, RED, Array, Layer, Scenes, Surface, Tint, rgb

Layers = tuple[Layer, ...]
"""From the lowest to the top one."""


@dataclass(frozen=True, kw_only=True)
class Species:
    """One class: its colour, and what paints it into a scene."""

    tint: Tint
    paint: Callable[[Scenes, Surface], Layers]
    foot: float = 1.0
    """How far below its centre it touches the ground, in radii."""
    lies: bool = False
    """Whether it lies on its side; else it stands, a bit tilted."""
    ripeness: tuple[float, float] = (0.0, 1.0)
    """The range of `Scenes.ripeness`."""

    def scenes(self, scenes: Scenes) -> Scenes:
        """The scenes as this class has them."""
        low, high = self.ripeness
        side = np.where(scenes.texture < 0.5, -1, 1).astype(np.float32) * np.float32(np.pi / 2)
        tilt = scenes.tilt + side if self.lies else scenes.tilt
        return replace(scenes, tilt=tilt, ripeness=np.float32(low) + np.float32(high - low) * scenes.ripeness)

    def hue(self, scenes: Scenes) -> NDArray[np.float32]:
        """Hue of the skin in degrees, (N,): 0 is red, 120 green, -120 blue."""
        red, green, blue = self.tint.colour(scenes.tone)[:, :, 0, 0].T
        hue: NDArray[np.float32] = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
        return hue.astype(np.float32)


def _red_apple(scenes: Scenes, surface: Surface) -> Layers:
    return rendering.apple(scenes, surface)


def _green_apple(scenes: Scenes, surface: Surface) -> Layers:
    return rendering.apple(scenes, surface, unripe=GREEN)


def _orange(scenes: Scenes, surface: Surface) -> Layers:
    return (rendering.orange(scenes, surface),)


def _lemon(scenes: Scenes, surface: Surface) -> Layers:
    """Yellow, long, with a nipple at one end and a short neck at the other."""
    neck, nipple = _bulge(surface, 0.0, 0.20), _bulge(surface, np.pi, 0.22)
    return (_citrus(scenes, surface, YELLOW, _ellipse(surface, 0.66, 0.84) + 0.10 * neck + 0.17 * nipple),)


def _lime(scenes: Scenes, surface: Surface) -> Layers:
    """Dark green, rounder than a lemon, with a small nipple and a pale scar where the stem was."""
    body = _citrus(scenes, surface, DARK_GREEN, _ellipse(surface, 0.70, 0.86) + 0.13 * _bulge(surface, np.pi, 0.20))
    scar = rendering.antialiased(np.hypot(surface.x, (surface.y - 0.76) / 0.6) - 0.13, surface)
    return body, Layer(rgb(0.66, 0.62, 0.34) * scenes.light, scar)


def _plum(scenes: Scenes, surface: Surface) -> Layers:
    """Violet, oval, with a seam from pole to pole and a pale bloom."""
    edge = _ellipse(surface, 0.74, 0.88)
    distance, normal = rendering.sphere(surface, edge)
    seam = surface.x - 0.30 * np.sqrt(np.maximum(1 - (surface.y / 0.88) ** 2, 0))
    groove = np.exp(-((seam / 0.09) ** 2))
    bend = np.concatenate([seam / 0.09, np.zeros_like(seam), np.zeros_like(seam)], 1)
    normal = rendering.unit_vectors(normal - 0.45 * groove * bend)
    bloom = rendering.noise(surface.x * 0.25, surface.y * 0.25, scenes.texture, 8)
    skin = Layer(rgb(0.55, 0.52, 0.72), np.clip(0.22 + 0.14 * bloom, 0, 0.6)).over(VIOLET.colour(scenes.tone))
    lit = rendering.shaded(skin * (1 - 0.35 * groove), normal, surface, scenes, gloss=0.18, sharpness=9.0)
    stem = rendering.stem(scenes, surface, foot=0.80, length=0.26)
    return Layer(lit, rendering.antialiased(distance, surface)), stem


def _pear(scenes: Scenes, surface: Surface) -> Layers:
    """Yellow-green with freckles, broad below and narrow towards the stem."""
    across = np.arctan2(surface.x, surface.y)
    low, broad = 0.32, 0.64
    bulb = np.sqrt(broad**2 - (low * np.sin(across)) ** 2) - low * np.cos(across)
    distance, normal = rendering.sphere(surface, bulb + 0.54 * _bulge(surface, 0.0, 0.52))
    sunny = surface.x * np.cos(scenes.blush) + surface.y * np.sin(scenes.blush)
    skin = Layer(rgb(0.80, 0.42, 0.14), np.clip(0.30 * sunny, 0, 0.35)).over(PEAR.colour(scenes.tone))
    fineness = np.minimum(1.0, surface.pixels * 3 / 64)
    freckles = rendering.noise(surface.x * fineness, surface.y * fineness, scenes.texture, 32) - 1.0
    skin = Layer(rgb(0.42, 0.28, 0.10), np.clip(0.45 * freckles, 0, 0.5)).over(skin)
    lit = rendering.shaded(skin, normal, surface, scenes, gloss=0.22, sharpness=16.0)
    return Layer(lit, rendering.antialiased(distance, surface)), rendering.stem(scenes, surface, foot=0.78, length=0.40)


def _tomato(scenes: Scenes, surface: Surface) -> Layers:
    """Orange-red, flat and smooth, with a strong highlight and a green calyx."""
    lobes = 0.018 * np.cos(5 * np.arctan2(surface.x, surface.y))
    distance, normal = rendering.sphere(surface, _ellipse(surface, 0.98, 0.84) + lobes - 0.05 * _bulge(surface, 0, 0.4))
    skin = TOMATO.colour(scenes.tone) * np.ones_like(surface.x)
    lit = rendering.shaded(skin, normal, surface, scenes, gloss=0.75, sharpness=50.0)
    return Layer(lit, rendering.antialiased(distance, surface)), *_calyx(scenes, surface)


def _calyx(scenes: Scenes, surface: Surface) -> Layers:
    """A green star of five sepals, seen from the side, with a short stalk."""
    up = (surface.y - 0.52) / 0.60
    around, away = np.arctan2(surface.x, up), np.hypot(surface.x, up)
    ray = np.abs(np.cos(2.5 * (around + scenes.blush)))
    reach = 0.10 + 0.50 * ray**5
    green = rgb(0.22, 0.42, 0.10) * scenes.light * (0.75 + 0.6 * np.clip(away, 0, 0.6))
    star = Layer(green, rendering.antialiased((away - reach) * 0.45, surface))
    aside = np.abs(surface.x - 0.10 * np.sin(scenes.blush))
    beyond = np.maximum(np.maximum(0.52 - surface.y, surface.y - 0.80), 0)
    stalk = np.hypot(aside, beyond) - np.maximum(0.055, 0.75 / surface.pixels)
    return star, Layer(rgb(0.36, 0.54, 0.16) * scenes.light, rendering.antialiased(stalk, surface))


def _citrus(scenes: Scenes, surface: Surface, tint: Tint, edge: Array) -> Layer:
    """A rough, porous peel in the outline `edge`."""
    distance, normal = rendering.sphere(surface, edge)
    normal = rendering.unit_vectors(normal + 0.055 * rendering.peel_bumps(scenes, surface))
    skin = rendering.with_pores(tint.colour(scenes.tone) * np.ones_like(surface.x), scenes, surface)
    lit = rendering.shaded(skin, normal, surface, scenes, gloss=0.30, sharpness=16.0)
    return Layer(lit, rendering.antialiased(distance, surface))


def _ellipse(surface: Surface, across: float, along: float) -> Array:
    """Radius of the edge at each pixel's angle from the stem, of an ellipse with these half axes."""
    far = np.maximum(np.hypot(surface.x, surface.y), 1e-6)
    edge: Array = (far / np.hypot(surface.x / across, surface.y / along).clip(1e-6)).astype(np.float32)
    return edge


def _bulge(surface: Surface, angle: float, width: float) -> Array:
    """1 at an angle from the stem in radians, 0 or pi, and less the farther from it."""
    away = np.abs(np.abs(np.arctan2(surface.x, surface.y)) - np.float32(angle))
    bulge: Array = np.exp(-((away / np.float32(width)) ** 2))
    return bulge


GREEN = Tint((0.47, 0.70, 0.15), (0.05, 0.03, 0.02))
YELLOW = Tint((0.97, 0.82, 0.10), (0.02, 0.04, 0.02))
DARK_GREEN = Tint((0.24, 0.48, 0.07), (0.05, 0.04, 0.01))
VIOLET = Tint((0.30, 0.10, 0.34), (0.05, 0.01, 0.03))
PEAR = Tint((0.78, 0.74, 0.22), (0.05, 0.03, 0.03))
TOMATO = Tint((0.88, 0.16, 0.05), (0.03, 0.05, 0.01))

SPECIES = {
    "red-apple": Species(tint=RED, paint=_red_apple, ripeness=(0.72, 1.0)),
    "green-apple": Species(tint=GREEN, paint=_green_apple, ripeness=(-0.6, -0.2)),
    "orange": Species(tint=ORANGE, paint=_orange),
    "lemon": Species(tint=YELLOW, paint=_lemon, foot=0.72, lies=True),
    "lime": Species(tint=DARK_GREEN, paint=_lime, foot=0.75, lies=True),
    "plum": Species(tint=VIOLET, paint=_plum, foot=0.88),
    "pear": Species(tint=PEAR, paint=_pear, foot=0.95),
    "tomato": Species(tint=TOMATO, paint=_tomato, foot=0.87),
}
