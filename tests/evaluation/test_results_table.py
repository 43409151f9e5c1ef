"""The table of an evaluation fits into a terminal of 80 columns."""

import torch

from segnet.classes import class_set
from segnet.evaluation.results import evaluation_table
from segnet.metrics.calibration import BINS, reliability
from segnet.metrics.confusion import ConfusionMatrix
from segnet.tasks.segmentation_score import BoundaryScores, Evaluation, PictureScore


def test_no_line_is_longer_than_79_characters():
    truth = torch.randint(0, 3, (100, 100), generator=torch.Generator().manual_seed(0))
    scores = ConfusionMatrix(3).update(truth, truth.roll(1)).scores()
    boundary = BoundaryScores(0.5, 0.5, (0.5, 0.5, 0.5))
    picture = PictureScore("a", (3, 3, 3), (4, 4, 4), (5, 4, 3), 0, 0.5)
    found = Evaluation(scores, boundary, reliability(torch.zeros(BINS, 3, dtype=torch.int64)), (picture,))
    lines = evaluation_table(found, class_set(("background", "pedestrian", "bicyclist"))).splitlines()
    assert max(map(len, lines)) <= 79
    assert [line.startswith("mIoU") for line in lines].count(True) == 1
    assert lines[-2].endswith("(10,000 pixels, 0 ignored)")
