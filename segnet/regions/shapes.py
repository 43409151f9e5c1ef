"""The regions of a predicted mask as polygons, each with its class, its area and how probable it is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.regions.filling import fill
from segnet.regions.labelling import Regions, find_regions
from segnet.regions.rims import Polygon, trace_rims
from segnet.regions.simplification import find_junctions, simplify
from segnet.system.errors import data_error

BACKGROUND = "background"  # the name of a class that has no shapes
MOST_SHAPES = 250_000  # of a picture: about 1 GB while they are traced and written


class Shape(NamedTuple):
    """One region."""

    class_id: int
    polygon: Polygon
    pixels: int  # of the region, also where its polygon is simplified
    probability: float  # of the class, mean over the region's pixels


class Kept(NamedTuple):
    """What simplified polygons keep of the exact ones, in pixels that are of a class with shapes in both or in either."""

    both: int
    either: int

    @property
    def iou(self) -> float:
        """1 where there are no shapes."""
        return self.both / self.either if self.either else 1.0


class PictureShapes(NamedTuple):
    """All shapes of a picture."""

    picture: str  # its name
    size: tuple[int, int]  # height, width
    shapes: list[Shape]
    tolerance: float = 0.0  # of the simplification, pixels; 0: exact
    kept: Kept | None = None  # where simplified


def trace_shapes(
    picture: str, mask: NDArray[np.uint8], confidence: NDArray[np.float32], classes: ClassSet, *, tolerance: float = 0.0
) -> PictureShapes:
    """The shapes of a mask (H, W), in reading order of their first pixels: all regions but those called background.

    Their outlines follow the sides of the pixels exactly, or with `tolerance` pixels to both sides.
    Raises UserError (data) for a mask of more than `MOST_SHAPES` of these regions.
    """
    regions = find_regions(mask)
    has_shape = np.array([name != BACKGROUND for name in classes.names] + [False] * (256 - len(classes)))
    if (count := int(has_shape[regions.classes].sum())) > MOST_SHAPES:
        found = f"its mask has {count:,} regions, polygons hold at most {MOST_SHAPES:,}"
        raise data_error(picture, found, "take small ones away with inference.min_region=16, or leave polygons out")
    stops = find_junctions(regions.labels) if tolerance else None
    polygons = trace_rims(regions, has_shape[regions.classes], stops)
    probability = mean_over_regions(regions, confidence).tolist()
    kept = None
    if stops is not None:
        simple = {number: simplify(polygon, stops, tolerance) for number, polygon in polygons.items()}
        polygons = {number: polygon for number, polygon in simple.items() if polygon}
        filled = np.full(mask.shape, IGNORE_INDEX, dtype=np.uint8)
        fill(filled, ((int(regions.classes[number]), polygon) for number, polygon in polygons.items()))
        wanted = has_shape[mask]
        either = int((wanted | has_shape[filled]).sum())
        kept = Kept(int((wanted & (filled == mask)).sum()), either)
    shapes = [
        Shape(int(regions.classes[number]), polygon, int(regions.sizes[number]), probability[number])
        for number, polygon in polygons.items()
    ]
    return PictureShapes(picture, (mask.shape[0], mask.shape[1]), shapes, tolerance, kept)


def mean_over_regions(regions: Regions, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,): the mean of values (H, W) over each region."""
    return np.bincount(regions.labels.ravel(), weights=values.ravel(), minlength=len(regions.sizes)) / regions.sizes


def shapes_to_mask(shapes: PictureShapes, background: int) -> NDArray[np.uint8]:
    """(H, W) class ids of the pixels in the shapes; `background` elsewhere."""
    mask = np.full(shapes.size, background, dtype=np.uint8)
    fill(mask, ((shape.class_id, shape.polygon) for shape in shapes.shapes))
    return mask
