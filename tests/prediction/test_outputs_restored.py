"""Restored pictures have the depth, the bands and the place of their pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from geotiffs import TAGS, geo_tags, write_geotiff
from helpers import refused, write_png
from noisy_sets import denoise_config_for
from PIL import Image
from predictions import predict_all

from segnet.config.sections import Bands
from segnet.data.images import open_raster
from segnet.data.picture_encoding import encode_picture
from segnet.inference.predictor import Predictor
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import Checkpoint, save_checkpoint
from segnet.system.errors import ExitCode


def identity(folder: Path, channels: int) -> Predictor:
    """A denoiser that estimates no noise: its answer is its input. It was trained on 8 bits, and sees any depth."""
    config = denoise_config_for(folder, f"data.channels={channels}")
    model = build_model(config.model, channels, channels)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    save_checkpoint(folder / "best.pt", Checkpoint(config, step=0, score=None, weights=dict(model.state_dict())))
    return Predictor(folder / "best.pt", ["device=cpu", "data.scale=dtype"])


def values(kind: str, bands: int) -> np.ndarray:
    random = np.random.default_rng(0)
    whole = random.integers(0, 65536, (20, 30, bands))
    return (whole / 65535).astype(kind) if kind.startswith("float") else (whole >> (8 if kind == "uint8" else 0)).astype(kind)


@pytest.mark.parametrize(
    ("kind", "bands", "output"),
    [
        *(("uint8", bands, "restored") for bands in (1, 3)),
        *(("uint16", bands, "restored") for bands in (1, 3)),
        *(("float32", bands, output) for bands in (1, 4) for output in ("array", "tiff")),
        ("uint16", 6, "tiff"),
    ],
)
def test_a_restored_picture_has_the_depth_and_bands_of_its_picture(kind: str, bands: int, output: str, tmp_path: Path) -> None:
    suffix = {"restored": ".png", "array": ".npy", "tiff": ".tif"}[output]
    if output == "tiff":
        pytest.importorskip("tifffile")
    predictor = identity(tmp_path, bands)
    array = values(kind, bands)
    source, target = tmp_path / "in" / f"a{suffix}", tmp_path / "out" / f"a{suffix}"
    source.parent.mkdir()
    if kind == "uint16" and suffix == ".png":
        write_png(source, array if bands > 1 else array[..., 0], 16, 2 if bands == 3 else 0)
    else:
        source.write_bytes(encode_picture(source, array))
    assert predict_all(predictor, source, tmp_path / "out", [output]) == []
    raster = open_raster(target, bands=Bands(bands, "dtype"))
    assert raster.stored == kind
    back = np.load(target).reshape(array.shape) if suffix == ".npy" else predictor.restore(target).restored
    assert np.allclose(back, array, atol=1e-6) if kind == "float32" else np.array_equal(back, array)
    assert predictor.restore(array if bands > 1 else array[..., 0]).restored.dtype == kind


def test_a_place_and_pixels_without_a_value_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    predictor = identity(tmp_path, 3)
    pixels = np.random.default_rng(0).integers(1, 256, (12, 15, 3), dtype=np.uint8)
    pixels[:4] = 0
    (tmp_path / "in").mkdir()
    write_geotiff(tmp_path / "in" / "a.tif", pixels, "0")
    (tmp_path / "in" / "a.tfw").write_text("0.25\n0\n0\n-0.25\n412345.8\n5712345.1\n")
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out", ["restored", "tiff"]) == []
    assert geo_tags(tmp_path / "out" / "a.tif") == {**TAGS, 42113: "0"}
    for name in ("a.tif", "a.png"):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / name)), pixels)
    assert (tmp_path / "out" / "a.pgw").read_bytes() == (tmp_path / "in" / "a.tfw").read_bytes()


def test_what_no_png_holds_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = identity(tmp_path, 1)
    source = tmp_path / "a.npy"
    np.save(source, values("float32", 1))
    (mistake,) = predict_all(predictor, source, tmp_path / "out", ["restored"])
    assert "a.npy: float32 of 1 band, which a PNG does not hold – write it with --save array" in mistake
    monkeypatch.setitem(sys.modules, "tifffile", None)
    (mistake,) = predict_all(predictor, source, tmp_path / "out", ["tiff"])
    assert "needs the package tifffile, which is not installed here – pip install tifffile, or write array" in mistake


def test_a_restoration_is_saved_by_the_suffix_of_its_name(tmp_path: Path) -> None:
    restoration = identity(tmp_path, 1).restore(values("uint16", 1)[..., 0])
    restoration.save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), restoration.restored[..., 0])
    with refused(ExitCode.CONFIG, "a.jpg: a JPEG does not hold uint16 of 1 band", "let the name end in .npy or .tif"):
        restoration.save(tmp_path / "a.jpg")


def test_other_channels_than_those_of_the_training_are_refused(tmp_path: Path) -> None:
    identity(tmp_path, 1)
    with refused(ExitCode.CONFIG, "was trained with data.channels 1, not 3"):
        Predictor(tmp_path / "best.pt", ["device=cpu", "data.channels=3"])
