"""Polygons, areas and masks of a picture with a world file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predictions import output_bytes, predict_all, run_jobs, written

from segnet.inference.predictor import Predictor


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a JPEG of 12×16 pixels of half a unit; the centre of the first is at (100, 50)."""
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "a.jgw").write_text("0.5\n0\n0\n-0.5\n100\n50\n")
    return tmp_path / "in"


def test_polygons_have_map_coordinates_and_areas_say_why_they_have_no_square_metres(
    predictor: Predictor, place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert written(run_jobs(predictor, place, out, ["polygons", "areas", "geotiff"])) == ["a"]
    polygons = json.loads((out / "a.geojson").read_text())
    assert polygons["crs"] is None
    assert polygons["transform"] == [0.5, 0, 99.75, 0, -0.5, 50.25]
    corners = np.array([corner for shape in polygons["features"] for corner in shape["geometry"]["coordinates"][0]])
    assert (corners.min(axis=0) >= [99.75, 50.25 - 6]).all()
    assert (corners.max(axis=0) <= [99.75 + 8, 50.25]).all()
    assert all("area_m2" not in shape["properties"] for shape in polygons["features"])
    assert (out / "a.areas.csv").read_text().splitlines()[1].endswith(",they name no coordinate system")


def test_outputs_are_made_anew_when_the_world_file_changes(predictor: Predictor, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_jobs(predictor, place, out, ["polygons"])
    assert written(run_jobs(predictor, place, out, ["polygons"])) == []
    (place / "a.jgw").write_text("0.5\n0\n0\n-0.5\n200\n50\n")
    assert written(run_jobs(predictor, place, out, ["polygons"])) == ["a"]
    assert json.loads((out / "a.geojson").read_text())["transform"][2] == 199.75
    run_jobs(predictor, place, out, ["mask"])
    assert set(output_bytes(out)) == {"a.geojson", "a.png", "a.pgw"}


def test_a_damaged_world_file_is_named_where_it_is_needed(predictor: Predictor, place: Path, tmp_path: Path) -> None:
    (place / "a.jgw").write_text("none")
    (mistake,) = predict_all(predictor, place, tmp_path / "out", ["polygons"])
    assert "a.jgw: not a world file" in mistake
    assert predict_all(predictor, place, tmp_path / "masks", ["mask"]) == []
