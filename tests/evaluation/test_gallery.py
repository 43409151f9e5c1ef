"""Which pictures a report shows, what their layers show, and how large they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import Page, evaluation_of_pictures, layers_of, picture_score, report_pictures, write_page

from segnet.classes import ClassSet
from segnet.evaluation.gallery import ReportPicture, worst_and_best
from segnet.evaluation.report import write_report
from segnet.tasks.segmentation_score import PictureScore
from segnet.visualization import WRONG, cut_out, error_map, to_array, uncertainty_map


def _with_miou(name: str, right: int) -> PictureScore:
    return PictureScore(name, (right,), (10 * bool(right),), (10 * bool(right),), 0, 0.5)  # 0: no pixel scored


def test_the_worst_and_the_best_are_chosen_worst_first() -> None:
    scores = [_with_miou(str(right), right) for right in (5, 9, 1, 3, 7, 0)]
    assert [picture.id for picture in worst_and_best(scores, 4)] == ["1", "3", "7", "9"]
    assert [picture.id for picture in worst_and_best(scores, 3)] == ["1", "3", "9"]
    assert [picture.id for picture in worst_and_best(scores, 1)] == ["1"]
    assert worst_and_best(scores, 0) == []


def test_pictures_without_a_score_come_last_and_only_when_there_is_room() -> None:
    scores = [_with_miou(str(right), right) for right in (0, 5, 1)]
    assert [picture.id for picture in worst_and_best(scores, 2)] == ["1", "5"]
    assert [picture.id for picture in worst_and_best(scores, 9)] == ["1", "5", "0"]


def test_a_page_without_pictures_has_no_viewer(tmp_path: Path, tiny_classes: ClassSet) -> None:
    evaluation, path = (
        evaluation_of_pictures(report_pictures(["a"], tiny_classes), tiny_classes),
        tmp_path / "new" / "report.html",
    )
    write_report(path, evaluation, iter([]), tiny_classes, title="none", facts={}, curves=None)
    assert "viewer" not in [attributes.get("id") for attributes in Page(path).all("div")]
    assert 'href="#pictures"' not in path.read_text()


def test_every_layer_shows_what_it_says(tmp_path: Path, tiny_classes: ClassSet) -> None:
    [picture] = report_pictures(["a"], tiny_classes)
    picture.mask[5, 20:30] = 2
    shown = layers_of(Page(write_page(tmp_path, [picture], tiny_classes)))
    assert list(shown) == ["picture", "truth", "prediction", "error", "uncertainty"]
    assert np.array_equal(shown["truth"], cut_out(picture.truth, tiny_classes))
    assert np.array_equal(shown["prediction"], cut_out(picture.mask, tiny_classes))
    assert np.array_equal(shown["error"], error_map(picture.truth, picture.mask, tiny_classes))
    noise = np.abs(shown["picture"][..., :3].astype(int) - to_array(picture.image)).mean()
    assert noise < 60  # of 85 for another noise
    assert np.abs(shown["uncertainty"][..., :3].astype(int) - uncertainty_map(picture.uncertainty)).mean() < 60


def test_a_large_picture_is_reduced_without_new_class_colours(tmp_path: Path, tiny_classes: ClassSet) -> None:
    [picture] = report_pictures(["a"], tiny_classes, size=(660, 1100))
    picture.mask[100:300] = 2
    page = Page(write_page(tmp_path, [picture], tiny_classes))
    shown = layers_of(page)
    sizes = {layer.shape[:2] for layer in shown.values()}
    assert len(sizes) == 1
    height, width = sizes.pop()
    assert width < 1024
    assert abs(height / width - 0.6) < 0.01
    for layer, ids in (("truth", picture.truth), ("prediction", picture.mask)):
        whole = cut_out(ids, tiny_classes)
        assert {tuple(color) for color in shown[layer].reshape(-1, 4)} <= {tuple(color) for color in whole.reshape(-1, 4)}
        assert np.abs(shown[layer].mean(axis=(0, 1)) - whole.mean(axis=(0, 1))).max() < 1
    wrong = (shown["error"][..., 0] == WRONG[0]).mean()
    assert abs(wrong - (picture.truth != picture.mask).float().mean().item()) < 0.01
    assert {picture.get("width") for picture in page.all("img") if picture.get("data-layer")} == {"1100"}


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_any_size_can_be_shown(tmp_path: Path, tiny_classes: ClassSet, size: tuple[int, int]) -> None:
    ones = torch.ones(size, dtype=torch.uint8)
    picture = ReportPicture(picture_score("a", ones, ones, tiny_classes), torch.stack([ones] * 3), ones, ones, ones.float())
    assert {layer.shape[:2] for layer in layers_of(Page(write_page(tmp_path, [picture], tiny_classes))).values()} == {size}
