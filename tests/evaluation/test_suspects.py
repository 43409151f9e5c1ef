"""A label error that a confident network contradicts is found; what the network is unsure of is not."""

import csv
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from segnet.data.dataset import Sample
from segnet.evaluation import suspects as module
from segnet.evaluation.suspects import SuspectCounts, regions_of_disagreement, save_suspects
from segnet.tasks.segmentation import ClassProbabilities
from segnet.tasks.segmentation_score import ConfusionCounts

NAMES = ("ground", "box", "disc")


def picture(*, sure: float = 0.95, size: tuple[int, int] = (40, 60)) -> tuple[torch.Tensor, torch.Tensor]:
    """(H, W) truth and (3, H, W) probabilities that fit it, but for a rectangle of 10 × 20 pixels at (5, 30), which is labelled 0
    and predicted as 2 with a probability of `sure`."""
    truth = torch.zeros(size, dtype=torch.uint8)
    truth[20:, :30] = 1
    truth[20:, 30:] = 2
    truth[0] = 255
    probabilities = torch.full((3, *size), 0.1)
    probabilities.scatter_(0, truth.where(truth != 255, 0).long()[None], 0.8)
    probabilities[:, 5:15, 30:50] = (1 - sure) / 2
    probabilities[2, 5:15, 30:50] = sure
    return truth, probabilities


def count(*pictures: tuple[torch.Tensor, torch.Tensor], shown: int = 4, regions: int = 1) -> SuspectCounts:
    """The counts of pictures "a", "b", …, whose probabilities come in so many bands of rows."""
    counts = SuspectCounts(ConfusionCounts(3), 3, temperature=1.0, shown=shown)
    for name, (truth, probabilities) in zip("abcdefgh", pictures, strict=False):
        batch = Sample(torch.zeros(1, 3, *truth.shape, dtype=torch.uint8), truth[None], (name,))
        watch = counts.watch(batch)
        edges = np.linspace(0, len(truth), regions + 1).astype(int)
        for top, bottom in pairwise(edges):
            watch(slice(top, bottom), slice(0, truth.shape[1]), probabilities[None, :, top:bottom])
        counts.add(batch, ClassProbabilities().finish(probabilities[None], None, keep_mean=False))
    return counts


def test_the_region_is_found_with_its_box_classes_and_probability():
    (suspect,) = count(picture()).suspects()
    assert (suspect.picture, *suspect[2:9]) == ("a", 30, 5, 20, 10, 200, 0, 2)
    assert suspect.probability == pytest.approx(0.95)
    assert suspect.rank == pytest.approx(1 - 0.025)


def test_a_region_below_the_average_confidence_of_its_class_is_not_suspect():
    """The average of class 2 is 0.8: the probability where it is labelled."""
    assert count(picture(sure=0.79)).suspects() == []
    assert len(count(picture(sure=0.81)).suspects()) == 1
    counts = count(picture(sure=0.81), picture(sure=0.7))
    assert [suspect.picture for suspect in counts.suspects()] == ["a"]
    assert counts.averages()[2] == pytest.approx(0.8, abs=1e-5)


def test_the_average_is_that_of_the_whole_split_in_any_parts():
    pictures = [picture(), picture(sure=0.5), picture()]
    expected = [[0.0, 0] for _ in NAMES]
    for truth, probabilities in pictures:
        for row, column in np.ndindex(*truth.shape):
            label = int(truth[row, column])
            if label != 255:
                expected[label][0] += float(probabilities[label, row, column])
                expected[label][1] += 1
    averages = [total / number for total, number in expected]
    for regions in (1, 4):
        assert count(*pictures, regions=regions).averages() == pytest.approx(averages, abs=1e-5)


def test_nothing_is_suspected_of_a_class_without_labels():
    truth, probabilities = picture()
    truth[truth == 2] = 255
    counts = count((truth, probabilities))
    assert math.isnan(counts.averages()[2])
    assert counts.suspects() == []


def test_regions_are_those_of_one_label_and_one_prediction(monkeypatch):
    monkeypatch.setattr(module, "LEAST_PIXELS", 2)
    rng = np.random.default_rng(0)
    truth, mask = rng.integers(0, 3, (2, 12, 15), dtype=np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    confidence, of_label = rng.random((2, *truth.shape), dtype=np.float32)
    seen, expected = np.zeros(truth.shape, bool), set()
    for start in np.ndindex(*truth.shape):
        if seen[start] or truth[start] in (255, mask[start]):
            continue
        pair, todo, region = (truth[start], mask[start]), [start], []
        while todo:
            row, column = place = todo.pop()
            inside = 0 <= row < truth.shape[0] and 0 <= column < truth.shape[1]
            if not inside or seen[place] or (truth[place], mask[place]) != pair:
                continue
            seen[place] = True
            region.append(place)
            todo += [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        rows, columns = zip(*region, strict=True)
        if len(region) >= 2:
            box = (min(columns), min(rows), max(columns) - min(columns) + 1, max(rows) - min(rows) + 1)
            means = [round(float(np.mean([values[place] for place in region])), 4) for values in (confidence, of_label)]
            expected.add((*box, len(region), *map(int, pair), *means))
    found = list(regions_of_disagreement("a", truth, mask, confidence, of_label))
    assert {(*one[2:9], round(one.probability, 4), round(1 - one.rank, 4)) for one in found} == expected
    assert len(found) == len(expected) > 10


def test_memory_keeps_the_highest_ranks_and_a_few_crops(monkeypatch):
    monkeypatch.setattr(module, "MOST_REGIONS", 3)
    counts = count(*(picture(sure=0.9 + number / 100) for number in range(8)), shown=1)
    assert [suspect.picture for suspect in counts.suspects()] == ["h", "g", "f"]
    assert len(counts.found) == 3
    assert len(counts.with_crop) == 4
    assert "of the first 3" in counts.summary()
    counts.sum_over_ranks()
    assert [suspect.picture for suspect in counts.suspects()] == ["h", "g", "f"]


@pytest.mark.parametrize("longest", [256, 16])
def test_a_crop_is_the_same_part_of_picture_and_prediction(monkeypatch, longest):
    monkeypatch.setattr(module, "_LONGEST", longest)
    truth, probabilities = picture()
    ((suspect, crop),) = count((truth, probabilities)).crops(5)
    rows, columns = crop.window
    assert torch.equal(torch.tensor(crop.mask), probabilities.argmax(0)[rows, columns].byte())
    assert max(crop.mask.shape) <= longest
    inside = (truth[rows, columns] == suspect.label) & (torch.tensor(crop.mask) == suspect.predicted)
    assert int(inside.sum()) * crop.every**2 == pytest.approx(suspect.pixels, rel=0.5)


def test_the_file_has_a_row_for_each_region(tmp_path):
    path = save_suspects(tmp_path, count(picture(), picture(sure=0.99)), NAMES)
    rows = list(csv.DictReader(path.open()))
    assert [row["picture"] for row in rows] == ["b", "a"]
    assert rows[0]["label"] == "ground"
    assert rows[0]["predicted"] == "disc"
    assert (rows[0]["left"], rows[0]["top"], rows[0]["width"], rows[0]["height"], rows[0]["pixels"]) == (
        "30",
        "5",
        "20",
        "10",
        "200",
    )
    assert (rows[0]["mean_probability"], rows[0]["class_average"]) == ("0.9900", "0.8000")
    assert rows[0]["label_probability"] == "0.0050"
