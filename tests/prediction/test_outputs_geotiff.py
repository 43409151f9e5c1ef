"""Predictions of GeoTIFFs: masks at the same place, nothing where a picture holds nothing, world files beside PNGs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from geotiffs import TAGS, geo_tags, write_geotiff
from helpers import write_picture
from image_cases import noise
from PIL import Image
from predictions import output_bytes, predict_all, run_jobs, written

from segnet.inference.predictor import Predictor
from segnet.prediction.outputs import OUTPUTS

EVERY = ("mask", "geotiff", "overlay", "uncertainty", "json", "polygons", "areas", "ranking", "probabilities")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a GeoTIFF of 30×40 whose upper half holds nothing, and its world file."""
    pixels = noise(30, 40, 3) | 1
    pixels[:15] = 0
    (tmp_path / "in").mkdir()
    write_geotiff(tmp_path / "in" / "a.tif", pixels, "0")
    (tmp_path / "in" / "a.tfw").write_text("0.25\n0\n0\n-0.25\n412345.8\n5712345.1\n")
    return tmp_path / "in"


def test_a_geotiff_gives_a_mask_at_its_place(predictor: Predictor, place: Path, tmp_path: Path) -> None:
    assert set(EVERY) == OUTPUTS.keys()
    assert written(run_jobs(predictor, place, tmp_path / "out", EVERY)) == ["a"]
    mask = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert (mask[:15] == 255).all()
    assert (mask[15:] < 3).all()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a.tif")), mask)
    assert geo_tags(tmp_path / "out" / "a.tif") == {**TAGS, 42113: "255"}
    assert (tmp_path / "out" / "a.pgw").read_bytes() == (place / "a.tfw").read_bytes()
    classes = json.loads((tmp_path / "out" / "a.json").read_text())["classes"]
    assert sum(row["pixels"] for row in classes) == 15 * 40
    polygons = json.loads((tmp_path / "out" / "a.geojson").read_text())
    assert polygons["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::25832"
    shapes = polygons["features"]
    corners = np.concatenate([ring for shape in shapes for ring in shape["geometry"]["coordinates"]])
    assert corners.min(axis=0).tolist() == pytest.approx([412345.678, 5712345.25 - 30 * 0.25])
    assert corners.max(axis=0).tolist() == pytest.approx([412345.678 + 40 * 0.25, 5712345.25 - 15 * 0.25])
    assert {shape["properties"]["class"] for shape in shapes} <= set(predictor.classes.names)
    same = predictor.predict(place / "a.tif")
    assert np.array_equal(same.mask, mask)


def test_a_picture_without_a_place_is_named_and_others_are_written(predictor: Predictor, place: Path, tmp_path: Path) -> None:
    write_picture(place / "b.png")
    mistakes = predict_all(predictor, place, tmp_path / "out", ["geotiff"])
    assert len(mistakes) == 1
    assert "b.png: has no georeference" in mistakes[0]
    assert "predict it without geotiff" in mistakes[0]
    assert set(output_bytes(tmp_path / "out")) == {"a.tif"}


def test_a_world_file_is_an_output_like_others(predictor: Predictor, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert written(run_jobs(predictor, place, out)) == ["a"]
    before = output_bytes(out)
    assert set(before) == {"a.png", "a.pgw"}
    assert written(run_jobs(predictor, place, out)) == []  # both are valid
    (place / "a.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    assert written(run_jobs(predictor, place, out)) == ["a"]
    assert (out / "a.pgw").read_text().startswith("1\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.pgw").write_text("mine")
    with pytest.raises(Exception, match=r"a\.pgw: exists already and is not of this program"):
        run_jobs(predictor, place, tmp_path / "other")
    assert (tmp_path / "other" / "a.pgw").read_text() == "mine"
