"""Facts of datasets that were never read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from segnet.config.sections import DataConfig
from segnet.planning.survey import ClassFacts, PictureFacts, Survey


@pytest.fixture
def facts() -> Callable[..., Survey]:
    """The survey of 100 training and 20 val pictures of `size` (height, width); `classes` is (pixels, pictures, narrow, middle)
    by the name of the class."""

    def make(
        size: tuple[int, int] = (375, 500),
        *,
        sizes: tuple[tuple[int, int], ...] = (),
        pictures: tuple[int, int, bool, bool] = (20, 3, False, False),
        **classes: tuple[float, ...],
    ) -> Survey:
        heights, widths = zip(*(sizes or (size,) * 100), strict=True)
        known = classes or {"soil": (1000, 100, 90, 200), "crop": (900, 100, 20, 60)}
        rows = tuple(ClassFacts(name, int(row[0]), int(row[1]), *row[2:]) for name, row in known.items())
        data = DataConfig(root="data/field", classes=tuple(known), workers=0)
        return Survey(data, 100, 20, heights, widths, rows, 100, PictureFacts(*pictures))

    return make
