"""PSNR by its definition, on values of 8 bits."""

import math

import numpy as np
import pytest
import torch

from segnet.metrics.psnr import psnr, squared_error, to_8_bits


def test_psnr_is_twenty_times_the_logarithm_of_the_peak_over_the_root_of_the_error():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (3, 7, 5), dtype=np.uint8) for _ in range(2))
    rmse = np.sqrt(((a.astype(float) - b.astype(float)) ** 2).mean())
    found = psnr(squared_error(torch.from_numpy(a), torch.from_numpy(b)), a.size)
    assert found == pytest.approx(20 * math.log10(255 / rmse), abs=1e-9)
    assert psnr(0, 5) == math.inf


def test_values_become_8_bits_as_a_picture_file_holds_them():
    values = torch.tensor([-3.0, 0.4, 0.6, 254.4, 300.0])
    assert to_8_bits(values).tolist() == [0, 0, 1, 254, 255]
