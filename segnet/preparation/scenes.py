"""Generated scenes: toys on a floor, lit by one soft sun and the sky; the pictures and masks of the sample dataset."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from segnet.classes import IGNORE_INDEX, SAMPLE
from segnet.preparation.paint import paint, random_color, smooth_noise
from segnet.preparation.toys import Array, Toy, length_of, normal_at, sunlight_past, toy_distance, trace

SCENE_VERSION = 1  # raise it when the pictures change: existing sets are then rendered again
SIZE = (120, 160)  # (height, width) of nine pictures in ten
OTHER_SIZES = ((160, 120), (113, 151), (96, 128), (137, 137))
OUTDOORS = 100.0  # a wall this far away is the sky


class Scene(NamedTuple):
    """Toys, camera and light. The N = (2H+1)(2W+1) rays go through pixel centres and half-way between them."""

    toys: list[Toy]
    eye: Array  # (3, 1)
    rays: Array  # (3, N), unit vectors
    sun: Array  # (3, 1), unit vector towards it
    wall: float  # y of the wall behind the floor


class Surfaces(NamedTuple):
    """The first surface that each ray meets."""

    depth: Array  # (N,)
    normal: Array  # (3, N)
    albedo: Array  # (3, N), linear RGB
    gloss: Array  # (N,)
    owner: NDArray[np.uint8]  # (N,), 1 + position of the toy, 0 = background


def _turn(axis: int, angle: float) -> Array:
    """The rotation (3, 3) by `angle`, radians, about the x (0), y (1) or z (2) axis."""
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    matrix = np.eye(3, dtype=np.float32)
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix


def _make_toy(place: Array, radius: float, rng: Generator) -> Toy:
    """A toy of a random class on the floor at `place` (x, y). Crates and cones stand or lie; rings and stars show a face."""
    class_id, proportion, spin = int(rng.integers(1, len(SAMPLE))), rng.random(), rng.uniform(0, 2 * math.pi)
    name, yaw, tilt = SAMPLE.names[class_id], rng.uniform(-1, 1), rng.uniform(0.4, 1.5)
    if name in ("crate", "cone"):
        lies = rng.random() < 0.2  # along the picture, since a cone seen from below looks like a ball
        tilt, yaw = (rng.choice([-1, 1]) * rng.uniform(1.2, 1.9), math.pi / 2 + 0.7 * yaw) if lies else (0.0, yaw)
    rotation = np.asarray(_turn(2, yaw) @ _turn(0, tilt) @ _turn(2, spin), np.float32)
    toy = Toy(class_id, proportion, np.zeros((3, 1), np.float32), radius, rotation)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 15, dtype=np.float32)] * 3)).reshape(3, -1)
    lowest = (rotation[2] @ grid[:, toy_distance(toy, grid) < 0.03]).min()
    return toy._replace(center=np.array([[place[0]], [place[1]], [-lowest * radius]], np.float32))


def _compose(size: tuple[int, int], rng: Generator) -> Scene:
    """A camera for a picture of `size` (height, width), a sun, and 3 to 7 toys that do not touch."""
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
        albedo[:, part] = paint(u[part], v[part], rng)
    return Surfaces(depth, normal, albedo, np.zeros_like(depth), np.zeros(depth.shape, np.uint8))


def _place_toys(scene: Scene, surfaces: Surfaces, rng: Generator) -> None:
    """Change `surfaces` to the toys' where a toy is nearer."""
    for number, toy in enumerate(scene.toys, start=1):
        index, point, depth = trace(toy, scene.eye, scene.rays)
        nearer = depth < surfaces.depth[index]
        at, point = index[nearer], point[:, nearer]
        u, v, _ = _turn(0, rng.uniform(0, math.pi)) @ point * 1.2
        surfaces.albedo[:, at] = paint(u, v, rng, toy.class_id)
        surfaces.normal[:, at] = normal_at(toy, point)
        surfaces.depth[at], surfaces.owner[at], surfaces.gloss[at] = depth[nearer], number, rng.uniform(0.05, 0.8)


def _illuminate(scene: Scene, surfaces: Surfaces, rng: Generator) -> Array:
    """The light (3, N) that reaches the camera: the sun, with shadows and highlights, and the sky, less near toys."""
    normal = surfaces.normal
    point = scene.eye + surfaces.depth * scene.rays + 0.015 * normal
    direct, open_sky = np.maximum((normal * scene.sun).sum(0), 0), 0.72 + 0.28 * normal[2]
    for toy in scene.toys:
        direct *= sunlight_past(toy, point, scene.sun)
        away = toy.center - point
        far = np.maximum(length_of(*away), 1e-3)
        open_sky *= 1 - 0.8 * np.maximum((normal * away).sum(0) / far, 0) * np.minimum(toy.radius / far, 1) ** 2
    half = scene.sun - scene.rays  # Blinn's half-way vector
    glint = surfaces.gloss * np.maximum((normal * half).sum(0) / length_of(*half), 0) ** 32 * (direct > 0)
    warmth, strength = rng.uniform(-0.1, 0.2), rng.uniform(0.25, 0.5)
    sun = np.array([[1 + warmth], [1], [1 - warmth]], np.float32)
    sky = np.array([[0.85], [1], [1.2]], np.float32) * strength
    return surfaces.albedo * (sky * open_sky + sun * direct) + glint * sun


def _add_sky(light: Array, scene: Scene, depth: Array, rng: Generator) -> Array:
    """`light` with a clouded sky in place of the far wall, and haze on the floor before it."""
    zenith, horizon = random_color(rng, (0.3, 0.7), (0.5, 0.9)), random_color(rng, (0.0, 0.3), (0.8, 1.0))
    cloud = np.clip(smooth_noise(scene.rays[0] * 5, scene.rays[2] * 12, rng) * 3 - 1.4, 0, 1) * rng.random()
    sky = horizon + (zenith - horizon) * np.clip(scene.rays[2] * 3, 0, 1)
    haze = 1 - np.exp(-((depth / 45) ** 2))
    return light + (sky + (0.9 - sky) * cloud - light) * haze


def _develop(light: Array, rng: Generator) -> NDArray[np.uint8]:
    """The picture (H, W, 3) of `light` (2H+1, 2W+1, 3): blur, vignette, colour cast, exposure and noise of a camera."""
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
    """The mask (H, W) of objects numbered from 1: their class ids, and 255 on both sides of every outline, as in VOC."""
    mask = np.array([0, *class_ids], np.uint8)[owner]
    across, down = owner[:, 1:] != owner[:, :-1], owner[1:] != owner[:-1]
    for side in (mask[:, 1:], mask[:, :-1]):
        side[across] = IGNORE_INDEX
    for side in (mask[1:], mask[:-1]):
        side[down] = IGNORE_INDEX
    return mask


def render_scene(seed: int, index: int, zoom: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture (H, W, 3) RGB and its mask (H, W) of class ids and 255; a function of the three numbers alone.

    Height and width are `zoom` times those of `SIZE`, or of one of `OTHER_SIZES`. Another zoom shows other scenes.
    """
    rng = np.random.default_rng([seed, index])
    height, width = SIZE if rng.random() < 0.9 else OTHER_SIZES[rng.integers(len(OTHER_SIZES))]
    size = (zoom * height, zoom * width)
    scene = _compose(size, rng)
    surfaces = _lay_floor(scene, rng)
    _place_toys(scene, surfaces, rng)
    light = _illuminate(scene, surfaces, rng)
    if scene.wall == OUTDOORS:
        light = _add_sky(light, scene, surfaces.depth, rng)
    grid = (2 * size[0] + 1, 2 * size[1] + 1)
    mask = _outline(surfaces.owner.reshape(grid)[1::2, 1::2], [toy.class_id for toy in scene.toys])
    return _develop(light.T.reshape(*grid, 3), rng), mask
