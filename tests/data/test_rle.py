"""Binary masks in COCO's compressed encoding: character for character what pycocotools writes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from segnet.data import rle
from segnet.data.rle import decode_rle, encode_rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools


def check(mask: np.ndarray) -> None:
    encoded = encode_rle(mask)
    assert encoded == coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    assert np.array_equal(coco.decode({"size": list(mask.shape), "counts": encoded.encode()}), mask)
    assert np.array_equal(decode_rle(encoded, mask.shape), mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (70, 70)])
@pytest.mark.parametrize("value", [False, True])
def test_a_mask_of_one_value(shape: tuple[int, int], value: bool) -> None:
    check(np.full(shape, value))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.5, 0.98]))
def test_noise(height: int, width: int, seed: int, share: float) -> None:
    check(np.random.default_rng(seed).random((height, width)) < share)


@given(st.lists(st.integers(1, 200_000) | st.sampled_from([1, 15, 16, 17, 511, 512, 513, 2**15, 2**19]), min_size=1, max_size=9))
def test_runs_of_any_length(runs: list[int]) -> None:
    """Their differences are as long, and negative as often as not."""
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    check(values[:, None])
    check(~values[:, None])


def test_a_picture_is_encoded_down_its_columns() -> None:
    mask = np.zeros((40, 30), dtype=bool)
    mask[5:20, 3:9] = True
    check(mask)
    assert encode_rle(mask) != encode_rle(mask.T)


@pytest.mark.parametrize("block", [1, 2, 3, 4, 5, 100])
def test_blocks_do_not_show(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rle, "_BLOCK", block)
    check(np.random.default_rng(0).random((20, 20)) < 0.5)
    check(np.ones((3, 3), dtype=bool))


def test_ten_million_runs_take_seconds() -> None:
    mask = np.indices((4000, 2500)).sum(axis=0) % 2 == 1
    started = time.process_time()
    encoded = encode_rle(mask)
    assert time.process_time() - started < 20
    assert encoded == coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_plain_counts_are_read_as_pycocotools_reads_them(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cuts = sorted(rng.integers(0, height * width + 1, rng.integers(0, 9)).tolist())
    counts = np.diff([0, *cuts, height * width]).tolist()  # some are 0
    expected = coco.decode(coco.frPyObjects({"size": [height, width], "counts": counts}, height, width))
    assert np.array_equal(decode_rle(counts, (height, width)), expected)


@pytest.mark.parametrize("counts", ["", "0", "zz", "`" * 20, "é", "12 3", [3, 4], [-1, 10], [1 << 50], [4.0, 5], [10], [1, 8.5]])
def test_damaged_counts_are_refused(counts: str | list[int]) -> None:
    with pytest.raises(ValueError, match="run"):
        decode_rle(counts, (3, 3))
