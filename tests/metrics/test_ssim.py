"""SSIM: scikit-image's values, and the formula of the paper in one window."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segnet.metrics.ssim import ssim

# The values of scikit-image 0.26 for `pair`, with the settings that the docstring of `ssim` names.
OF_SCIKIT_IMAGE = {
    (40, 57, 1): 0.964444634027985,
    (64, 64, 3): 0.9650649120949936,
    (11, 11, 1): 0.9812315334371515,
    (25, 12, 3): 0.9712116240926929,
}


def pair(seed: int, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture of noise and the same with more noise, (H, W, C)."""
    random = np.random.RandomState(seed)
    clean = random.randint(0, 256, shape).astype(np.uint8)
    return clean, np.clip(clean + random.normal(0, 20, shape), 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize(("seed", "shape"), list(enumerate(OF_SCIKIT_IMAGE)))
def test_it_has_the_values_of_scikit_image(seed: int, shape: tuple[int, int, int]) -> None:
    clean, noisy = (torch.from_numpy(picture).permute(2, 0, 1) for picture in pair(seed, shape))
    assert ssim(noisy, clean) == pytest.approx(OF_SCIKIT_IMAGE[shape], abs=1e-12)


def test_scikit_image_agrees_where_it_is_installed() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    clean, noisy = pair(7, (31, 23, 3))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = metrics.structural_similarity(noisy, clean, channel_axis=2, **options)
    found = ssim(torch.from_numpy(noisy).permute(2, 0, 1), torch.from_numpy(clean).permute(2, 0, 1))
    assert found == pytest.approx(expected, abs=1e-12)


def test_equal_pictures_have_one_and_a_picture_smaller_than_the_window_has_none() -> None:
    clean, _ = pair(0, (12, 13, 1))
    image = torch.from_numpy(clean).permute(2, 0, 1)
    assert ssim(image, image) == 1
    assert math.isnan(ssim(image[:, :10], image[:, :10]))
