"""What stands in the files of a prediction, and how they are called."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import CLASSES, write_picture
from PIL import Image
from predictions import ANYWHERE, output_bytes, predict_all, run_jobs
from pycocotools import mask as coco

from segnet.classes import ClassSet
from segnet.data.mask_files import open_mask
from segnet.inference.predictor import Predictor
from segnet.prediction.outputs import OUTPUTS


def test_every_kind_is_written_with_its_suffix_and_content(predictor: Predictor, tmp_path: Path, tiny_classes: ClassSet) -> None:
    picture, out = write_picture(tmp_path / "in" / "deep" / "a.b.png", (13, 10)), tmp_path / "out"
    assert predict_all(predictor, tmp_path / "in", out, ANYWHERE) == []
    expected = predictor.predict(picture, probabilities=True)
    assert set(output_bytes(out)) == {f"deep/a.b{output.suffix}" for output in map(OUTPUTS.__getitem__, ANYWHERE)}
    mask = Image.open(out / "deep" / "a.b.png")
    assert (mask.mode, mask.size, mask.getpalette()) == ("P", (10, 13), tiny_classes.palette)
    assert np.array_equal(open_mask(out / "deep" / "a.b.png", tiny_classes), expected.mask)
    assert Image.open(out / "deep" / "a.b.overlay.jpg").size == (10, 13)
    uncertainty = np.asarray(Image.open(out / "deep" / "a.b.uncertainty.png"))
    assert np.array_equal(uncertainty, (expected.uncertainty * np.float32(255)).round())
    probabilities = np.load(out / "deep" / "a.b.probabilities.npz", allow_pickle=False)["probabilities"]
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-3)


LONG = ["x" * 251, "\u7530" * 83, "a\nb" * 80, "dot.", "space ", "e\u0301"]  # the suffix has four of the 255 bytes


def test_outputs_have_names_as_long_as_those_of_their_pictures(predictor: Predictor, tmp_path: Path) -> None:
    for name in LONG:
        write_picture(tmp_path / "in" / f"{name}.jpg")
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out") == []
    assert set(output_bytes(tmp_path / "out")) == {f"{name}.png" for name in LONG}


def test_a_name_that_its_suffix_makes_too_long_fails_before_it_is_predicted(predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / f"{'x' * 244}.jpg")
    write_picture(tmp_path / "in" / f"{'x' * 243}.jpg")
    (mistake,) = predict_all(predictor, tmp_path / "in", tmp_path / "out", ["mask", "overlay"])
    found = "the name of its overlay would have 256 bytes; 255 fit"
    assert mistake == f"{tmp_path}/in/{'x' * 244}.jpg: {found} – shorten the picture's name"
    assert set(output_bytes(tmp_path / "out")) == {f"{'x' * 243}.png", f"{'x' * 243}.overlay.jpg"}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
def test_json_has_share_and_mask_of_each_class_that_is_there(predictor: Predictor, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "in" / "deep" / "a.png", (23, 31))
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out", ["json"]) == []
    found, expected = json.loads((tmp_path / "out" / "deep" / "a.json").read_text()), predictor.predict(picture)
    assert (found["picture"], found["height"], found["width"]) == ("../in/deep/a.png", 23, 31)
    ids = np.unique(expected.mask).tolist()
    assert 1 < len(ids)
    assert [(entry["id"], entry["name"]) for entry in found["classes"]] == [(i, CLASSES[i]) for i in ids]
    for entry in found["classes"]:
        mask = expected.mask == entry["id"]
        rle = {"size": entry["rle"]["size"], "counts": entry["rle"]["counts"].encode()}
        assert np.array_equal(coco.decode(rle), mask)
        assert (coco.area(rle), entry["pixels"], entry["share"]) == (mask.sum(), mask.sum(), mask.mean())
    assert found["confidence"] == pytest.approx(float(expected.confidence.mean()))
    assert found["uncertainty"] == pytest.approx(float(expected.uncertainty.mean()))


def test_the_same_prediction_has_the_same_bytes_at_any_time(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "in" / "a.png")
    run_jobs(predictor, tmp_path / "in", tmp_path / "out", ANYWHERE)
    before = output_bytes(tmp_path / "out")
    monkeypatch.setattr(time, "time", lambda: 2e9)
    run_jobs(predictor, tmp_path / "in", tmp_path / "out", ANYWHERE, overwrite=True)
    assert output_bytes(tmp_path / "out") == before


def test_an_overlay_too_long_for_a_jpeg_is_said_and_the_mask_alone_possible(predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "long.png", (1, 65_501))
    write_picture(tmp_path / "in" / "short.png", (1, 65_500))
    (mistake,) = predict_all(predictor, tmp_path / "in", tmp_path / "out", ["mask", "overlay"])
    found = "65,501 pixels long; its overlay may have 65,500"
    assert mistake == f"{tmp_path}/in/long.png: {found} – predict it without overlay"
    assert set(output_bytes(tmp_path / "out")) == {"short.png", "short.overlay.jpg"}
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out") == []
