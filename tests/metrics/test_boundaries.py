"""Boundary F1 and boundary IoU against every pair of pixels, scipy's distances and erosion, and cases done by hand."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from segnet.metrics.boundary_f1 import boundary_f1, contour_matches
from segnet.metrics.boundary_iou import band_overlaps
from segnet.metrics.confusion import mean_of_present
from segnet.tasks.segmentation_score import boundary_scores

CASES = 500
VOID = 255


def random_masks(number: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Truth, prediction, number of classes: small pictures, and strips so long that the tolerance reaches some pixels."""
    dice = np.random.default_rng(number)
    size = dice.integers(1, 13, 2) if number % 2 else (dice.integers(1, 5), dice.integers(130, 420))
    classes = int(dice.choice([1, 2, 3, 11, 40]))
    present = dice.choice(classes, dice.integers(1, min(classes, 4) + 1), replace=False)
    block = int(dice.integers(1, 5))
    cells = [-(-int(side) // block) for side in size]

    def blocks(labels: np.ndarray) -> np.ndarray:
        return np.kron(dice.choice(labels, cells), np.ones((block, block), dtype=int))[: size[0], : size[1]].astype(np.uint8)

    truth = blocks(np.append(present, VOID) if number % 3 else present)
    prediction = np.where((dice.random(size) < 0.7) & (truth != VOID), truth, blocks(present)).astype(np.uint8)
    return (np.full_like(truth, VOID) if dice.random() < 0.05 else truth), prediction, classes


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M, 2): how far apart the pixels (N, 2) and (M, 2) are in rows and columns."""
    return np.abs(a[:, None] - b[None])


def contour_pixels(mask: np.ndarray, k: int) -> np.ndarray:
    found = []
    for row, column in np.argwhere(mask == k):
        sides = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        inside = [mask[y, x] for y, x in sides if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]]
        if any(other != k for other in inside):
            found.append((row, column))
    return np.array(found, dtype=int).reshape(-1, 2)


def near(a: np.ndarray, b: np.ndarray, size: tuple[int, ...]) -> int:
    """How many of the pixels a have one of b closer than 0.75 % of the diagonal."""
    squares = (distances(a, b) ** 2).sum(2)
    return int((squares * 160_000 < 9 * (size[0] ** 2 + size[1] ** 2)).any(1).sum())


def band_pixels(mask: np.ndarray, k: int) -> set[tuple[int, int]]:
    framed = np.pad(mask.astype(int), 1, constant_values=-1)
    own = np.argwhere(framed == k)
    others = np.argwhere(framed != k)
    reach = max(1, round(0.02 * math.hypot(*mask.shape)))
    return set(map(tuple, own[(distances(own, others).max(2) <= reach).any(1)])) if len(own) else set()


def tensors(*masks: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(mask)) for mask in masks]


@pytest.mark.parametrize("block", range(5))
def test_counts_equal_those_over_all_pairs_of_pixels(block):
    for number in range(block * CASES // 5, (block + 1) * CASES // 5):
        truth, prediction, classes = random_masks(number)
        matches = contour_matches(*tensors(truth, prediction), classes).tolist()
        overlaps = band_overlaps(*tensors(truth, prediction), classes).tolist()
        scored = np.where(truth == VOID, VOID, prediction)
        f1 = []
        for k in range(classes):
            true, predicted = contour_pixels(truth, k), contour_pixels(scored, k)
            found, confirmed = near(true, predicted, truth.shape), near(predicted, true, truth.shape)
            assert matches[k] == [len(true), found, len(predicted), confirmed], (number, k)
            bands = band_pixels(truth, k), band_pixels(scored, k)
            assert overlaps[k] == [len(bands[0] & bands[1]), len(bands[0] | bands[1])], (number, k)
            if (truth == k).any() and (len(true) or len(predicted)):
                precision = Fraction(confirmed, len(predicted)) if len(predicted) else Fraction()
                recall = Fraction(found, len(true)) if len(true) else Fraction()
                f1.append(2 * precision * recall / (precision + recall) if precision + recall else Fraction())
        in_truth = [int((truth == k).sum()) for k in range(classes)]
        score = boundary_f1(contour_matches(*tensors(truth, prediction), classes), in_truth)
        assert math.isnan(score) if not f1 else abs(Fraction(score) - sum(f1) / len(f1)) < Fraction(1, 10**12), number


@pytest.mark.parametrize("size", [(360, 480), (333, 437), (500, 375)])  # 2 % of the diagonal: 12.0, 10.99, 12.5
def test_counts_equal_those_of_scipy(size):
    """Distance transforms for the contours, and for the bands the erosion in a frame that the authors' program does."""
    dice = np.random.default_rng(size[0])
    smooth = [ndimage.gaussian_filter(dice.random((3, *size)), (0, 20, 20)) for _ in range(2)]
    truth = smooth[0].argmax(0).astype(np.uint8)
    prediction = (smooth[0] + 0.7 * smooth[1]).argmax(0).astype(np.uint8)
    matches = contour_matches(*tensors(truth, prediction), 3).tolist()
    overlaps = band_overlaps(*tensors(truth, prediction), 3).tolist()
    for k in range(3):
        cross = ndimage.generate_binary_structure(2, 1)
        contours = [(mask == k) & ~ndimage.binary_erosion(mask == k, cross, border_value=1) for mask in (truth, prediction)]
        close = [ndimage.distance_transform_edt(~contour) < 0.0075 * math.hypot(*size) for contour in contours]
        expected = [contours[0].sum(), (contours[0] & close[1]).sum(), contours[1].sum(), (contours[1] & close[0]).sum()]
        assert matches[k] == expected
        assert matches[k][1] < matches[k][0]
        square, steps = np.ones((3, 3)), round(0.02 * math.hypot(*size))
        bands = [(m == k) & ~ndimage.binary_erosion(m == k, square, steps, border_value=0) for m in (truth, prediction)]
        assert overlaps[k] == [(bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()]
        assert bands[0].sum() < (truth == k).sum()


def two_halves(column: int, size: tuple[int, int] = (100, 400)) -> Tensor:
    """Class 1 from `column` on, class 0 before it."""
    mask = torch.zeros(size, dtype=torch.uint8)
    mask[:, column:] = 1
    return mask


@pytest.mark.parametrize(("shift", "score"), [(0, 1.0), (3, 1.0), (4, 0.0)])
def test_a_shift_below_the_tolerance_is_forgiven(shift, score):
    """Three pixels are 3.0 of a diagonal of 412.3, whose 0.75 % is 3.09."""
    matches = contour_matches(two_halves(200), two_halves(200 + shift), 2)
    assert boundary_f1(matches, [100, 100]) == score


def test_the_edge_of_the_picture_is_contour_for_boundary_iou_alone():
    alone = torch.zeros(50, 50, dtype=torch.uint8)
    assert contour_matches(alone, alone, 1).tolist() == [[0, 0, 0, 0]]
    assert band_overlaps(alone, alone, 1).tolist() == [[196, 196]]  # d = 1: the outermost pixels


def test_a_class_ends_at_void_in_truth_and_prediction_alike():
    """As every object of Pascal VOC does."""
    truth = two_halves(200)
    truth[:, 180:220] = VOID
    matches, overlaps = contour_matches(truth, two_halves(200), 2), band_overlaps(truth, two_halves(200), 2)
    assert matches.tolist() == [[100, 100, 100, 100]] * 2  # the column beside the void
    assert boundary_f1(matches, [1, 1]) == 1
    frame = 100 * 180 - 84 * (180 - 16)  # d = 8: three edges of the picture, and the void's
    assert overlaps.tolist() == [[frame, frame]] * 2
    elsewhere = two_halves(200)
    elsewhere[:, 190:210] = 2  # whatever is predicted inside the void
    assert torch.equal(contour_matches(truth, elsewhere, 2), matches)
    assert torch.equal(band_overlaps(truth, elsewhere, 2), overlaps)
    missed = contour_matches(truth, torch.zeros_like(truth), 2)
    assert missed.tolist() == [[100, 100, 200, 100], [100, 0, 0, 0]]
    assert boundary_f1(missed, [1, 1]) == (2 / 3 + 0) / 2


def test_a_class_that_only_the_prediction_has_is_not_in_the_mean_of_f1_but_of_iou():
    truth, prediction = two_halves(200), two_halves(200)
    prediction[40:60, 20:40] = 2
    matches, overlaps = contour_matches(truth, prediction, 4), band_overlaps(truth, prediction, 4)
    assert matches[2, 2] > 0
    in_truth = [20_000, 20_000, 0, 0]
    assert boundary_f1(matches, in_truth) == mean_of_present([boundary_f1(matches[:1], [1]), 1.0])
    scores = boundary_scores([0.5, math.nan, 1.0], overlaps)
    assert scores.f1 == 0.75
    assert scores.class_iou[2] == 0
    assert math.isnan(scores.class_iou[3])
    assert scores.iou == mean_of_present(scores.class_iou[:3])
