"""From a mask to shapes and back."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import refused
from masks import random_masks

from segnet.classes import class_set
from segnet.regions import shapes
from segnet.regions.shapes import shapes_to_mask, trace_shapes
from segnet.system.errors import ExitCode

CLASSES = class_set(("background", "leaf", "stem", "spot"))


def test_shapes_give_the_mask_again_and_the_background_has_none() -> None:
    for mask in random_masks(60):
        found = trace_shapes("a.jpg", mask, np.ones(mask.shape, np.float32), CLASSES)
        assert np.array_equal(shapes_to_mask(found, 0), mask)
        assert 0 not in [shape.class_id for shape in found.shapes]
        assert sum(shape.pixels for shape in found.shapes) == (mask != 0).sum()


def test_a_shape_has_its_own_mean_probability() -> None:
    mask = np.array([[1, 1, 0, 2], [1, 0, 0, 2]], dtype=np.uint8)
    confidence = np.array([[0.25, 0.5, 1, 0.5], [0.75, 1, 1, 1]], dtype=np.float32)
    leaf, stem = trace_shapes("a.jpg", mask, confidence, CLASSES).shapes
    assert (leaf.class_id, leaf.pixels, leaf.probability) == (1, 3, 0.5)
    assert (stem.class_id, stem.pixels, stem.probability) == (2, 2, 0.75)


def test_what_simplification_costs_is_known() -> None:
    y, x = np.mgrid[:60, :60]
    mask = ((y - 30) ** 2 + (x - 30) ** 2 < 500).astype(np.uint8)
    found = trace_shapes("a.jpg", mask, np.ones(mask.shape, np.float32), CLASSES, tolerance=1.5)
    again = shapes_to_mask(found, 0)
    assert found.kept is not None
    assert found.kept == ((mask & again).sum(), (mask | again).sum())
    assert 0.9 < found.kept.iou < 1
    assert found.shapes[0].pixels == mask.sum()
    empty = trace_shapes("a.jpg", np.zeros((3, 3), np.uint8), np.ones((3, 3), np.float32), CLASSES, tolerance=1.0)
    assert empty.kept is not None
    assert empty.kept.iou == pytest.approx(1)


def test_a_mask_of_noise_is_refused_before_it_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions called background do not count."""
    monkeypatch.setattr(shapes, "MOST_SHAPES", 8)
    mask = np.indices((4, 4)).sum(axis=0).astype(np.uint8) % 2 + 1
    plain = class_set(("background", "background", "leaf"))
    assert len(trace_shapes("a.jpg", mask, np.ones(mask.shape, np.float32), plain).shapes) == 8
    with refused(ExitCode.DATA, "a.jpg: its mask has 16 regions", "at most 8", "inference.min_region=16"):
        trace_shapes("a.jpg", mask, np.ones(mask.shape, np.float32), class_set(("background", "stem", "leaf")))
