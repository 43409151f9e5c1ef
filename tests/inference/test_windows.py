"""Windows cover a picture, their regions are finished once, and what windows agree on is what comes out."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from segnet.inference.windows import Windows, blend_windows, plan_windows


@st.composite
def windows(draw) -> Windows:
    size = draw(st.integers(3, 40))
    overlap = draw(st.integers(0, size // 2))
    return Windows(size, overlap, margin=draw(st.integers(0, max(0, (overlap - 1) // 2))))


@given(windows(), st.integers(1, 200))
def test_windows_cover_a_side_and_only_neighbours_overlap(cut, length):
    spans = plan_windows(length, cut)
    assert (spans[0].start, spans[-1].stop) == (0, length)
    assert all(span.stop - span.start == cut.size for span in spans[:-1])
    assert all(a.stop - b.start == cut.overlap for a, b in itertools.pairwise(spans))
    assert all(a.stop <= c.start for a, c in zip(spans, spans[2:], strict=False))


@given(windows(), st.integers(1, 60), st.integers(1, 60))
def test_every_pixel_is_finished_once_and_has_the_value_that_the_windows_agree_on(cut, height, width):
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    found = torch.full_like(picture, torch.nan)
    for rows, columns, values in blend_windows((height, width), cut, lambda rows, columns: picture[..., rows, columns].clone()):
        assert values.shape == (2, 3, rows.stop - rows.start, columns.stop - columns.start)
        assert found[..., rows, columns].isnan().all()
        found[..., rows, columns] = values
    torch.testing.assert_close(found, picture)


@given(windows(), st.integers(1, 60), st.integers(1, 60))
def test_the_margin_of_a_window_counts_only_at_the_pictures_edge(cut, height, width):
    def answer(rows: slice, columns: slice) -> torch.Tensor:
        values = torch.ones(1, 1, rows.stop - rows.start, columns.stop - columns.start)
        for axis, (span, length) in ((2, (rows, height)), (3, (columns, width))):
            if span.start > 0:
                values.narrow(axis, 0, cut.margin).fill_(99)
            if span.stop < length:
                values.narrow(axis, span.stop - span.start - cut.margin, cut.margin).fill_(99)
        return values

    for region in blend_windows((height, width), cut, answer):
        torch.testing.assert_close(region.values, torch.ones_like(region.values))
