"""GeoJSON: what it holds, and that it is read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from helpers import refused
from masks import random_masks, trials

from segnet.classes import class_set
from segnet.regions.shapes import shapes_to_mask, trace_shapes
from segnet.system.errors import ExitCode
from segnet.vectors.geojson import encode_geojson, read_geojson

CLASSES = class_set(("background", "leaf", "stem", "spot"))


def test_a_file_is_read_again_as_the_same_mask(tmp_path: Path) -> None:
    for mask in random_masks(trials(30), seed=5):
        shapes = trace_shapes("a.jpg", mask, np.full(mask.shape, 0.25, np.float32), CLASSES)
        (tmp_path / "a.geojson").write_bytes(encode_geojson(shapes, CLASSES))
        again = read_geojson(tmp_path / "a.geojson")
        assert np.array_equal(shapes_to_mask(again, 0), mask)
        assert again._replace(shapes=[]) == shapes._replace(shapes=[])


def test_a_feature_is_a_polygon_with_holes_and_closed_rings() -> None:
    mask = np.ones((4, 5), dtype=np.uint8)
    mask[1, 1:3] = 0
    shapes = trace_shapes("a.jpg", mask, np.full(mask.shape, 0.75, np.float32), CLASSES)
    (feature,) = json.loads(encode_geojson(shapes, CLASSES))["features"]
    assert feature["properties"] == {"class": "leaf", "id": 1, "area": 18, "mean_probability": 0.75}
    outer, hole = feature["geometry"]["coordinates"]
    assert (outer[0], sorted(outer[1:])) == (outer[-1], [[0, 0], [0, 4], [5, 0], [5, 4]])
    assert (hole[0], sorted(hole[1:])) == (hole[-1], [[1, 1], [1, 2], [3, 1], [3, 2]])


def test_another_file_is_refused(tmp_path: Path) -> None:
    for text in ("", "{}", '{"features": [{}]}', "[1]"):
        (tmp_path / "a.geojson").write_text(text)
        with refused(ExitCode.DATA, "a.geojson: not polygons that predict.py wrote"):
            read_geojson(tmp_path / "a.geojson")
