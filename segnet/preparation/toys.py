"""Toys: objects given by signed distance functions, and the rays that meet them.

A ray's first hit is found by sphere tracing (Hart 1996).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.classes import SAMPLE

Array = NDArray[np.float32]


class Toy(NamedTuple):
    """One object. In its own frame it lies inside the unit sphere, and z is its axis."""

    class_id: int
    proportion: float  # 0..1, slim to stout
    center: Array  # (3, 1) in the world, z up
    radius: float
    rotation: Array  # (3, 3), from its own frame to the world


def length_of(*parts: Array) -> Array:
    """The lengths (N,) of vectors, from their components (N,) each."""
    return np.sqrt(sum(part * part for part in parts))


def _box(x: Array, y: Array, z: Array) -> Array:
    """The distance to a box, from the distances to its three pairs of sides."""
    outside = length_of(np.maximum(x, 0), np.maximum(y, 0), np.maximum(z, 0))
    return outside + np.minimum(np.maximum(np.maximum(x, y), z), 0)


def _crate(point: Array, proportion: float) -> Array:
    """The distance to a crate: panels set back in a frame of twelve beams."""
    x, y, z = np.abs(point) - np.array([[0.56], [0.56], [0.4 + 0.16 * proportion]], np.float32)
    a, b, c = (np.abs(side + 0.085) - 0.085 for side in (x, y, z))
    frame = np.minimum(np.minimum(_box(x, b, c), _box(a, y, c)), _box(a, b, z))
    return np.minimum(frame - 0.015, _box(x + 0.06, y + 0.06, z + 0.06))


def _cone(point: Array, proportion: float) -> Array:
    """The distance to a blunt cone on a flat round foot."""
    planar, z, slope = length_of(point[0], point[1]), point[2], 0.3 + 0.14 * proportion
    body = np.maximum((planar + (z - 0.95) * slope) / math.hypot(1, slope), np.abs(z - 0.1) - 0.72)
    foot = np.maximum(planar - 1.5 * slope - 0.16, np.abs(z + 0.6) - 0.06)
    return np.minimum(body, foot) - 0.02


def _star(point: Array, proportion: float) -> Array:
    """The distance to a star of five rays with four facets each.

    By symmetry one facet is enough: the plane through the tip of a ray, the notch beside it and the peak in the middle.
    """
    planar, fifth = length_of(point[0], point[1]), 2 * math.pi / 5
    angle = np.abs((np.arctan2(point[1], point[0]) + fifth / 2) % fifth - fifth / 2)
    tip, peak, reach = np.array([0.95, 0, 0]), np.array([0, 0, 0.36]), 0.4 + 0.1 * proportion
    normal = np.cross([reach * math.cos(fifth / 2), reach * math.sin(fifth / 2), 0] - tip, peak - tip)
    a, b, c = (normal / np.linalg.norm(normal)).tolist()
    return (planar * np.cos(angle) - 0.95) * a + planar * np.sin(angle) * b + np.abs(point[2]) * c - 0.03


def toy_distance(toy: Toy, point: Array) -> Array:
    """The signed distances (N,) from points (3, N) of the toy's frame to its surface, or less than those."""
    name = SAMPLE.names[toy.class_id]
    if name == "ball":
        return length_of(*point) - 0.98
    if name == "ring":
        return length_of(length_of(point[0], point[1]) - 0.73, point[2]) - (0.17 + 0.09 * toy.proportion)
    return {"crate": _crate, "cone": _cone, "star": _star}[name](point, toy.proportion)


def _enter(toy: Toy, origin: Array, rays: Array) -> tuple[Array, Array, Array, Array]:
    """Rays in the toy's frame: start, direction, way to the point nearest to the centre, half the way inside the sphere."""
    start, direction = toy.rotation.T @ ((origin - toy.center) / np.float32(toy.radius)), toy.rotation.T @ rays
    middle = -(start * direction).sum(0)
    return start, direction, middle, np.sqrt(np.maximum(1 - (start * start).sum(0) + middle * middle, 0))


def trace(toy: Toy, origin: Array, rays: Array) -> tuple[NDArray[np.intp], Array, Array]:
    """The first hits of rays (3, N) from one origin (3, 1): indices of rays, points in the toy's frame, depths in the world."""
    start, direction, middle, reach = _enter(toy, origin, rays)
    index = np.flatnonzero((reach > 0) & (middle > 0))
    direction, depth, end = direction[:, index], (middle - reach)[index], (middle + reach)[index]
    moving, gap = np.arange(index.size), np.ones_like(depth)
    for _ in range(40):
        gap[moving] = toy_distance(toy, start + depth[moving] * direction[:, moving])
        depth[moving] = np.minimum(depth + gap, end)[moving]
        moving = moving[(gap[moving] > 0.008) & (depth[moving] < end[moving])]
    hit = (gap < 0.04) & (depth < end)  # a few rays still creep along an edge after 40 steps
    return index[hit], (start + depth * direction)[:, hit], depth[hit] * np.float32(toy.radius)


def normal_at(toy: Toy, point: Array) -> Array:
    """The unit normals (3, N) in the world at points (3, N) of the toy's surface: the gradient of the distance."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)[:, :, None]
    slope = sum(corner * toy_distance(toy, point + 0.025 * corner) for corner in corners)
    return toy.rotation @ (slope / np.maximum(length_of(*slope), 1e-6))


def sunlight_past(toy: Toy, points: Array, sun: Array) -> Array:
    """The fraction 0..1 of the sun that reaches points (3, N) of the world, with soft edges (Quilez, "soft shadows")."""
    light = np.ones(points.shape[1], np.float32)
    start, direction, middle, reach = _enter(toy, points, sun)
    index = np.flatnonzero((reach > 0) & (middle + reach > 0))
    start, depth, share = start[:, index], np.maximum(middle - reach, 0.06)[index], light[index]
    for _ in range(14):
        gap = toy_distance(toy, start + depth * direction)
        share = np.minimum(share, 0.5 + 4 * gap / depth)
        depth = depth + np.clip(gap, 0.05, 0.3)
    share = np.maximum(share, 0)
    light[index] = share * share * (3 - 2 * share)
    return light
