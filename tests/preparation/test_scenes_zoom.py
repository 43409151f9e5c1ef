"""A larger scene has as many more rows and columns, the same classes, and masks of its own resolution."""

import numpy as np

from segnet.preparation.sample import generate_sample
from segnet.preparation.scenes import render_scene


def test_a_scene_is_as_many_times_larger_and_not_an_enlarged_one():
    small, large = render_scene(3, 1)[1], render_scene(3, 1, zoom=2)
    assert large[0].shape == (2 * small.shape[0], 2 * small.shape[1], 3)
    assert large[1].shape == (2 * small.shape[0], 2 * small.shape[1])
    assert len(set(np.unique(large[1])) - {0, 255}) >= 2
    assert (large[1][::2, ::2] != large[1][1::2, 1::2]).any()


def test_another_zoom_begins_the_set_anew(tmp_path):
    generate_sample(tmp_path, count=5)
    first = sorted(path.stat().st_mtime_ns for path in tmp_path.glob("JPEGImages/*"))
    generate_sample(tmp_path, count=5, zoom=1)
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.glob("JPEGImages/*")) == first
    generate_sample(tmp_path, count=5, zoom=2)
    assert min(path.stat().st_mtime_ns for path in tmp_path.glob("JPEGImages/*")) > max(first)
