"""GeoJSON: what it holds, and that it is read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from masks import random_masks, trials

from segnet.classes import class_set
from segnet.data.map_coordinates import MapPlace
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


PLACES = [
    MapPlace((0.25, 0.0, 412345.678, 0.0, -0.25, 5712345.25), "urn:ogc:def:crs:EPSG::25832", 0.0625),
    MapPlace((0.0, 3e-7, 9.1234567, 4e-7, 0.0, 48.7654321), "urn:ogc:def:crs:OGC:1.3:CRS84", None, "angles"),
    MapPlace((1.5, 0.5, -3.0, -0.5, 1.5, 7.0), None, 2.5),
]


@pytest.mark.parametrize("place", PLACES)
def test_map_coordinates_are_read_again_as_the_same_mask(tmp_path: Path, place: MapPlace) -> None:
    for mask in random_masks(trials(8), seed=6):
        shapes = trace_shapes("a.tif", mask, np.full(mask.shape, 0.25, np.float32), CLASSES)
        (tmp_path / "a.geojson").write_bytes(encode_geojson(shapes, CLASSES, place))
        again = read_geojson(tmp_path / "a.geojson")
        rings = [[ring.tolist() for ring in shape.polygon] for shape in shapes.shapes]
        assert [[ring.tolist() for ring in shape.polygon] for shape in again.shapes] == rings
        assert np.array_equal(shapes_to_mask(again, 0), mask)


@pytest.mark.parametrize("place", PLACES)
def test_map_coordinates_name_their_system_and_run_counter_clockwise(place: MapPlace) -> None:
    mask = np.ones((4, 5), dtype=np.uint8)
    mask[1, 1:3] = 0
    content = json.loads(encode_geojson(trace_shapes("a.tif", mask, np.ones(mask.shape, np.float32), CLASSES), CLASSES, place))
    assert content["crs"] == ({"type": "name", "properties": {"name": place.crs}} if place.crs else None)
    (feature,) = content["features"]
    assert feature["properties"].get("area_m2") == (18 * place.pixel_m2 if place.pixel_m2 else None)
    outer, hole = (np.array(ring) for ring in feature["geometry"]["coordinates"])
    corners = place.to_map(np.array([[0, 0], [5, 0], [5, 4], [0, 4]]))
    assert sorted(outer[1:].tolist()) == sorted(corners.round(9).tolist())
    areas = [
        float((ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]).sum()) / 2 for ring in (outer - outer[0], hole - outer[0])
    ]
    a, b, _, d, e, _ = place.transform
    assert areas == pytest.approx([20 * abs(a * e - b * d), -2 * abs(a * e - b * d)], rel=1e-2)


def test_another_file_is_refused(tmp_path: Path) -> None:
    for text in ("", "{}", '{"features": [{}]}', "[1]"):
        (tmp_path / "a.geojson").write_text(text)
        with refused(ExitCode.DATA, "a.geojson: not polygons that"):
            read_geojson(tmp_path / "a.geojson")
