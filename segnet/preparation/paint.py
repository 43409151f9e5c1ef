"""The colours and patterns of the surfaces in a generated scene."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from segnet.classes import SAMPLE
from segnet.preparation.toys import Array, length_of

PATTERNS = {  # what the surfaces of a class may look like
    "background": ("plain", "stripes", "checks", "dots", "clouds", "planks"),
    "ball": ("plain", "stripes", "dots"),
    "crate": ("planks", "checks"),
    "cone": ("plain", "stripes"),
    "ring": ("plain", "clouds"),
    "star": ("plain", "clouds"),
}


def random_color(rng: Generator, saturation: tuple[float, float], value: tuple[float, float], turn: float | None = None) -> Array:
    """A random colour as linear RGB (3, 1). Its hue is `turn` of the colour circle, 0 being red; None: any hue."""
    turn = rng.random() if turn is None else turn
    hue = np.abs((turn * 6 + np.array([[0.0], [4.0], [2.0]])) % 6 - 3) - 1
    display = rng.uniform(*value) * (1 - rng.uniform(*saturation) * (1 - np.clip(hue, 0, 1)))
    return (display**2.2).astype(np.float32)


def smooth_noise(u: Array, v: Array, rng: Generator) -> Array:
    """Smooth noise (N,) at coordinates u and v: mean 0.5, standard deviation 0.16, repeated every 16 units.

    It is white noise with a falling spectrum.
    """
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)) * 128
    spectrum = np.fft.rfft2(rng.standard_normal((128, 128))) / np.maximum(frequency, 6) ** 1.6 * (frequency > 0)
    field = np.fft.irfft2(spectrum)
    field = (0.5 + 0.16 * field / field.std()).astype(np.float32).ravel()
    a, b = u * 8, v * 8
    i, j = np.floor(a).astype(np.int32), np.floor(b).astype(np.int32)
    f, g = a - i, b - j
    row, below, column, beside = (i & 127) * 128, (i + 1 & 127) * 128, j & 127, j + 1 & 127
    near = field[row + column] * (1 - g) + field[row + beside] * g
    return near * (1 - f) + (field[below + column] * (1 - g) + field[below + beside] * g) * f


def _pattern(kind: str, u: Array, v: Array, rng: Generator) -> Array:
    """The fraction 0..1 of the second colour at coordinates u and v."""
    width = rng.uniform(0.35, 0.8)
    a, b = u / width, v / width
    if kind == "plain":
        return np.zeros_like(u)
    if kind == "stripes":
        return np.clip(np.sin(math.pi * a) * 5 + 0.5, 0, 1)
    if kind == "checks":
        return np.clip(np.sin(math.pi * a) * np.sin(math.pi * b) * 10 + 0.5, 0, 1)
    if kind == "dots":
        return np.clip((0.3 - length_of(a % 1 - 0.5, b % 1 - 0.5)) * 10, 0, 1)
    if kind == "clouds":
        return np.clip(smooth_noise(a, b, rng) * 3 - 1, 0, 1)
    plank = np.floor(a)
    seam = np.clip(np.abs(a - plank - 0.5) * 20 - 9, 0, 1)
    return np.clip(smooth_noise(a * 4 + plank * 5, b / 3 + plank * 2.7, rng) + plank * 0.37 % 0.4 - 0.3 + 0.7 * seam, 0, 1)


def paint(u: Array, v: Array, rng: Generator, class_id: int = 0) -> Array:
    """The albedo (3, N) of a surface with coordinates u and v: a pattern of two colours, muted on floors and walls.

    The hue of a class varies with a standard deviation of 11 degrees, the hues of neighbouring classes are 72 apart, and the
    second colour is pale. So colour is a hint, and shape decides.
    """
    if class_id:
        turn = (class_id - 1) / 5 + rng.normal(0, 0.03)
        first, second = random_color(rng, (0.55, 0.95), (0.6, 1.0), turn), random_color(rng, (0.0, 0.3), (0.4, 1.0))
    else:
        first = random_color(rng, (0.0, 0.12), (0.45, 0.95))
        second = first * rng.uniform(0.6, 0.9)
    pattern = _pattern(rng.choice(PATTERNS[SAMPLE.names[class_id]]), u, v, rng)
    return (first + (second - first) * pattern) * (0.75 + 0.5 * smooth_noise(u * 2, v * 2, rng))
