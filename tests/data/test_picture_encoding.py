"""Pictures of any depth as files: what is written is read back."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from geotiffs import TAGS, geo_tags, write_geotiff
from helpers import refused
from PIL import Image

from segnet.config.sections import Bands
from segnet.data.georeference import read_georeference
from segnet.data.images import open_raster
from segnet.data.picture_encoding import encode_array, encode_picture, encode_png, encode_tiff
from segnet.data.scaling import Raster, stored_values
from segnet.system.errors import ExitCode


def values(kind: str, bands: int, size: tuple[int, int] = (7, 5)) -> np.ndarray:
    """(H, W, bands) of the whole range of an integer type, or floats around 0..1."""
    random = np.random.default_rng(bands)
    if np.dtype(kind).kind == "f":
        return random.normal(0.5, 0.5, (*size, bands)).astype(kind)
    limits = np.iinfo(kind)
    return random.integers(limits.min, limits.max, (*size, bands), dtype=kind, endpoint=True)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 3])
def test_a_png_holds_every_value(kind: str, bands: int, tmp_path: Path) -> None:
    array = values(kind, bands, (33, 70))
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(array))
    raster = open_raster(path, bands=Bands(bands, "dtype"))
    assert raster.stored == kind
    assert np.array_equal(stored_values(raster.image, raster), array)
    with Image.open(path) as picture:
        picture.load()  # checks the checksums
        assert picture.size == (70, 33)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_arrays_and_tiffs_hold_every_type_and_number_of_bands(kind: str, bands: int, suffix: str, tmp_path: Path) -> None:
    if suffix == ".tif":
        pytest.importorskip("tifffile")
    array = values(kind, bands)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encode_picture(path, array))
    raster = open_raster(path, bands=Bands(bands, "dtype"))
    assert raster.stored == kind
    back = stored_values(raster.image, raster)
    assert np.allclose(back, array, rtol=1e-6, atol=1e-6) if np.dtype(kind).kind == "f" else np.array_equal(back, array)


def test_what_a_png_or_a_jpeg_does_not_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="a PNG does not hold"):
        encode_png(values("float32", 1))
    with refused(ExitCode.CONFIG, "a.png: a PNG does not hold uint8 of 4 bands", "let the name end in .npy or .tif"):
        encode_picture(Path("a.png"), values("uint8", 4))
    with refused(ExitCode.CONFIG, "a.jpg: a JPEG does not hold uint16 of 1 band"):
        encode_picture(Path("a.jpg"), values("uint16", 1))


def test_integers_are_rounded_and_clipped_and_floats_are_not() -> None:
    image = np.array([[[-3.0, 0.4 / 257, 0.6 / 257, 255.2]]], np.float32)
    deep = Raster(_tensor(image), stored="uint16", limits=(0.0, 65535.0))
    assert stored_values(_tensor(image), deep)[0, :, 0].tolist() == [0, 0, 1, 65535]
    floats = Raster(_tensor(image), stored="float32", limits=(0.0, 1.0))
    assert stored_values(_tensor(image), floats)[0, :, 0].tolist() == pytest.approx((image[0, 0] / 255).tolist())
    twelve = Raster(_tensor(image), stored="uint16", limits=(0.0, 4095.0))
    assert stored_values(_tensor(image), twelve)[0, -1, 0] == 4095


def test_pixels_that_hold_nothing_hold_nothing_afterwards() -> None:
    image, valid = np.full((1, 2, 2), 100.0, np.float32), np.array([[True, False], [True, True]])
    raster = Raster(_tensor(image), _tensor(valid), stored="int16", limits=(-32768.0, 32767.0), nodata=-9999.0)
    assert stored_values(_tensor(image), raster)[0, 1, 0] == -9999
    floats = Raster(_tensor(image), _tensor(valid), stored="float32", limits=(0.0, 1.0))
    assert np.isnan(stored_values(_tensor(image), floats)[..., 0]).tolist() == [[False, True], [False, False]]


def test_a_tiff_keeps_the_place_of_its_picture(tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    source = write_geotiff(tmp_path / "a.tif", values("uint8", 3))
    written = tmp_path / "b.tif"
    written.write_bytes(encode_tiff(values("float32", 1), read_georeference(io.BytesIO(source.read_bytes())), -1.5))
    assert geo_tags(written) == {**TAGS, 42113: "-1.5"}


def test_a_missing_tifffile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with refused(ExitCode.ENVIRONMENT, "needs the package tifffile", "pip install tifffile, or write array"):
        encode_tiff(values("uint8", 1))
    assert np.load(io.BytesIO(encode_array(values("uint8", 1)))).shape == (7, 5)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)
