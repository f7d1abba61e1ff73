"""Paint one apple or one orange into each of N pictures by vectorised shading of an outline, without ray tracing.

A fruit is a disc whose edge is a function of the angle; its normals are those of a sphere, bent by bumps; the light is
ambient, diffuse and a highlight. Edges are antialiased by their distance in pixels, textures never get finer than the
pixels. Everything has the shape (N, channels, size, size).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
"""float32 throughout; numpy's annotations lose that in most operations."""
RGB = tuple[float, float, float]

NOISE_SIDE = 512
"""A power of two."""


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """N scenes: each field has the shape (N, 1, 1, 1); lengths are shares of the picture's side, y grows downwards."""

    x: Array
    y: Array
    radius: Array
    tilt: Array
    """Radians, clockwise."""
    light_x: Array
    light_y: Array
    light: Array
    """Brightness, 1 is normal."""
    ripeness: Array
    """0: a green-yellow apple, 1: a red one."""
    tone: Array
    """Standard normal: the colour's deviation from its mean."""
    blush: Array
    """Radians: direction of the side of the apple that ripened in the sun."""
    texture: Array
    """0 to 1: offset of the skin in the noise."""

    def part(self, chosen: slice) -> Scenes:
        return Scenes(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


@dataclass(frozen=True)
class Surface:
    """The picture in the fruit's frame: x to its right and y to its top in radii; `pixels` is the radius in pixels."""

    x: Array
    y: Array
    pixels: Array
    light: Array
    """Unit vectors (N, 3, 1, 1) in the fruit's frame, z towards the viewer."""


@dataclass(frozen=True)
class Layer:
    """Colour (N, 3, S, S) and coverage (N, 1, S, S), both 0 to 1."""

    colour: Array
    coverage: Array

    def over(self, below: Array) -> Array:
        return below + (self.colour - below) * self.coverage


@dataclass(frozen=True)
class Tint:
    """The colour of a kind of fruit, and how it deviates at a tone of 1."""

    mean: RGB
    deviation: RGB

    def colour(self, tone: Array) -> Array:
        return rgb(*self.mean) + tone * rgb(*self.deviation)


RED = Tint((0.74, 0.075, 0.085), (0.045, 0.02, 0.02))
GREEN_YELLOW = Tint((0.70, 0.73, 0.20), (0.06, 0.01, 0.03))
ORANGE = Tint((0.98, 0.48, 0.03), (0.010, 0.040, 0.01))


def surface(scenes: Scenes, size: int) -> Surface:
    """The frame of the fruit in each scene."""
    across, down = _pixel_centres(size)
    right, up = (across - scenes.x) / scenes.radius, (scenes.y - down) / scenes.radius
    cos, sin = np.cos(scenes.tilt), np.sin(scenes.tilt)
    x, y = scenes.light_x * cos + scenes.light_y * sin, scenes.light_y * cos - scenes.light_x * sin
    light = np.concatenate([x, y, np.sqrt(np.maximum(1 - scenes.light_x**2 - scenes.light_y**2, 0.05))], 1)
    return Surface(right * cos - up * sin, right * sin + up * cos, scenes.radius * np.float32(size), light)


def with_shadow(background: Array, scenes: Scenes, foot: float = 1.0) -> Array:
    """The background with the fruit's soft shadow on the ground, and a darker one where it touches.

    It touches the ground `foot` radii below its centre.
    """
    across, down = _pixel_centres(background.shape[-1])
    right, below = (across - scenes.x) / scenes.radius, (down - scenes.y) / (scenes.radius * np.float32(foot))
    cast = np.exp(-(((right + 0.55 * scenes.light_x) / 1.05) ** 2) - ((below - 0.85) / 0.30) ** 2)
    touch = np.exp(-((right / 0.60) ** 2) - ((below - 0.97) / 0.12) ** 2)
    return background * (1 - 0.55 * cast) * (1 - 0.45 * touch)


def apple(scenes: Scenes, surface: Surface, ripe: Tint = RED, unripe: Tint = GREEN_YELLOW) -> tuple[Layer, Layer]:
    """The apple's body, and its stem to paint over it."""
    body = _apple_outline(surface)
    distance, normal = sphere(surface, body)
    hollow, normal = with_hollow(normal, surface)
    colour = _apple_skin(scenes, surface, hollow, ripe, unripe)
    lit = shaded(colour * (1 - 0.35 * hollow), normal, surface, scenes, gloss=0.55, sharpness=38.0)
    return Layer(lit, antialiased(distance, surface)), stem(scenes, surface)


def orange(scenes: Scenes, surface: Surface) -> Layer:
    """The orange, with its green button."""
    distance, normal = sphere(surface, np.float32(1.0) - 0.035 * surface.y**2)
    bumps = peel_bumps(scenes, surface)
    patches = noise(surface.x * 0.18, surface.y * 0.18, scenes.texture, 4)
    colour = with_pores(ORANGE.colour(0.30 * patches + 0.5 * scenes.tone), scenes, surface)
    up = surface.y - 0.60
    button = np.sqrt(surface.x**2 + (up / 0.72) ** 2)
    dimple = np.exp(-((button / 0.24) ** 2))
    bend = np.concatenate([surface.x, up, np.zeros_like(up)], 1) / 0.24
    normal = unit_vectors(normal + 0.055 * bumps - 0.7 * dimple * bend)
    lit = shaded(colour * (1 - 0.12 * dimple), normal, surface, scenes, gloss=0.26, sharpness=14.0)
    green = rgb(0.36, 0.42, 0.14) * scenes.light * (0.75 + 0.25 * dimple)
    return Layer(Layer(green, antialiased(button - 0.105, surface)).over(lit), antialiased(distance, surface))


def noise(u: Array, v: Array, where: Array, octave: int) -> Array:
    """Smooth noise of mean 0 and deviation 1 that repeats for u and v in [0, 1), with `octave` waves each way."""
    row, column = (((place + shift * where) * NOISE_SIDE).astype(np.int32) for place, shift in ((v, 1.0), (u, 1.7)))
    sampled: Array = _noise(octave)[row & (NOISE_SIDE - 1), column & (NOISE_SIDE - 1)]
    return sampled


@functools.cache
def _noise(octave: int) -> Array:
    """A square of noise that tiles: white noise, band-pass filtered around the octave."""
    white = np.fft.rfft2(np.random.default_rng(octave).standard_normal((NOISE_SIDE, NOISE_SIDE)))
    rows, columns = np.fft.fftfreq(NOISE_SIDE, 1 / NOISE_SIDE)[:, None], np.arange(NOISE_SIDE // 2 + 1)
    waves = np.hypot(rows, columns) / octave
    smooth = np.fft.irfft2(white * waves * np.exp(-(waves**2)), s=(NOISE_SIDE, NOISE_SIDE))
    scaled: Array = (smooth / smooth.std()).astype(np.float32)
    return scaled


def _pixel_centres(size: int) -> tuple[Array, Array]:
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return centres[None, None, None, :], centres[None, None, :, None]


def _apple_outline(surface: Surface) -> Array:
    """Radius of the apple's edge at each pixel's angle: broad shoulders, a dip at the stem, narrower below."""
    angle = np.abs(np.arctan2(surface.x, surface.y))
    shoulders = 0.06 * np.exp(-(((angle - 0.95) / 0.50) ** 2))
    dip = 0.15 * np.exp(-((angle / 0.36) ** 2))
    flanks = 0.045 * np.exp(-(((angle - 2.35) / 0.42) ** 2))
    base = 0.055 * np.exp(-(((angle - np.pi) / 0.26) ** 2))
    outline: Array = (0.985 + shoulders - dip - flanks - base).astype(np.float32)
    return outline


def sphere(surface: Surface, edge: Array) -> tuple[Array, Array]:
    """Distance to the outline in radii (inside is negative), and the normals of a sphere blown into that outline."""
    far = np.sqrt(surface.x**2 + surface.y**2)
    inside = np.minimum(far / edge, 0.999)
    direction = np.concatenate([surface.x, surface.y], 1) / np.maximum(far, 1e-6)
    normal = np.concatenate([direction * inside, np.sqrt(1 - inside**2)], 1)
    return far - edge, normal


def _apple_skin(scenes: Scenes, surface: Surface, hollow: Array, ripe: Tint, unripe: Tint) -> Array:
    """Ripe skin over unripe: riper on the sunny side, in streaks from pole to pole, with pale dots."""
    around, away = meridians(surface)
    streaks = noise(around, away * 0.06, scenes.texture, 16) * 0.55 + noise(around, away * 0.3, scenes.texture, 4) * 0.6
    sunny = surface.x * np.cos(scenes.blush) + surface.y * np.sin(scenes.blush)
    redness = 2.6 * (scenes.ripeness - 0.42) + 0.65 * sunny + 0.35 * streaks - 0.9 * hollow
    ripe_share = np.clip(redness * 0.5 + 0.5, 0, 1)
    red = ripe_share * ripe_share * (3 - 2 * ripe_share)  # a smooth step
    skin = Layer(ripe.colour(scenes.tone), red).over(unripe.colour(scenes.tone))
    fineness = np.minimum(1.0, surface.pixels * 3 / 64)
    dots = np.maximum(noise(surface.x * 0.8 * fineness, surface.y * 0.8 * fineness, scenes.texture, 32) - 1.4, 0)
    return Layer(rgb(0.93, 0.80, 0.50), np.minimum(0.30 * dots * fineness, 0.5)).over(skin)


def with_hollow(normal: Array, surface: Surface) -> tuple[Array, Array]:
    """Depth of the hollow at the stem, from 0 to 1, and the normals bent into it."""
    hollow = np.exp(-((surface.x / 0.34) ** 2) - ((surface.y - 0.70) / 0.17) ** 2)
    bend = np.concatenate([surface.x / 0.34, (surface.y - 0.70) / 0.20, np.zeros_like(surface.x)], 1)
    return hollow, unit_vectors(normal - 1.3 * hollow * bend)


def meridians(surface: Surface) -> tuple[Array, Array]:
    """Place on the skin of a fruit with a hollow: turns about the stem, and the distance from it in radii."""
    up = 0.70 - surface.y
    return np.arctan2(surface.x, up) / np.float32(2 * np.pi), np.sqrt(surface.x**2 + up**2)


def peel_bumps(scenes: Scenes, surface: Surface) -> Array:
    """The roughness of a citrus fruit's peel, to be added to its normals: (N, 3, S, S)."""
    wavelength = np.maximum(0.085, 3.0 / surface.pixels)
    u, v = surface.x / wavelength / 16, surface.y / wavelength / 16
    bumps = [noise(u, v, scenes.texture + shift, 16) for shift in (0, 0.37)]
    return np.concatenate([*bumps, np.zeros_like(surface.x)], 1)


def with_pores(skin: Array, scenes: Scenes, surface: Surface) -> Array:
    """The skin, finely dotted."""
    wavelength = np.maximum(0.055, 2.4 / surface.pixels)
    pores = np.maximum(-noise(surface.x / wavelength / 32, surface.y / wavelength / 32, scenes.texture, 32) - 0.6, 0)
    porous: Array = skin * (1 - 0.05 * pores)
    return porous


def stem(scenes: Scenes, surface: Surface, foot: float = 0.66, length: float = 0.52) -> Layer:
    """A brown stem, bent, a bit thicker at its end."""
    along = np.clip((surface.y - foot) / length, 0, 1)
    aside = surface.x - np.sin(scenes.blush * 3) * 0.16 * along**2
    beyond = np.maximum(np.maximum(foot - surface.y, surface.y - (foot + length)), 0)
    width = np.maximum(0.042 + 0.03 * along**2, 0.75 / surface.pixels)
    shine = np.clip(0.8 + 0.5 * aside / width * np.sign(surface.light[:, :1]), 0.3, 1.3)
    colour = rgb(0.36, 0.23, 0.11) * shine * scenes.light
    return Layer(colour, antialiased(np.sqrt(aside**2 + beyond**2) - width, surface))


def shaded(colour: Array, normal: Array, surface: Surface, scenes: Scenes, *, gloss: float, sharpness: float) -> Array:
    """The skin under the scene's light: ambient, a soft terminator, light from the ground, and a highlight."""
    facing = (normal * surface.light).sum(1, keepdims=True)
    diffuse = np.clip((facing + 0.25) / 1.25, 0, 1)
    half = unit_vectors(surface.light + np.array([0, 0, 1], np.float32).reshape(1, 3, 1, 1))
    highlight = gloss * np.clip((normal * half).sum(1, keepdims=True), 0, 1) ** sharpness
    rim = 0.55 + 0.45 * np.sqrt(normal[:, 2:])
    shaded = colour * (0.30 + 0.95 * diffuse) * rim + highlight * rgb(1.0, 0.98, 0.94)
    lit: Array = np.clip(shaded * scenes.light, 0, 1)
    return lit


def antialiased(distance: Array, surface: Surface) -> Array:
    """Antialiasing: how much of a pixel lies inside an outline that is `distance` radii away."""
    return np.clip(0.5 - distance * surface.pixels, 0, 1)


def unit_vectors(vectors: Array) -> Array:
    """The vectors (N, 3, S, S) with length 1."""
    unit: Array = vectors / np.sqrt((vectors**2).sum(1, keepdims=True))
    return unit


def rgb(red: float, green: float, blue: float) -> Array:
    """A colour, (1, 3, 1, 1)."""
    return np.array([red, green, blue], np.float32).reshape(1, 3, 1, 1)
