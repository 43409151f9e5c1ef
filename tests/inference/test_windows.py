"""Windows cover a picture, their regions are finished once, and what windows agree on is what comes out."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import in_float32, noise_image

from segnet.config.loading import override_config
from segnet.inference import answers
from segnet.inference.answers import choose_windows, predict_maps, predict_probabilities
from segnet.inference.windows import Windows, blend_windows, plan_windows
from segnet.models.initialization import build_model


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


def trained_network(tiny_config, upsampling: str):
    """A network with batch statistics of its own, so that every pixel's answer is its own."""
    torch.manual_seed(0)
    model = build_model(override_config(tiny_config, [f"model.upsampling={upsampling}"]).model, 3).train()
    for _ in range(3):
        model(noise_image(64, 64))
    return model.eval()


@pytest.fixture
def trained(tiny_config):
    model = trained_network(tiny_config, "unpool")
    assert model.field_of_view == 10
    return model


@pytest.mark.parametrize("size", [(150, 131), (97, 300), (40, 411), (7, 200), (64, 64), (65, 64)])
@pytest.mark.parametrize("window", [64, 80])
def test_windows_give_what_the_whole_picture_gives(trained, monkeypatch, size, window):
    monkeypatch.setattr(answers, "FADE", 2)  # overlap 24, of which 10 pixels on each side are the other's
    whole = predict_maps(trained, noise_image(*size), in_float32(), probabilities=True)
    config = in_float32(window=window)
    if window == 80:
        config = in_float32(window=window, overlap=40)
    assert choose_windows(trained, size, config).margin == 10
    cut = predict_maps(trained, noise_image(*size), config, probabilities=True)
    torch.testing.assert_close(cut.probabilities, whole.probabilities, rtol=0, atol=1e-6)
    torch.testing.assert_close(cut.entropy, whole.entropy, rtol=0, atol=1e-5)
    assert (cut.mask != whole.mask).sum() == 0


@pytest.mark.parametrize("upsampling", ["unpool", "bilinear", "deconvolution"])
@pytest.mark.parametrize(
    ("flip", "height", "width"),
    [*(("horizontal", 97, width) for width in (221, 222, 223, 224)), ("dihedral", 97, 130), ("dihedral", 130, 99)],
)
def test_mirrored_windows_give_what_the_mirrored_picture_gives(tiny_config, upsampling, flip, height, width):
    model, config = trained_network(tiny_config, upsampling), in_float32(flip=flip)
    whole = predict_maps(model, noise_image(height, width), config, probabilities=True)
    cut = in_float32(flip=flip, window=96, overlap=48)
    assert choose_windows(model, (height, width), cut).margin == model.field_of_view
    found = predict_maps(model, noise_image(height, width), cut, probabilities=True)
    torch.testing.assert_close(found.probabilities, whole.probabilities, rtol=0, atol=5e-6)
    assert torch.equal(found.mask, whole.mask)


def test_windows_that_see_less_than_the_network_would_are_blended(trained):
    """Neighbours disagree, and the answer goes from one to the other without a jump."""
    image, config = noise_image(64, 200), in_float32(window=64, overlap=16)
    windows = choose_windows(trained, (64, 200), config)
    assert (windows.size, windows.overlap, windows.margin, windows.fade) == (64, 16, 0, 16)
    found = predict_probabilities(trained, image, config)
    left, right = (predict_probabilities(trained, image[..., s], in_float32()) for s in (slice(0, 64), slice(48, 112)))
    torch.testing.assert_close(found[..., :48], left[..., :48])
    torch.testing.assert_close(found[..., 64:96], right[..., 16:48])
    share = (torch.arange(16) + 0.5) / 16
    torch.testing.assert_close(found[..., 48:64], left[..., 48:] * (1 - share) + right[..., :16] * share)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 64, 200))
    assert (left[..., 48:] - right[..., :16]).abs().max() > 1e-3


def test_large_pictures_are_cut_by_themselves_and_small_ones_are_not(trained):
    assert choose_windows(trained, (1536, 1536), in_float32()).size == 1536
    assert choose_windows(trained, (1, 2_000_000), in_float32()).size == 2_000_000
    cut = choose_windows(trained, (1537, 1537), in_float32())
    assert (cut.size, cut.overlap, cut.margin) == (1536, 52, 10)


@pytest.mark.parametrize("changes", [{"scales": (0.5, 1.0)}, {"dropout_samples": 30}])
def test_views_and_samples_of_windows_are_near_those_of_the_whole(bayesian, changes):
    image = noise_image(96, 224).float().mean(dim=1, keepdim=True).expand(1, 3, 96, 224)
    whole = predict_maps(bayesian, image, in_float32(**changes), probabilities=True)
    cut = predict_maps(bayesian, image, in_float32(**changes, window=96), probabilities=True)
    torch.testing.assert_close(cut.probabilities.sum(dim=1), torch.ones(1, 96, 224))
    assert (cut.probabilities - whole.probabilities).abs().mean() < 0.05
    if whole.variance is not None:
        assert 0.5 < cut.variance.mean() / whole.variance.mean() < 2
        assert 0.5 < cut.mutual_information.mean() / whole.mutual_information.mean() < 2


class Room:
    """`answers._mean_over_views` as on a GPU that has room for so many pixels, and else raises `error`."""

    def __init__(self, pixels: int, error: Exception) -> None:
        self.pixels = pixels
        self.error = error
        self.values = answers._mean_over_views
        self.refusals = 0

    def __call__(self, model, whole, config, rule, rows, columns):
        if (rows.stop - rows.start) * (columns.stop - columns.start) > self.pixels:
            self.refusals += 1
            raise self.error
        return self.values(model, whole, config, rule, rows, columns)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
    ids=repr,
)
def test_a_full_memory_gets_smaller_windows(trained, monkeypatch, capsys, error):
    image = noise_image(700, 500)
    whole = predict_maps(trained, image, in_float32())
    monkeypatch.setattr(answers, "_mean_over_views", Room(360 * 360, error))
    cut = predict_maps(trained, image, in_float32())
    assert torch.equal(cut.mask, whole.mask)
    assert "windows of 352 pixels" in capsys.readouterr().err


def test_a_size_that_did_not_fit_is_not_tried_again(trained, monkeypatch, capsys):
    room = Room(360 * 360, torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setattr(answers, "_mean_over_views", room)
    first = predict_maps(trained, noise_image(700, 500), in_float32())
    assert room.refusals == 1
    assert torch.equal(predict_maps(trained, noise_image(700, 500), in_float32()).mask, first.mask)
    predict_maps(trained, noise_image(300, 300), in_float32())
    assert room.refusals == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_another_error_is_not_taken_for_a_full_memory(trained, monkeypatch):
    monkeypatch.setattr(
        answers, "_mean_over_views", Room(360 * 360, RuntimeError("CUDA error: an illegal memory access was encountered"))
    )
    with pytest.raises(RuntimeError, match="illegal memory access"):
        predict_maps(trained, noise_image(700, 500), in_float32())


def test_a_picture_that_fits_in_no_window_raises_what_was_raised(trained, monkeypatch):
    room = Room(99, torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setattr(answers, "_mean_over_views", room)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            predict_maps(trained, noise_image(700, 500), in_float32())
    assert room.refusals == 4  # 700×500, then 352 and 256 pixels; of the second picture 256 alone
