"""Pictures of other bands than R, G, B, from the files to masks and exported networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refused, tiny_mask, write_split
from image_cases import CASES, COLOR, GREY
from PIL import Image

from segnet.classes import ClassSet
from segnet.config.loading import config_to_yaml, load_config, override_config
from segnet.config.sections import AugmentConfig, Bands, Config
from segnet.data.checking import check_dataset
from segnet.data.colors import brighten, contrast_bands, draw_changes
from segnet.data.dataset import SegmentationDataset, open_split
from segnet.data.images import image_to_tensor, open_image
from segnet.data.loader import build_loader
from segnet.data.mask_files import open_mask, save_mask
from segnet.data.sampler import SampleKey
from segnet.data.statistics import percentile_ranges
from segnet.data.transforms import mean_color
from segnet.evaluation.report import write_report
from segnet.evaluation.scoring import count_split
from segnet.evaluation.shown import ShownPictures
from segnet.export import export_model
from segnet.inference.exported import Metadata, load_exported
from segnet.inference.loaded_model import load_model
from segnet.inference.predictor import Predictor
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from segnet.system.errors import ExitCode
from segnet.tasks.choice import build_task
from segnet.tasks.segmentation import ClassProbabilities
from segnet.tasks.segmentation_score import EvaluationCounts
from segnet.training.data import open_train_set
from segnet.training.loop import train
from segnet.visualization import preview

NOTE = "note: off are augment.saturation and augment.hue, which need 8-bit R, G, B; these images have {} channels"


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


def report_of(run: Path) -> tuple[float, str]:
    """The mIoU of a run on its val split and the HTML of a report with all pictures, as scripts/evaluate.py makes them."""
    model, classes, config, *_ = load_model(run, ["device=cpu"])
    dataset = open_split(config.data, "val")
    counts = EvaluationCounts(dataset.ids, len(classes))
    seen = ShownPictures(counts, 2, dataset.bands)
    count_split(model, build_loader(dataset, workers=0), config.inference, ClassProbabilities(), seen)
    assert {picture.image.shape[0] for picture in seen.kept.values()} == {3}
    write_report(
        run / "report.html", counts.evaluation(), iter(seen.kept.values()), classes, title="a run", facts={}, curves=None
    )
    return counts.evaluation().scores.miou, (run / "report.html").read_text()


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
    miou, report = report_of(tmp_path / "run")
    assert miou == load_checkpoint(best).score
    assert report.count('data-layer="picture"') == 2
    with refused(ExitCode.CONFIG, f"was trained with data.channels {channels}, not 3"):
        load_model(tmp_path / "run", ["data.channels=3"])


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
    remedy = "set data.channels=3 for all of its bands, or give pictures of 4 bands"
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
    assert len(draw_changes(everything, Bands(4))) == 2
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


def write_deep_bands(root: Path, classes: ClassSet) -> None:
    """The set of `write_bands` as arrays of 16 bits in 1000..6000, of four bands that differ in range; a corner is ignored."""
    write_bands(root, classes, 4)
    for path in sorted((root / "JPEGImages").iterdir()):
        pixels = np.asarray(Image.open(path)).astype(np.uint16)
        path.unlink()
        np.save(path.with_suffix(".npy"), pixels * np.array([5, 10, 15, 20], np.uint16) + 1000)


@pytest.fixture
def deep_config(tiny_config: Config, tiny_classes: ClassSet, tmp_path: Path) -> Config:
    """`tiny_config` for four bands of 16 bits, scaled by the percentiles of the train split."""
    write_deep_bands(tmp_path / "bands", tiny_classes)
    return override_config(tiny_config, [f"data.root={tmp_path / 'bands'}", "data.channels=4", "data.scale=train"])


def test_a_run_on_deep_pictures_keeps_its_scale(
    deep_config: Config, tiny_classes: ClassSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.stack([np.load(path) for path in sorted((tmp_path / "bands" / "JPEGImages").glob("train*"))])
    ranges = tuple(tuple(np.percentile(pixels[..., band], (0.1, 99.9), method="inverted_cdf").tolist()) for band in range(4))
    changes = ["augment.brightness=0.5", "augment.contrast=0.5", "data.cache=disk", "data.rgb=[4, 2, 1]"]
    config = override_config(deep_config, changes)
    best = train(config, tmp_path / "run")
    checkpoint = load_checkpoint(best)
    assert checkpoint.config.data.scale == ranges
    assert load_config(tmp_path / "run" / "config.yaml").data.scale == ranges
    assert checkpoint.weights["normalize.low"].flatten().tolist() == [low for low, _ in ranges]
    assert train(config, tmp_path / "run", resume=True) == best
    assert "the run is complete" in capsys.readouterr().out

    predictor = Predictor(tmp_path / "run", ["device=cpu"])
    picture = tmp_path / "bands" / "JPEGImages" / "val_0.npy"
    found = predictor.predict(picture)
    assert np.array_equal(predictor.predict(np.load(picture)).mask, found.mask)
    assert np.array_equal(predictor.predict(np.load(picture).astype(np.float64)).mask, found.mask)
    low, high = ranges[3]
    red = ((np.load(picture)[..., 3] - low) * (255 / (high - low))).clip(0, 255).round()
    assert np.array_equal(found.image[..., 0], red.astype(np.uint8))  # data.rgb names band 4
    with pytest.raises(ValueError, match=r"expected an array \(H, W, 4\) of numbers; got \(9, 9, 3\) uint8"):
        predictor.predict(np.zeros((9, 9, 3), np.uint8))
    miou, report = report_of(tmp_path / "run")
    assert miou == checkpoint.score
    assert report.count('data-layer="picture"') == 2
    with refused(ExitCode.CONFIG, "was trained with data.scale", "leave data.scale out"):
        load_model(tmp_path / "run", ["data.scale=dtype"])


def test_the_exported_network_takes_the_stored_values_of_deep_pictures(deep_config: Config, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    ranges = ((1000.0, 1300.0), (1000.0, 1600.0), (1005.0, 1900.0), (1100.0, 6000.0))
    config = override_config(deep_config, [f"data.scale={[list(pair) for pair in ranges]}"])
    torch.manual_seed(0)
    model = build_model(config.model, 3, 4, ranges=ranges).eval()
    save_checkpoint(tmp_path / "best.pt", Checkpoint(config, 0, None, dict(model.state_dict())))
    assert export_model(model, Metadata(config, 0, None), tmp_path / "deep.onnx").difference < 1e-4
    found = {name: Predictor(tmp_path / name, ["device=cpu"]) for name in ("best.pt", "deep.onnx")}
    for picture in sorted((tmp_path / "bands" / "JPEGImages").iterdir()):
        a, b = (predictor.predict(picture, probabilities=True).probabilities for predictor in found.values())
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    network = load_exported(tmp_path / "deep.onnx").model
    image = torch.from_numpy(np.load(picture).astype(np.float32)).permute(2, 0, 1)[None]
    torch.testing.assert_close(network(image), model(image), rtol=1e-3, atol=1e-4)


def test_scaling_in_the_network_is_scaling_before_it(deep_config: Config) -> None:
    torch.manual_seed(0)
    plain = build_model(deep_config.model, 3, 4).eval()
    scaling = build_model(deep_config.model, 3, 4, ranges=[(100, 1100), (0, 65535), (-1, 1), (5, 6)]).eval()
    scaling.load_state_dict(plain.state_dict(), strict=False)
    low, high = torch.tensor([100.0, 0, -1, 5]), torch.tensor([1100.0, 65535, 1, 6])
    shares = torch.rand(2, 4, 9, 11) * 1.2 - 0.1
    image = low.view(-1, 1, 1) + shares * (high - low).view(-1, 1, 1)
    torch.testing.assert_close(scaling(image), plain(shares.clamp(0, 1) * 255), rtol=1e-3, atol=1e-3)


def test_percentiles_are_exact_and_leave_out_what_holds_nothing(tmp_path: Path, tiny_classes: ClassSet) -> None:
    write_deep_bands(tmp_path, tiny_classes)
    rng = np.random.default_rng(0)
    for kind in (np.uint16, np.int16, np.float32):
        every = []
        for path in sorted((tmp_path / "JPEGImages").glob("train*")):
            values = (rng.normal(0, 4000, (20, 24, 4)) + 12000 * (kind is np.uint16)).clip(-30000, 60000).astype(kind)
            if kind is np.float32:
                values[:3] = np.nan
            np.save(path, values)
            every.append(values[3:] if kind is np.float32 else values)
        ranges = percentile_ranges(SegmentationDataset(tmp_path, "train", tiny_classes, bands=Bands(4, "stored")))
        pixels = np.concatenate(every).reshape(-1, 4)
        expected = np.percentile(pixels, (0.1, 99.9), axis=0, method="inverted_cdf").T
        error = np.ptp(pixels) / 65535 if kind is np.float32 else 0
        assert np.abs(np.array(ranges) - expected).max() <= error
    for path in sorted((tmp_path / "JPEGImages").glob("train*")):
        np.save(path, np.full((20, 24, 4), 7, np.uint16))
    assert percentile_ranges(SegmentationDataset(tmp_path, "train", tiny_classes, bands=Bands(4, "stored"))) == ((7, 8),) * 4


def test_check_warns_where_each_deep_picture_has_a_scale_of_its_own(tmp_path: Path, tiny_classes: ClassSet) -> None:
    write_deep_bands(tmp_path, tiny_classes)
    own, common = (
        check_dataset(tmp_path, ["train"], tiny_classes, bands=bands).warnings for bands in (Bands(4), Bands(4, "stored"))
    )
    assert "4 of 4 pictures are deeper than 8 bits, and each is scaled by its own values: 'train_" in str(own[-1])
    assert "set data.scale=train" in str(own[-1])
    assert not any("deeper" in str(warning) for warning in common)


def test_changes_of_deep_images_stay_in_their_ranges() -> None:
    image = torch.tensor([[[1000.0, 2000.0]], [[0.0, 1.0]]])
    ranges = ((1000, 3000), (0, 1))
    assert brighten(image, 1.5, ranges).flatten(1).tolist() == [[1000, 2500], [0, 1]]
    assert brighten(image, 9.0, ranges).flatten(1).tolist() == [[1000, 3000], [0, 1]]
    assert contrast_bands(image, 0.5, ranges).flatten(1).tolist() == [[1250, 1750], [0.25, 0.75]]
    assert mean_color(Bands(2, "stored", ranges)) == (1000 + 2000 * 114 / 255, 114 / 255)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("data.scale=[3, 3]", "scale: write the smaller value first, then the larger one"),
        ("data.scale=[[0, 1], [0, 1]]", "scale: 2 pairs for 4 channels"),
        ("data.rgb=[1, 2, 5]", "rgb: [1, 2, 5] are not three of the bands 1 to 4"),
        ("data.rgb=[1, 2, 2]", "rgb: [1, 2, 2] are not three of the bands 1 to 4"),
        ("data.channels=65", "less than or equal to 64"),
        ("data.scale=percent", "'picture', 'dtype' or 'train'"),
    ],
)
def test_mistakes_in_the_keys_of_bands(change: str, found: str, tiny_config: Config) -> None:
    with refused(ExitCode.CONFIG, found):
        override_config(tiny_config, ["data.channels=4", change])
