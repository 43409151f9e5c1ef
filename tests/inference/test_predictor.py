"""From a picture to its mask: of its size, upright, the same from a path as from memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CLASSES, refused, write_picture
from PIL import Image

from segnet.config.loading import override_config
from segnet.data.images import open_image
from segnet.data.mask_files import open_mask
from segnet.inference.predictor import Prediction, Predictor
from segnet.system.errors import ExitCode
from segnet.tasks.segmentation_score import Maps


@pytest.fixture
def predictor(tiny_run: Path) -> Predictor:
    return Predictor(tiny_run, ["device=cpu"])


def test_a_prediction_has_the_fields_of_the_answer() -> None:
    assert set(Prediction._fields) == {"image", "classes", *Maps._fields}


SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (13, 37), (32, 32), (33, 31)]


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_has_the_size_of_its_picture(size: tuple[int, int], predictor: Predictor, tmp_path: Path) -> None:
    prediction = predictor.predict(write_picture(tmp_path / "picture.png", size), probabilities=True)
    check_sizes(prediction, size)
    predictor.config = override_config(predictor.config, ["inference.scales=[0.3, 1, 2]", "inference.flip=horizontal"])
    check_sizes(predictor.predict(tmp_path / "picture.png", probabilities=True), size)


def check_sizes(prediction: Prediction, size: tuple[int, int]) -> None:
    assert (prediction.mask.shape, prediction.mask.dtype) == (size, np.uint8)
    assert prediction.image.shape == (*size, 3)
    assert prediction.probabilities.shape == (len(CLASSES), *size)
    np.testing.assert_allclose(prediction.probabilities.sum(axis=0), np.ones(size), rtol=1e-6)


def test_every_size_from_1_to_70_has_its_mask_whole_or_in_windows(predictor: Predictor, tiny_run: Path) -> None:
    """4,900 sizes, and a fifth of those above 48 pixels through windows that see all that the network does."""
    noise = np.random.default_rng(0).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    cutting = Predictor(tiny_run, ["device=cpu", "inference.window=48", "inference.overlap=24"])
    for height, width in itertools.product(range(1, 71), repeat=2):
        mask = predictor.predict(noise[:height, :width]).mask
        assert mask.shape == (height, width)
        if max(height, width) > 48 and (height + width) % 5 == 0:
            assert np.array_equal(cutting.predict(noise[:height, :width]).mask, mask)


def test_mask_confidence_and_uncertainty_follow_from_the_probabilities(predictor: Predictor, tmp_path: Path) -> None:
    prediction = predictor.predict(write_picture(tmp_path / "picture.png"), probabilities=True)
    assert predictor.predict(tmp_path / "picture.png").probabilities is None
    p = prediction.probabilities.astype(np.float64)
    assert np.array_equal(prediction.mask, p.argmax(axis=0))
    np.testing.assert_allclose(prediction.confidence, p.max(axis=0), rtol=1e-6)
    np.testing.assert_allclose(prediction.uncertainty, -(p * np.log(p)).sum(axis=0) / np.log(3), rtol=1e-5)
    assert 0 < prediction.uncertainty.min() <= prediction.uncertainty.max() <= 1


@pytest.mark.filterwarnings("error")
def test_path_text_pillow_array_and_tensor_give_the_same_mask(predictor: Predictor, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "picture.png", (13, 21))
    image = Image.open(path)
    expected = predictor.predict(path)
    array = np.asarray(image)
    assert len(np.unique(expected.mask)) > 1  # not a mask that any picture gives
    for picture in (str(path), image, array, np.flip(array, 1)[:, ::-1], open_image(path)):
        assert np.array_equal(predictor.predict(picture).mask, expected.mask)
        assert np.array_equal(predictor.predict(picture).image, expected.image)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 5), np.uint16),
        np.zeros((0, 5), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((4, 5, 3), np.float32),
        torch.zeros(4, 5, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 4, 5, dtype=torch.uint8),
        torch.zeros(3, 4, 5),
    ],
)
def test_another_form_of_array_is_refused(picture: np.ndarray | torch.Tensor, predictor: Predictor) -> None:
    with pytest.raises(
        ValueError, match=r"expected uint8: RGB as array \(H, W, 3\) or tensor \(3, H, W\), or grey \(H, W\); got \("
    ):
        predictor.predict(picture)


def test_a_grey_array_is_the_same_picture_in_colour(predictor: Predictor) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (9, 13), dtype=np.uint8)
    expected = predictor.predict(np.repeat(grey[..., None], 3, axis=2))
    for picture in (grey, torch.from_numpy(grey)):
        found = predictor.predict(picture)
        assert np.array_equal(found.mask, expected.mask)
        assert np.array_equal(found.image, expected.image)


def test_a_prediction_is_saved_and_drawn(predictor: Predictor, tmp_path: Path) -> None:
    prediction = predictor.predict(write_picture(tmp_path / "picture.png", (13, 21)))
    prediction.save(tmp_path / "mask.png")
    assert torch.equal(open_mask(tmp_path / "mask.png", predictor.classes), torch.from_numpy(prediction.mask))
    assert Image.fromarray(prediction.mask).size == (21, 13)
    drawn = prediction.overlay(opacity=1)
    assert (drawn.shape, drawn.dtype) == ((13, 21, 3), np.uint8)
    assert np.array_equal(drawn[prediction.mask == 1][0], predictor.classes.colors[1])
    with refused(ExitCode.CONFIG, "mask.jpg: a mask is a PNG", "end in .png"):
        prediction.save(tmp_path / "mask.jpg")


def test_a_picture_is_turned_upright_before_it_is_predicted(predictor: Predictor, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(write_picture(tmp_path / "picture.png", (9, 21)))
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = predictor.predict(picture.transpose(Image.Transpose.ROTATE_270))
    turned = predictor.predict(tmp_path / "turned.png")
    assert turned.mask.shape == (21, 9)
    assert np.array_equal(turned.mask, upright.mask)


def test_prediction_needs_no_training_data_and_repeats(predictor: Predictor, tmp_path: Path, tiny_run: Path) -> None:
    path = write_picture(tmp_path / "picture.png")
    first = predictor.predict(path)
    (tmp_path / "data").rename(tmp_path / "gone")
    assert np.array_equal(Predictor(str(tiny_run / "best.pt"), ["device=cpu"]).predict(path).confidence, first.confidence)
    assert np.array_equal(predictor.predict(path).confidence, first.confidence)


def test_a_file_that_is_no_picture_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with refused(ExitCode.DATA, "notes.txt", "not a readable picture"):
        predictor.predict(tmp_path / "notes.txt")
