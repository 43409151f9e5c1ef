"""The report says every score, in one file that loads nothing and is not too large."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import Page, evaluation_of_pictures, picture_score, report_pictures, write_page

from segnet.classes import SAMPLE, ClassSet
from segnet.evaluation import gallery
from segnet.evaluation.gallery import ReportPicture
from segnet.evaluation.report import write_report
from segnet.preparation import scenes


def test_the_page_says_every_score(tmp_path: Path, tiny_classes: ClassSet) -> None:
    pictures = report_pictures(["a", "b", "c"], tiny_classes)
    text, scores = Page(write_page(tmp_path, pictures, tiny_classes)).text, evaluation_of_pictures(pictures, tiny_classes).scores
    shares = (
        scores.miou,
        scores.global_accuracy,
        scores.mean_accuracy,
        scores.frequency_weighted_iou,
        scores.mean_dice,
        0.125,
        0.5,
    )
    for share in (*shares, 0.125, 0.5):
        assert f"{100 * share:.1f}\u202f%" in text
    assert f"{scores.pixels:,}" in text
    assert "96" in text  # ignored: three rows of 32
    for count in {count for row in scores.confusion for count in row} - {0}:
        assert f"{count:,}" in text
    for picture in pictures:
        assert f"mIoU {100 * picture.score.miou:.1f}\u202f%" in text
    assert "rank 1 of 3 from the worst" in text


def test_an_absent_class_is_a_dash_with_its_rule(tmp_path: Path, tiny_classes: ClassSet) -> None:
    page = write_page(tmp_path, report_pictures(["a"], tiny_classes), tiny_classes).read_text()
    row = next(line for line in page.splitlines() if "disc</bdi>" in line and "meter" in line)
    assert re.sub("<[^>]*>", " ", row).split() == ["disc", "–", "–", "–", "–", "–", "0.0", "–"]
    assert "is absent and not part of a mean" in page


def test_curves_are_read_past_rows_of_other_kinds(tmp_path: Path, tiny_classes: ClassSet) -> None:
    page = Page(write_page(tmp_path, report_pictures(["a"], tiny_classes), tiny_classes))
    assert "From 2.5 at step 10 to 1.5 at step 30." in page.text
    assert "Highest 50.0\u202f% at step 40, last 50.0\u202f%." in page.text
    assert len(page.all("svg")) == 3
    assert all(attributes["role"] == "img" for attributes in page.all("svg"))


@pytest.mark.parametrize("curves", [None, "", "step,epoch\n1,2\n", "step,loss,val_miou\n1,nan,\n", "\0\n\0"])
def test_without_a_log_there_are_no_curves(tmp_path: Path, tiny_classes: ClassSet, curves: str | None) -> None:
    page = Page(write_page(tmp_path, report_pictures(["a"], tiny_classes), tiny_classes, curves))
    assert "Learning curves" not in page.text
    assert len(page.all("svg")) == 1


def test_no_truth_at_all_gives_dashes(tmp_path: Path, tiny_classes: ClassSet) -> None:
    [picture] = report_pictures(["a"], tiny_classes)
    truth = torch.full_like(picture.truth, 255)
    picture = picture._replace(truth=truth, score=picture_score("a", truth, picture.mask, tiny_classes))
    picture.uncertainty[0, 0] = math.nan
    text = Page(write_page(tmp_path, [picture], tiny_classes)).text
    assert "nan" not in text.lower()
    assert "mIoU –" in text
    assert "No pixel is scored." in text


def test_everything_is_in_the_one_file(tmp_path: Path, tiny_classes: ClassSet) -> None:
    path = write_page(tmp_path, report_pictures(["a", "b"], tiny_classes), tiny_classes)
    page = Page(path)
    loaded = [attributes.get(key) or "#" for _, attributes in page.tags for key in ("src", "href", "srcset", "data")]
    assert [source[:40] for source in loaded if not source.startswith(("data:", "#"))] == []
    assert not re.search(r"https?://|url\(|@import|@font-face", path.read_text())
    assert [picture["alt"] for picture in page.all("img") if picture["alt"] is None] == []


def _realistic(count: int, monkeypatch: pytest.MonkeyPatch) -> list[ReportPicture]:
    """Scenes of 360×480 with sensor noise, predictions with ragged outlines, and an uncertainty that surrounds these."""
    monkeypatch.setattr(scenes, "SIZE", (360, 480))
    monkeypatch.setattr(scenes, "OTHER_SIZES", ((360, 480),))
    (first, first_mask), made = scenes.render_scene(0, 0), []
    for index in range(count):
        rng = np.random.default_rng(index)
        image, mask = (np.roll(whole, 37 * index, axis=1) for whole in (first, first_mask))
        image = (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)
        rows, columns = np.indices(mask.shape)
        wave = [(6 * np.sin(rng.random() + (rows + columns) / size)).astype(int) for size in (5, 9)]
        prediction = mask[(rows + wave[0]) % 360, (columns + wave[1]) % 480]
        prediction = torch.from_numpy(np.where(prediction == 255, 0, prediction))
        truth = torch.from_numpy(mask)
        uncertainty = torch.from_numpy(rng.random(mask.shape, dtype=np.float32)) * 0.1 + 0.5 * (truth != prediction)
        score = picture_score(f"scene {index:05}", truth, prediction, SAMPLE)
        made.append(ReportPicture(score, torch.from_numpy(image).permute(2, 0, 1), truth, prediction, uncertainty))
    return made


def test_two_hundred_pictures_are_less_than_ten_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, encode = _realistic(4, monkeypatch), gallery._layers
    once = cache(lambda index, room: encode(few[index], SAMPLE, room))  # two hundred are shown, four are encoded
    monkeypatch.setattr(gallery, "_layers", lambda picture, _, room: once(int(picture.score.id.split()[1]) % 4, room))
    pictures = [few[index % 4]._replace(score=few[index % 4].score._replace(id=f"scene {index:05}")) for index in range(200)]
    path = write_page(tmp_path, pictures, SAMPLE)
    assert 5_000_000 < path.stat().st_size < 10_000_000
    assert path.read_text().count("<img ") == 6 * 200 + 4
    evaluation = evaluation_of_pictures(few, SAMPLE)
    many = tuple(few[0].score._replace(id=f"one of very many {index}") for index in range(20_000))
    write_report(path, evaluation._replace(pictures=many), pictures, SAMPLE, title="long", facts={}, curves=None)
    assert 5_000_000 < path.stat().st_size < 10_000_000  # a long table leaves less room to the pictures
    one_by_one = tmp_path / "iterator.html"  # the number is not known before: each has a two-hundredth of the room
    write_report(
        one_by_one, evaluation_of_pictures(few, SAMPLE), (picture for picture in few), SAMPLE, title="few", facts={}, curves=None
    )
    assert one_by_one.stat().st_size < 10_000_000 * 4 / 200 + 50_000
