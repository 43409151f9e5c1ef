"""Pictures of other bands than R, G, B, from the files to masks and exported networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from exported_networks import Exporter
from helpers import refused, tiny_mask, write_split
from image_cases import CASES, COLOR, GREY
from PIL import Image

from segnet.classes import ClassSet
from segnet.config.loading import config_to_yaml, override_config
from segnet.config.sections import AugmentConfig, Bands, Config
from segnet.data.checking import check_dataset
from segnet.data.colors import brighten, contrast_bands, draw_changes
from segnet.data.images import image_to_tensor, open_image
from segnet.data.mask_files import open_mask, save_mask
from segnet.data.sampler import SampleKey
from segnet.export import export_model
from segnet.inference.exported import Metadata, load_exported
from segnet.inference.loaded_model import load_model
from segnet.inference.predictor import Predictor
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import load_checkpoint
from segnet.system.errors import ExitCode
from segnet.tasks.choice import build_task
from segnet.training.data import open_train_set
from segnet.training.loop import train
from segnet.visualization import preview

NOTE = "note: augment.saturation and augment.hue are off: they need R, G, B, and data.channels is {}\n"


def write_bands(root: Path, classes: ClassSet, channels: int) -> None:
    """A set of 4 train and 2 val pictures of 20×24 whose last band tells the classes apart."""
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    for split, count in (("train", 4), ("val", 2)):
        names = [f"{split}_{index}" for index in range(count)]
        for seed, name in enumerate(names):
            mask = tiny_mask(seed=seed, size=(20, 24))
            pixels = np.random.default_rng(seed).integers(0, 60, (*mask.shape, channels), dtype=np.uint8)
            pixels[..., -1] += np.where(mask == 255, 0, mask).astype(np.uint8) * 80
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(root / "JPEGImages" / f"{name}.png")
            save_mask(root / "SegmentationClass" / f"{name}.png", mask, classes)
        write_split(root, split, names)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_run_on_pictures_of_n_bands(
    channels: int, tiny_config: Config, tiny_classes: ClassSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bands(tmp_path / "bands", tiny_classes, channels)
    changes = ["train.epochs=1", "augment.contrast=0.3", "augment.brightness=0.3", "augment.hue=0.1", "augment.saturation=0.2"]
    changes += [f"data.root={tmp_path / 'bands'}", f"data.channels={channels}", "data.cache=disk", "augment.rotation=10"]
    best = train(override_config(tiny_config, changes), tmp_path / "run")
    assert NOTE.format(channels) in capsys.readouterr().out
    assert load_checkpoint(best).config.data.channels == channels
    assert load_checkpoint(best).weights["encoder.0.0.conv.weight"].shape[1] == channels

    predictor = Predictor(tmp_path / "run", ["device=cpu"])
    picture = tmp_path / "bands" / "JPEGImages" / "val_0.png"
    array = np.asarray(Image.open(picture))
    found = predictor.predict(picture)
    assert found.image.shape == (20, 24, 3)
    for same in (Image.open(picture), array, open_image(picture, bands=Bands(channels))):
        assert np.array_equal(predictor.predict(same).mask, found.mask)
    with pytest.raises(ValueError, match=rf"tensor \({channels}, H, W\)"):
        predictor.predict(np.zeros((9, 9, 7), np.uint8))
    with refused(ExitCode.CONFIG, f"was trained with data.channels {channels}, not 3"):
        load_model(tmp_path / "run", ["data.channels=3"])


def test_an_exported_network_of_one_channel(tiny_config: Config, tmp_path: Path, exported: Exporter) -> None:
    pytest.importorskip("onnxruntime")
    config = override_config(tiny_config, ["data.channels=1"])
    model = build_model(config.model, 3, 1).eval()
    export_model(model, Metadata(config, 0, None), tmp_path / "grey.onnx")
    network = load_exported(tmp_path / "grey.onnx").model
    assert network.in_channels == 1
    image = torch.randint(0, 256, (2, 1, 13, 18), dtype=torch.uint8)
    torch.testing.assert_close(network(image), model(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_one_channel_is_the_luma(case: str) -> None:
    picture, expected = CASES[case]
    grey = image_to_tensor(picture, bands=Bands(1))
    assert grey.dtype == torch.uint8
    red, green, blue = expected.astype(int).transpose(2, 0, 1)
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16  # ITU-R 601-2, rounded as Pillow documents its mode L
    assert np.array_equal(grey[0].numpy(), luma)


def test_other_bands_are_those_of_the_file(tmp_path: Path) -> None:
    for name in ("LA", "RGBA", "CMYK"):
        picture = CASES[name][0]
        assert np.array_equal(image_to_tensor(picture, bands=Bands(len(name))).permute(1, 2, 0).numpy(), np.asarray(picture))
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    remedy = "give pictures of 4 bands, or set data.channels=3"
    with refused(ExitCode.DATA, "a.png", "3 bands (R, G, B), where data.channels is 4", remedy):
        open_image(tmp_path / "a.png", bands=Bands(4))
    with refused(ExitCode.DATA, "picture: 1 band (L), where data.channels is 2", "set data.channels=1"):
        image_to_tensor(Image.fromarray(GREY), bands=Bands(2))


def test_check_reads_the_bands_that_the_configuration_names(tmp_path: Path, tiny_classes: ClassSet) -> None:
    write_bands(tmp_path, tiny_classes, 4)
    assert check_dataset(tmp_path, ["train"], tiny_classes, bands=Bands(4)).faults == []
    faults = check_dataset(tmp_path, ["train"], tiny_classes, bands=Bands(5)).faults
    assert [fault.found for fault in faults] == ["4 bands (R, G, B, A), where data.channels is 5"] * 4
    assert open_mask(tmp_path / "SegmentationClass" / "train_0.png", tiny_classes).shape == (20, 24)


def test_beyond_the_picture_each_band_has_the_grey_of_the_mean_colour(
    tiny_config: Config, tiny_classes: ClassSet, tmp_path: Path
) -> None:
    write_bands(tmp_path / "bands", tiny_classes, 4)
    config = override_config(tiny_config, [f"data.root={tmp_path / 'bands'}", "data.channels=4", "augment.scale=[0.5, 0.5]"])
    sample = open_train_set(config, build_task(config))[SampleKey(0, 0)]
    assert sample.image.shape == (4, 32, 32)
    assert (sample.image == 114).all(dim=0)[sample.truth == 255].float().mean() > 0.9


def test_contrast_and_brightness_of_bands() -> None:
    image = torch.tensor([[[0, 100]], [[200, 202]], [[7, 7]], [[255, 255]]], dtype=torch.uint8)
    assert contrast_bands(image, 0.5).flatten(1).tolist() == [[25, 75], [200, 201], [7, 7], [255, 255]]
    assert brighten(image, 2.0).flatten(1).tolist() == [[0, 200], [255, 255], [14, 14], [255, 255]]
    everything = AugmentConfig(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5)
    assert {operation for operation, _ in draw_changes(everything, Bands(4))} == {brighten, contrast_bands}
    assert len(draw_changes(everything)) == 4


def test_the_normalisation_of_other_bands(tiny_config: Config) -> None:
    four = override_config(tiny_config, ["data.channels=4"])
    normalize = EncoderDecoder(four.model, 3, 4).normalize
    torch.testing.assert_close(normalize.mean.flatten(), torch.full((4,), (123.675 + 116.28 + 103.53) / 3))
    torch.testing.assert_close(normalize.std.flatten(), torch.full((4,), (58.395 + 57.12 + 57.375) / 3))
    with refused(ExitCode.CONFIG, "model.normalization.mean: 2 values for data.channels 4"):
        override_config(four, ["model.normalization.mean=[1, 2]"])
    own = override_config(four, ["model.normalization.mean=[1, 2, 3, 4]", "model.normalization.std=[1, 1, 1, 2]"])
    assert EncoderDecoder(own.model, 3, 4).normalize(torch.full((1, 4, 1, 1), 5)).flatten().tolist() == [4, 3, 2, 0.5]
    assert "channels: 4" in config_to_yaml(own)


def test_previews_are_rgb() -> None:
    bands = torch.arange(8, dtype=torch.uint8).reshape(4, 1, 2)
    assert preview(bands)[:, 0, 0].tolist() == [0, 2, 4]
    assert preview(bands[:1])[:, 0, 1].tolist() == [1, 1, 1]
