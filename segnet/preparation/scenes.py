"""Scenes of toys on a floor, rendered: the pictures and masks of the sample data set.

A toy is a signed distance field; its surface is found by sphere tracing (Hart 1996), lit by one soft sun and the sky.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from segnet.classes import IGNORE_INDEX, SAMPLE

Array = NDArray[np.float32]

SCENE_VERSION = 1  # raise it when the pictures change: existing sets are then rendered again
SIZE = (120, 160)  # (height, width) of nine pictures in ten
OTHER_SIZES = ((160, 120), (113, 151), (96, 128), (137, 137))
OUTDOORS = 100.0  # a wall this far away is the sky


class Toy(NamedTuple):
    """One object. In its own frame the sphere around it is the unit sphere, and z is its axis."""

    class_id: int
    proportion: float  # 0..1, slim to stout
    center: Array  # (3, 1) in the world, z up
    radius: float
    rotation: Array  # (3, 3), own frame -> world


class Scene(NamedTuple):
    """Toys, camera and light. There are N = (2H+1)(2W+1) rays: through pixel centres, and half-way between them."""

    toys: list[Toy]
    eye: Array  # (3, 1)
    rays: Array  # (3, N), unit vectors
    sun: Array  # (3, 1), unit vector towards it
    wall: float  # y of the wall behind the floor


class Surfaces(NamedTuple):
    """What each ray meets first."""

    depth: Array  # (N,)
    normal: Array  # (3, N)
    albedo: Array  # (3, N), linear RGB
    gloss: Array  # (N,)
    owner: NDArray[np.uint8]  # (N,), 1 + position of the toy, 0 = background


# ---- shapes ----------------------------------------------------------------------------------------------------


def _length(*parts: Array) -> Array:
    return np.sqrt(sum(part * part for part in parts))


def _box(x: Array, y: Array, z: Array) -> Array:
    """Distance to a box, from the distances to its three pairs of sides."""
    outside = _length(np.maximum(x, 0), np.maximum(y, 0), np.maximum(z, 0))
    return outside + np.minimum(np.maximum(np.maximum(x, y), z), 0)


def _crate(point: Array, proportion: float) -> Array:
    """Panels set back in a frame of twelve beams."""
    x, y, z = np.abs(point) - np.array([[0.56], [0.56], [0.4 + 0.16 * proportion]], np.float32)
    a, b, c = (np.abs(side + 0.085) - 0.085 for side in (x, y, z))
    frame = np.minimum(np.minimum(_box(x, b, c), _box(a, y, c)), _box(a, b, z))
    return np.minimum(frame - 0.015, _box(x + 0.06, y + 0.06, z + 0.06))


def _cone(point: Array, proportion: float) -> Array:
    """A blunt cone on a flat round foot."""
    planar, z, slope = _length(point[0], point[1]), point[2], 0.3 + 0.14 * proportion
    body = np.maximum((planar + (z - 0.95) * slope) / math.hypot(1, slope), np.abs(z - 0.1) - 0.72)
    foot = np.maximum(planar - 1.5 * slope - 0.16, np.abs(z + 0.6) - 0.06)
    return np.minimum(body, foot) - 0.02


def _star(point: Array, proportion: float) -> Array:
    """Five rays of four facets each. Folding space leaves one facet: the plane through tip, notch and peak."""
    planar, fifth = _length(point[0], point[1]), 2 * math.pi / 5
    angle = np.abs((np.arctan2(point[1], point[0]) + fifth / 2) % fifth - fifth / 2)
    tip, peak, reach = np.array([0.95, 0, 0]), np.array([0, 0, 0.36]), 0.4 + 0.1 * proportion
    normal = np.cross([reach * math.cos(fifth / 2), reach * math.sin(fifth / 2), 0] - tip, peak - tip)
    a, b, c = (normal / np.linalg.norm(normal)).tolist()
    return (planar * np.cos(angle) - 0.95) * a + planar * np.sin(angle) * b + np.abs(point[2]) * c - 0.03


def toy_distance(toy: Toy, point: Array) -> Array:
    """Signed distance (N,), never more than the true one, from points (3, N) of the toy's frame to its surface."""
    name = SAMPLE.names[toy.class_id]
    if name == "ball":
        return _length(*point) - 0.98
    if name == "ring":
        return _length(_length(point[0], point[1]) - 0.73, point[2]) - (0.17 + 0.09 * toy.proportion)
    return {"crate": _crate, "cone": _cone, "star": _star}[name](point, toy.proportion)


# ---- rays ------------------------------------------------------------------------------------------------------


def _enter(toy: Toy, origin: Array, rays: Array) -> tuple[Array, Array, Array, Array]:
    """Rays in the toy's frame: start, direction, its nearest point to the centre, half its way through."""
    start, direction = toy.rotation.T @ ((origin - toy.center) / np.float32(toy.radius)), toy.rotation.T @ rays
    middle = -(start * direction).sum(0)
    return start, direction, middle, np.sqrt(np.maximum(1 - (start * start).sum(0) + middle * middle, 0))


def trace(toy: Toy, origin: Array, rays: Array) -> tuple[NDArray[np.intp], Array, Array]:
    """First hits of rays (3, N) from one origin (3, 1): their indices, points in the toy's frame, world depths."""
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


def _normal(toy: Toy, point: Array) -> Array:
    """Unit normals (3, n) in the world at points (3, n) of the toy's surface: the distance's gradient."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)[:, :, None]
    slope = sum(corner * toy_distance(toy, point + 0.025 * corner) for corner in corners)
    return toy.rotation @ (slope / np.maximum(_length(*slope), 1e-6))


def sunlight_past(toy: Toy, points: Array, sun: Array) -> Array:
    """Share 0..1 of the sun that reaches world points (3, N), with a penumbra (Quilez, "soft shadows")."""
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


# ---- paint -----------------------------------------------------------------------------------------------------


def _color(rng: Generator, saturation: tuple[float, float], value: tuple[float, float], turn: float | None = None) -> Array:
    """A colour as linear RGB (3, 1); its hue is `turn` of the colour circle (0 red), or any."""
    turn = rng.random() if turn is None else turn
    hue = np.abs((turn * 6 + np.array([[0.0], [4.0], [2.0]])) % 6 - 3) - 1
    display = rng.uniform(*value) * (1 - rng.uniform(*saturation) * (1 - np.clip(hue, 0, 1)))
    return (display**2.2).astype(np.float32)


def _noise(u: Array, v: Array, rng: Generator) -> Array:
    """Smooth noise around 0.5, deviation 0.16, that repeats after 16 units: white noise with a falling spectrum."""
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
    """Share 0..1 of the second colour."""
    width = rng.uniform(0.35, 0.8)
    a, b = u / width, v / width
    if kind == "plain":
        return np.zeros_like(u)
    if kind == "stripes":
        return np.clip(np.sin(math.pi * a) * 5 + 0.5, 0, 1)
    if kind == "checks":
        return np.clip(np.sin(math.pi * a) * np.sin(math.pi * b) * 10 + 0.5, 0, 1)
    if kind == "dots":
        return np.clip((0.3 - _length(a % 1 - 0.5, b % 1 - 0.5)) * 10, 0, 1)
    if kind == "clouds":
        return np.clip(_noise(a, b, rng) * 3 - 1, 0, 1)
    plank = np.floor(a)
    seam = np.clip(np.abs(a - plank - 0.5) * 20 - 9, 0, 1)
    return np.clip(_noise(a * 4 + plank * 5, b / 3 + plank * 2.7, rng) + plank * 0.37 % 0.4 - 0.3 + 0.7 * seam, 0, 1)


PATTERNS = {  # what the surfaces of a class may look like
    "background": ("plain", "stripes", "checks", "dots", "clouds", "planks"),
    "ball": ("plain", "stripes", "dots"),
    "crate": ("planks", "checks"),
    "cone": ("plain", "stripes"),
    "ring": ("plain", "clouds"),
    "star": ("plain", "clouds"),
}


def _paint(u: Array, v: Array, rng: Generator, class_id: int = 0) -> Array:
    """Albedo (3, N) of a surface with coordinates u and v: a pattern of two colours, muted on floors and walls.

    Each class has a favourite hue but strays from it (deviation 11 degrees, with 72 between neighbours), and the second
    colour is pale: colour is a hint, shape decides.
    """
    if class_id:
        turn = (class_id - 1) / 5 + rng.normal(0, 0.03)
        first, second = _color(rng, (0.55, 0.95), (0.6, 1.0), turn), _color(rng, (0.0, 0.3), (0.4, 1.0))
    else:
        first = _color(rng, (0.0, 0.12), (0.45, 0.95))
        second = first * rng.uniform(0.6, 0.9)
    pattern = _pattern(rng.choice(PATTERNS[SAMPLE.names[class_id]]), u, v, rng)
    return (first + (second - first) * pattern) * (0.75 + 0.5 * _noise(u * 2, v * 2, rng))


# ---- scenes ----------------------------------------------------------------------------------------------------


def _turn(axis: int, angle: float) -> Array:
    """Rotation (3, 3) about the x (0), y (1) or z (2) axis."""
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    matrix = np.eye(3, dtype=np.float32)
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix


def _make_toy(place: Array, radius: float, rng: Generator) -> Toy:
    """A toy of a random class on the floor at (x, y): crates and cones stand or lie, rings and stars show a face."""
    class_id, proportion, spin = int(rng.integers(1, len(SAMPLE))), rng.random(), rng.uniform(0, 2 * math.pi)
    name, yaw, tilt = SAMPLE.names[class_id], rng.uniform(-1, 1), rng.uniform(0.4, 1.5)
    if name in ("crate", "cone"):
        lies = rng.random() < 0.2  # along the picture, since a cone seen from below is a ball to anybody
        tilt, yaw = (rng.choice([-1, 1]) * rng.uniform(1.2, 1.9), math.pi / 2 + 0.7 * yaw) if lies else (0.0, yaw)
    rotation = np.asarray(_turn(2, yaw) @ _turn(0, tilt) @ _turn(2, spin), np.float32)
    toy = Toy(class_id, proportion, np.zeros((3, 1), np.float32), radius, rotation)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 15, dtype=np.float32)] * 3)).reshape(3, -1)
    lowest = (rotation[2] @ grid[:, toy_distance(toy, grid) < 0.03]).min()
    return toy._replace(center=np.array([[place[0]], [place[1]], [-lowest * radius]], np.float32))


def _compose(size: tuple[int, int], rng: Generator) -> Scene:
    """A camera for a picture of `size` (height, width), a sun, and 3..7 toys that leave each other room."""
    pitch, (height, width) = rng.uniform(0.26, 0.6), size
    forward, up = np.array([0, math.cos(pitch), -math.sin(pitch)]), np.array([0, math.sin(pitch), math.cos(pitch)])
    eye = np.array([0, 0, 0.4]) - 6.6 * forward
    above, right = np.mgrid[height : -height - 1 : -1, -width : width + 1] / 2  # in pixels from the middle
    rays = forward[:, None] + np.stack([right.ravel(), *np.outer(up, above)[1:]]) / (1.2 * min(size))
    rays /= np.linalg.norm(rays, axis=0)
    azimuth, elevation = rng.uniform(-1.9, 1.9), rng.uniform(0.55, 1.05)
    sun = [math.sin(azimuth) * math.cos(elevation), -math.cos(azimuth) * math.cos(elevation), math.sin(elevation)]
    wall = OUTDOORS if rng.random() < 0.4 else rng.uniform(3.0, 5.5)
    toys: list[Toy] = []
    wanted = rng.integers(3, 8)
    for _ in range(80):
        ray, radius = rays[:, rng.integers(rays.shape[1])], 0.62 * math.exp(rng.uniform(0, 0.9))
        place = (eye - ray * eye[2] / min(ray[2], -1e-3))[:2]
        apart = all(math.dist(toy.center[:2, 0], place) > 0.85 * (toy.radius + radius) for toy in toys)
        if len(toys) < wanted and apart and place[1] < min(wall - radius, 4.0):
            toys.append(_make_toy(place, radius, rng))
    as_columns = [np.array(vectors, np.float32).reshape(3, -1) for vectors in (eye, rays, sun)]
    return Scene(toys, as_columns[0], as_columns[1], as_columns[2], wall)


def _lay_floor(scene: Scene, rng: Generator) -> Surfaces:
    """The scene without its toys: the floor and the wall behind it."""
    x, y, z = scene.rays
    to_floor = np.where(z < -1e-3, -scene.eye[2] / np.minimum(z, -1e-3), np.float32(1e4))
    to_wall = (scene.wall - scene.eye[1]) / y
    depth, on_wall = np.minimum(to_floor, to_wall), to_wall < to_floor
    point = _turn(2, rng.uniform(0, math.pi)) @ (scene.eye + depth * scene.rays)
    albedo, normal = np.empty_like(point), np.zeros_like(point)
    normal[1], normal[2] = -1.0 * on_wall, 1.0 * ~on_wall
    for part, (u, v) in ((~on_wall, (point[0], point[1])), (on_wall, (x * to_wall * 0.7, scene.eye[2] + z * to_wall))):
        albedo[:, part] = _paint(u[part], v[part], rng)
    return Surfaces(depth, normal, albedo, np.zeros_like(depth), np.zeros(depth.shape, np.uint8))


def _place_toys(scene: Scene, surfaces: Surfaces, rng: Generator) -> None:
    """Put the toys before the floor, in place; the nearest surface wins."""
    for number, toy in enumerate(scene.toys, start=1):
        index, point, depth = trace(toy, scene.eye, scene.rays)
        nearer = depth < surfaces.depth[index]
        at, point = index[nearer], point[:, nearer]
        u, v, _ = _turn(0, rng.uniform(0, math.pi)) @ point * 1.2
        surfaces.albedo[:, at] = _paint(u, v, rng, toy.class_id)
        surfaces.normal[:, at] = _normal(toy, point)
        surfaces.depth[at], surfaces.owner[at], surfaces.gloss[at] = depth[nearer], number, rng.uniform(0.05, 0.8)


def _illuminate(scene: Scene, surfaces: Surfaces, rng: Generator) -> Array:
    """Light (3, N) that reaches the camera: sun with cast shadows and highlights, and sky hidden near toys."""
    normal = surfaces.normal
    point = scene.eye + surfaces.depth * scene.rays + 0.015 * normal
    direct, open_sky = np.maximum((normal * scene.sun).sum(0), 0), 0.72 + 0.28 * normal[2]
    for toy in scene.toys:
        direct *= sunlight_past(toy, point, scene.sun)
        away = toy.center - point
        far = np.maximum(_length(*away), 1e-3)
        open_sky *= 1 - 0.8 * np.maximum((normal * away).sum(0) / far, 0) * np.minimum(toy.radius / far, 1) ** 2
    half = scene.sun - scene.rays  # Blinn's half-way vector
    glint = surfaces.gloss * np.maximum((normal * half).sum(0) / _length(*half), 0) ** 32 * (direct > 0)
    warmth, strength = rng.uniform(-0.1, 0.2), rng.uniform(0.25, 0.5)
    sun = np.array([[1 + warmth], [1], [1 - warmth]], np.float32)
    sky = np.array([[0.85], [1], [1.2]], np.float32) * strength
    return surfaces.albedo * (sky * open_sky + sun * direct) + glint * sun


def _add_sky(light: Array, scene: Scene, depth: Array, rng: Generator) -> Array:
    """Clouds and a gradient where a ray ends at the far wall, and haze on the floor before it."""
    zenith, horizon = _color(rng, (0.3, 0.7), (0.5, 0.9)), _color(rng, (0.0, 0.3), (0.8, 1.0))
    cloud = np.clip(_noise(scene.rays[0] * 5, scene.rays[2] * 12, rng) * 3 - 1.4, 0, 1) * rng.random()
    sky = horizon + (zenith - horizon) * np.clip(scene.rays[2] * 3, 0, 1)
    haze = 1 - np.exp(-((depth / 45) ** 2))
    return light + (sky + (0.9 - sky) * cloud - light) * haze


def _develop(light: Array, rng: Generator) -> NDArray[np.uint8]:
    """The camera: light (2H+1, 2W+1, 3) -> picture (H, W, 3), with blur, exposure, vignette, colour cast and noise."""
    side = rng.uniform(0.22, 0.32)  # 0.25 is a tent filter over the rays of a pixel, more is out of focus
    light = side * (light[:-2:2] + light[2::2]) + (1 - 2 * side) * light[1::2]
    light = side * (light[:, :-2:2] + light[:, 2::2]) + (1 - 2 * side) * light[:, 1::2]
    y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in light.shape[:2]), indexing="ij")
    film = light * (1 - rng.uniform(0, 0.18) * (x * x + y * y))[:, :, None] * rng.uniform(0.9, 1.1, 3)
    film = film * rng.uniform(0.6, 1.15) / np.quantile(film, 0.96)
    display = np.minimum(film, 0.7 + 0.3 * np.tanh((film - 0.7) / 0.3)) ** (1 / 2.2)  # highlights roll off
    display = display + rng.normal(0, rng.uniform(0.003, 0.015), display.shape)
    return (display.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _outline(owner: NDArray[np.uint8], class_ids: list[int]) -> NDArray[np.uint8]:
    """The mask of objects numbered 1.. (H, W): their class ids, and 255 on both sides of every outline, as in VOC."""
    mask = np.array([0, *class_ids], np.uint8)[owner]
    across, down = owner[:, 1:] != owner[:, :-1], owner[1:] != owner[:-1]
    for side in (mask[:, 1:], mask[:, :-1]):
        side[across] = IGNORE_INDEX
    for side in (mask[1:], mask[:-1]):
        side[down] = IGNORE_INDEX
    return mask


def render_scene(seed: int, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Picture (H, W, 3) RGB and mask (H, W) of class ids and 255: a function of the two numbers and nothing else."""
    rng = np.random.default_rng([seed, index])
    size = SIZE if rng.random() < 0.9 else OTHER_SIZES[rng.integers(len(OTHER_SIZES))]
    scene = _compose(size, rng)
    surfaces = _lay_floor(scene, rng)
    _place_toys(scene, surfaces, rng)
    light = _illuminate(scene, surfaces, rng)
    if scene.wall == OUTDOORS:
        light = _add_sky(light, scene, surfaces.depth, rng)
    grid = (2 * size[0] + 1, 2 * size[1] + 1)
    mask = _outline(surfaces.owner.reshape(grid)[1::2, 1::2], [toy.class_id for toy in scene.toys])
    return _develop(light.T.reshape(*grid, 3), rng), mask
