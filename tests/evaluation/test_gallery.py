"""Which pictures a report shows, what their layers show, and how large they are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import Page, evaluation_of_pictures, layers_of, picture_score, report_pictures, write_page

from segnet.classes import ClassSet
from segnet.evaluation import gallery
from segnet.evaluation.gallery import ReportPicture, worst_and_best, worst_of_class, worst_of_classes
from segnet.evaluation.report import short_count, write_report
from segnet.tasks.segmentation_score import PictureScore
from segnet.visualization import WRONG, cut_out, error_map, overlay, to_array, uncertainty_map


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


def test_the_worst_of_a_class_has_the_most_wrong_pixels_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = {"a": (5, 0, 9), "b": (9, 0, 9), "c": (2, 0, 8)}
    scores = [PictureScore(name, (1, 1, 1), tuple(1 + n for n in wrong), (1, 1, 1), 0, 0.5) for name, wrong in pixels.items()]
    assert [picture.id for picture in worst_of_classes(scores, 3)] == ["b", "a"]
    assert [picture.id for picture in worst_of_class(scores, 0, 2)] == ["b", "a"]
    assert worst_of_class(scores, 1, 2) == []
    monkeypatch.setattr(gallery, "MOST_CLASSES", 2)
    assert worst_of_classes(scores, 3) == []


def test_pictures_of_classes_have_a_list_of_their_own_and_links_to_them(tmp_path: Path, tiny_classes: ClassSet) -> None:
    pictures = report_pictures([f"p{number}" for number in range(6)], tiny_classes)
    shown = [pictures[number] for number in (5, 0, 3)]
    path, evaluation = tmp_path / "report.html", evaluation_of_pictures(pictures, tiny_classes)
    write_report(path, evaluation, shown, tiny_classes, title="t", facts={}, curves=None, of_classes={"p3"})
    text = path.read_text()
    assert re.findall("<h3>(.*)</h3>|<li id=\"(.*?)\">", text) == [
        ("Worst", ""), ("", "picture-0"), ("Best", ""), ("", "picture-1"), ("Worst of a class", ""), ("", "picture-2"),
    ]  # fmt: skip
    links = re.findall('href="#(picture-.)" data-shows="(.*?)" title="(p.): ([0-9,]+) wrong pixels of box', text)
    assert [link[:2] for link in links] == [(f"picture-{place}",) * 2 for place in (0, 2, 1)]
    assert [(link[2], int(link[3])) for link in links] == [(f"p{n}", pictures[n].score.wrong(1)) for n in (5, 3, 0)]


@pytest.mark.parametrize(
    ("number", "text"),
    [(7, "7"), (999, "999"), (1000, "1.0k"), (9_960, "10k"), (64_400, "64k"), (999_999, "999k"), (2_500_000, "2.5M")],
)
def test_counts_are_short(number: int, text: str) -> None:
    assert short_count(number) == text


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
    assert list(shown) == ["picture", "truth", "prediction", "overlay", "error", "uncertainty"]
    assert np.array_equal(shown["truth"], cut_out(picture.truth, tiny_classes))
    assert np.array_equal(shown["prediction"], cut_out(picture.mask, tiny_classes))
    assert np.array_equal(shown["error"], error_map(picture.truth, picture.mask, tiny_classes))
    over = overlay(picture.image, picture.mask, tiny_classes)
    assert np.abs(shown["overlay"][..., :3].astype(int) - over).mean() < 60
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
