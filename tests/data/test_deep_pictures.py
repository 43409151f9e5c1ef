"""Every container, kind of bands and depth comes in without loss, or is refused with the cure."""

from __future__ import annotations

import importlib
import io
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, png_chunk, refused, write_png, write_tiff
from image_cases import UPRIGHT, stretched
from picture_files import FILES, HAS_TIFFFILE, Stored, floats, numbers
from PIL import Image

from segnet.config.sections import Bands
from segnet.data import deep_pictures
from segnet.data.images import image_to_tensor, open_image, open_raster, picture_size
from segnet.data.scaling import turned_upright
from segnet.system.errors import ExitCode, UserError

Data = ExitCode.DATA
needs_tifffile = pytest.mark.skipif(not HAS_TIFFFILE, reason="tifffile is not installed")


def of_channels(stored: Stored, channels: int) -> np.ndarray:
    """The stored values for a network of `channels`, by the rule of data/README.md."""
    colors = stored.values[..., : stored.colors]
    if channels == 3:
        return colors.repeat(3, axis=2) if stored.colors == 1 else colors
    if channels == 1 and stored.colors == 3:
        grey = colors.astype(np.float64) @ [19595 / 65536, 38470 / 65536, 7471 / 65536]
        return (grey if colors.dtype.kind == "f" else np.floor(grey + 0.5))[..., None].astype(colors.dtype)
    return colors if channels == 1 else stored.values


@pytest.mark.parametrize("name", FILES)
def test_every_value_of_a_picture_comes_in(name: str, tmp_path: Path) -> None:
    stored = FILES[name]
    if stored.needs_tifffile and not HAS_TIFFFILE:
        pytest.skip("tifffile is not installed")
    path = tmp_path / "picture"
    stored.write(path)
    bands = stored.values.shape[2]
    assert picture_size(path) == stored.values.shape[:2]
    palette = "palette" in name
    fitting = {1, 3} if stored.colors in (1, 3) else set()
    for channels in fitting | ({bands} if not palette else set()):
        expected = of_channels(stored, channels)
        raster = open_raster(path, bands=Bands(channels, "stored"))
        assert raster.image.dtype == torch.float32
        assert np.array_equal(raster.image.permute(1, 2, 0).numpy(), expected.astype(np.float32)), channels
        low, high = stored.limits
        scaled = (expected.astype(np.float64) - low) * (255 / (high - low))
        torch.testing.assert_close(
            open_image(path, bands=Bands(channels, "dtype")).permute(1, 2, 0),
            torch.from_numpy(scaled).float(),
            rtol=1e-6,
            atol=1e-5,
        )
        own = expected if expected.dtype == np.uint8 else stretched(expected.astype(np.float64))
        image = open_image(path, bands=Bands(channels))
        assert image.dtype == torch.uint8
        assert np.array_equal(image.permute(1, 2, 0).numpy(), own)
    with refused(Data, str(path), "where data.channels is 9"):
        open_image(path, bands=Bands(9))


def test_the_table_of_the_documentation_names_every_file() -> None:
    """A row is `| container | bands | bits, bits, … | what happens |`; * marks what tifffile reads."""
    text = (ROOT / "data" / "README.md").read_text().partition("## Depths and bands")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| ([\w ,]+?) \| ([\w ,*]+?) \| (.+) \|$", text, re.M)[1:]
    told = {
        f"{container} {kind} {bits.strip(' *')}": "*" in bits
        for container, kind, depths, what in rows
        for bits in depths.split(",")
        if "refused" not in what and container != "JPEG"
    }
    known = {name: stored.needs_tifffile for name, stored in FILES.items()}
    assert told == known


def test_a_jpeg_of_cmyk_gives_its_four_bands_or_its_colours(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 100, 200, 50)).save(tmp_path / "a.jpg", quality=100)
    assert (open_image(tmp_path / "a.jpg", bands=Bands(4))[:, 8, 8].int() - torch.tensor([0, 100, 200, 50])).abs().max() <= 2
    assert open_image(tmp_path / "a.jpg").shape == (3, 16, 16)


NEEDED = {
    "RGB": (numbers(16, 3), 2, (), 3, "3 bands of 16 bits"),
    "RGB and infrared": (numbers(8, 4), 2, (0,), 4, "4 bands, which are not grey, RGB or CMYK"),
    "six": (numbers(16, 6), 1, (0,) * 5, 6, "6 bands, which are not grey, RGB or CMYK"),
}


@pytest.mark.parametrize("case", NEEDED)
def test_a_tiff_that_needs_tifffile_says_so_where_it_is_missing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, light, extra, channels, found = NEEDED[case]

    def missing(name: str) -> None:
        raise ImportError(name)

    write_tiff(tmp_path / "a.tif", values, values.itemsize * 8, light, extra=extra)
    monkeypatch.setattr(deep_pictures.importlib, "import_module", missing)
    with refused(Data, "a.tif", found, "pip install tifffile, which is not installed here, or convert it to grey, RGB"):
        open_image(tmp_path / "a.tif", bands=Bands(channels))
    with refused(Data, "a.tif", "where data.channels is 5", f"set data.channels={channels} for all of its bands"):
        open_image(tmp_path / "a.tif", bands=Bands(5))


@needs_tifffile
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_tiffs_in_tiles_and_planes_of_either_byte_order(
    planar: str, compression: str | None, tile: tuple[int, int] | None, order: str, big: bool, tmp_path: Path
) -> None:
    tifffile = importlib.import_module("tifffile")
    values = np.random.default_rng(1).integers(0, 4096, (20, 35, 5), dtype=np.uint16)
    written = np.moveaxis(values, 2, 0) if planar == "separate" else values
    options = {"compression": compression, "tile": tile, "predictor": bool(compression), "planarconfig": planar}
    tifffile.imwrite(
        tmp_path / "a.tif", written, bigtiff=big, byteorder=order, photometric="minisblack", metadata=None, **options
    )
    assert np.array_equal(open_image(tmp_path / "a.tif", bands=Bands(5, "stored")).permute(1, 2, 0).numpy(), values)


@needs_tifffile
@pytest.mark.parametrize("share", [10, 50, 90, 99])
def test_a_truncated_tiff_of_many_bands_is_refused(share: int, tmp_path: Path) -> None:
    whole = write_tiff(tmp_path / "a.tif", numbers(16, 6), 16, 1, extra=(0,) * 5).read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) * share // 100])
    with refused(Data, "a.tif"):
        open_image(tmp_path / "a.tif", bands=Bands(6, "stored"))


@needs_tifffile
@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
def test_mutated_tiffs_of_many_bands_are_read_or_refused(tmp_path: Path) -> None:
    whole = write_tiff(tmp_path / "a.tif", numbers(16, 6), 16, 1, extra=(0,) * 5).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(0, 250)] = rng.integers(0, 256)
        (tmp_path / "a.tif").write_bytes(content)
        refusal = None
        try:
            open_image(tmp_path / "a.tif", bands=Bands(6, "stored"))
        except UserError as error:
            refusal = error
        assert refusal is None or (refusal.code, refusal.path) == (Data, str(tmp_path / "a.tif"))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_deep_pictures_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    values = numbers(16, 3)
    exif = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0" + bytes([orientation]) + b"\0\0\0\0\0\0"
    write_png(tmp_path / "a.png", values, 16, 2, png_chunk(b"eXIf", exif))
    expected = UPRIGHT[orientation](values)
    assert np.array_equal(open_image(tmp_path / "a.png", bands=Bands(3, "stored")).permute(1, 2, 0).numpy(), expected)
    assert np.array_equal(turned_upright(values, orientation), expected)


def test_a_damaged_deep_png_is_refused(tmp_path: Path) -> None:
    whole = write_png(tmp_path / "a.png", numbers(16, 3), 16, 2).read_bytes()
    for length in (26, 40, len(whole) // 2, len(whole) - 5):
        (tmp_path / "a.png").write_bytes(whole[:length])
        with refused(Data, "a.png", "not a readable picture"):
            open_image(tmp_path / "a.png")


def test_an_interlaced_deep_png_with_long_texts_comes_in(tmp_path: Path) -> None:
    text = png_chunk(b"zTXt", b"history\0\0" + zlib.compress(b"x" * 3_000_000))
    write_png(tmp_path / "a.png", numbers(16, 4), 16, 6, text)
    assert np.array_equal(open_image(tmp_path / "a.png", bands=Bands(4, "stored")).permute(1, 2, 0).numpy(), numbers(16, 4))


BAD_ARRAYS = {
    "bands first": (
        np.zeros((4, 9, 8), np.uint8),
        "an array of shape (4, 9, 8), its bands first",
        "save numpy.moveaxis(array, 0, -1)",
    ),
    "four axes": (np.zeros((2, 4, 4, 4), np.uint8), "an array of shape (2, 4, 4, 4)", "save it as (height, width)"),
    "no rows": (np.zeros((0, 4), np.uint8), "an array of shape (0, 4)", "save it as (height, width)"),
    "int64": (np.zeros((4, 4), np.int64), "an array of int64", "save it as uint8, uint16, int16 or float32"),
    "complex": (np.zeros((4, 4), complex), "an array of complex128", "save it as uint8"),
    "bool": (np.zeros((4, 4), bool), "an array of bool", "save it as uint8"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_an_array_that_is_no_picture_is_refused(case: str, tmp_path: Path) -> None:
    array, found, remedy = BAD_ARRAYS[case]
    np.save(tmp_path / "a.npy", array)
    with refused(Data, "a.npy", found, remedy):
        open_image(tmp_path / "a.npy", bands=Bands(4))


def test_no_object_in_an_array_is_read_and_no_size_is_believed(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{}]], object), allow_pickle=True)
    with refused(Data, "a.npy", "an array of object"):
        open_image(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.zeros((9, 9), np.uint16))
    whole = (tmp_path / "a.npy").read_bytes()
    for changed, found in [
        (whole[:-1], "it is not whole"),
        (whole.replace(b"(9, 9)", b"(9,90)"), "it is not whole"),
        (whole.replace(b"(9, 9), ", b"(99999,99999),")[:128] + whole[128:], "more than 100,000,000 pixels"),
        (whole[:40], "not a readable array"),
        (whole.replace(b"descr", b"descx"), "not a readable array"),
    ]:
        (tmp_path / "a.npy").write_bytes(changed)
        with refused(Data, "a.npy", found):
            open_image(tmp_path / "a.npy")


def test_arrays_of_either_order_come_in(tmp_path: Path) -> None:
    values = numbers(16, 3)
    for array in (np.asfortranarray(values), values.astype(">u2")):
        file = io.BytesIO()
        np.save(file, array)
        image = open_image(tmp_path / "a.npy", file.getvalue(), bands=Bands(3, "stored"))
        assert np.array_equal(image.permute(1, 2, 0).numpy(), values)


def test_values_that_are_not_finite_get_the_mean_of_their_band(tmp_path: Path) -> None:
    values = floats(3)
    values[0, 0] = np.nan
    values[1, 1, 2] = np.inf
    np.save(tmp_path / "a.npy", values)
    raster = open_raster(tmp_path / "a.npy", bands=Bands(3, "stored"))
    assert raster.valid is not None
    assert (~raster.valid).nonzero().tolist() == [[0, 0]]
    known = np.delete(values[..., 2].reshape(-1), [0, values.shape[1] + 1])
    assert raster.image[2, 0, 0] == raster.image[2, 1, 1] == np.float32(known.mean(dtype=np.float64))


MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"]


@pytest.mark.parametrize("mode", MODES)
def test_pillow_pictures_of_every_mode_have_a_rule(mode: str) -> None:
    picture = Image.new(mode, (3, 2))
    assert image_to_tensor(picture, bands=Bands(3)).shape == (3, 2, 3)
    assert image_to_tensor(picture, bands=Bands(1)).shape == (1, 2, 3)
    count = len(picture.getbands())
    if count in (2, 4) and mode != "PA":
        assert image_to_tensor(picture, bands=Bands(count)).shape == (count, 2, 3)
    with refused(Data, "picture: ", "where data.channels is 9"):
        image_to_tensor(picture, bands=Bands(9))
