"""The section with suspect labels shows each with its crops, and whatever classes and pictures are called."""

import re

import pytest
import torch
from evaluations import HOSTILE, Page, report_pictures, write_page
from helpers import write_pair, write_split

from segnet.classes import class_set
from segnet.data.dataset import SegmentationDataset
from segnet.evaluation.suspect_gallery import suspect_figures, suspect_section
from segnet.evaluation.suspects import Crop, Suspect


@pytest.fixture
def dataset(tmp_path):
    classes = class_set(("ground", "<b>box</b>", "disc"))
    truth = torch.zeros(40, 50, dtype=torch.uint8).numpy()
    truth[10:20, 10:30] = 1
    write_pair(tmp_path / "data", "a&b", truth, classes)
    write_split(tmp_path / "data", "val", ["a&b"])
    return SegmentationDataset(tmp_path / "data", "val", classes)


def suspect_of(dataset: SegmentationDataset) -> tuple[Suspect, Crop]:
    mask = torch.full((24, 40), 2, dtype=torch.uint8).numpy()
    return Suspect(0.98, "a&b", 10, 10, 20, 10, 200, 1, 2, 0.97), Crop(4, 6, 1, mask)


def test_a_figure_has_three_crops_and_says_what_they_are(dataset, tmp_path, tiny_classes):
    section = suspect_section(1, suspect_figures([suspect_of(dataset)], dataset))
    pictures = report_pictures(["x"], tiny_classes)
    page = Page(write_page(tmp_path / "page", pictures, tiny_classes, suspects=section))
    crops = [image for image in page.all("img") if "data-layer" not in image and image["alt"]]
    assert [image["alt"] for image in crops] == ["Part of a&b", "Labelled <b>box</b>", "Predicted disc"]
    assert len({image["src"] for image in crops}) == 3
    assert "<b>box</b> or disc? 97.0\u202f%" in page.text
    assert "200 pixels, 20 × 10 at x 10, y 10" in page.text
    assert any(link.get("href") == "#suspects" for link in page.all("a"))


def test_without_a_suspect_the_section_says_so_and_without_the_option_there_is_none(tmp_path, tiny_classes):
    pictures = report_pictures([HOSTILE], tiny_classes)
    none = Page(write_page(tmp_path / "none", pictures, tiny_classes, suspects=suspect_section(0, [])))
    assert re.search(r"0 connected regions", none.text)
    assert "suspects.csv" not in none.text
    assert "Suspect labels" not in Page(write_page(tmp_path / "off", pictures, tiny_classes)).text
