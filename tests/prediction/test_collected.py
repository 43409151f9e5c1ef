"""The polygons of all pictures of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from helpers import write_picture
from predictions import run_jobs

from segnet.inference.predictor import Predictor
from segnet.prediction.collected import collect_polygons
from segnet.prediction.inputs import plan_jobs
from segnet.prediction.outputs import Options
from segnet.prediction.pipeline import predict_jobs
from segnet.regions.shapes import shapes_to_mask
from segnet.vectors.geojson import read_geojson


def test_polygons_have_the_pixels_of_the_mask(predictor: Predictor, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "in" / "deep" / "a.jpg", (23, 31))
    run_jobs(predictor, tmp_path / "in", tmp_path / "out", ["polygons"])
    shapes = read_geojson(tmp_path / "out" / "deep" / "a.geojson")
    assert np.array_equal(shapes_to_mask(shapes, 255), predictor.predict(picture).mask)  # no class is called background
    assert shapes.picture == "../in/deep/a.jpg"


def test_one_file_holds_all_pictures_by_their_path_in_the_input_folder(predictor: Predictor, tmp_path: Path) -> None:
    for name in ("b.png", "deep/a.jpg"):
        write_picture(tmp_path / "in" / name, (9, 7))
    run_jobs(predictor, tmp_path / "in", tmp_path / "out", ["polygons"])
    found = collect_polygons(tmp_path / "out", "coco", predictor.classes)
    assert (found.path, found.kept, found.worst) == (tmp_path / "out" / "coco.json", None, None)
    content = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["b.png", "deep/a.jpg"]
    assert sum(entry["area"] for entry in content["annotations"]) == 2 * 9 * 7


def test_another_tolerance_is_another_setting(predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png", (23, 31))
    jobs, out = plan_jobs([str(tmp_path / "in")], tmp_path / "out"), tmp_path / "out"
    run_jobs(predictor, tmp_path / "in", out, ["polygons"])
    again = list(predict_jobs(predictor, jobs, out, save=["polygons"], options=Options(tolerance=1.5), overwrite=True))
    assert [result.skipped for result in again] == [False]
    assert read_geojson(out / "a.geojson").tolerance == 1.5
    found = collect_polygons(out, None, predictor.classes)
    assert found.path is None
    assert found.kept is not None
    assert 0 < found.kept.iou < 1
    assert found.worst == ("a.png", found.kept.iou)
    same = list(predict_jobs(predictor, jobs, out, save=["polygons"], options=Options(tolerance=1.5)))
    assert [result.skipped for result in same] == [True]
