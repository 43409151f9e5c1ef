"""The georeference of a picture, and a mask that takes it over."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from geotiffs import TAGS, geo_tags, write_geotiff
from image_cases import COLOR, GREY
from PIL import Image

from segnet.classes import ClassSet
from segnet.data.dataset import SegmentationDataset
from segnet.data.georeference import encode_geotiff, read_georeference, world_file
from segnet.data.images import open_raster
from segnet.data.layout import mask_path
from segnet.data.mask_files import open_mask


@pytest.mark.parametrize("nodata", [None, "0", "-9999", "nan"])
def test_a_mask_takes_the_georeference_over(nodata: str | None, tmp_path: Path, tiny_classes: ClassSet) -> None:
    path = write_geotiff(tmp_path / "a.tif", COLOR, nodata)
    found = read_georeference(path)
    assert found is not None
    assert found == read_georeference(io.BytesIO(path.read_bytes()))
    mask = np.where(GREY > 200, 255, GREY % 3).astype(np.uint8)
    (tmp_path / "mask.tif").write_bytes(encode_geotiff(mask, tiny_classes, found))
    assert geo_tags(tmp_path / "mask.tif") == {**TAGS, **({42113: "255"} if nodata else {})}
    with Image.open(tmp_path / "mask.tif") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), mask)
        assert picture.getpalette()[3:6] == list(tiny_classes.colors[1])


def test_pictures_without_a_place_have_no_georeference(tmp_path: Path) -> None:
    Image.fromarray(COLOR).save(tmp_path / "a.tif")
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(b"II*\0nothing")
    write_geotiff(tmp_path / "turned.tif", COLOR, "0", orientation=6)
    for name in ("a.tif", "a.png", "b.tif", "turned.tif"):
        assert read_georeference(tmp_path / name) is None


def test_pixels_of_the_value_of_nodata_are_not_scored(tiny_data: Path, tiny_classes: ClassSet) -> None:
    picture = tiny_data / "JPEGImages" / "train_0.jpg"
    pixels = np.asarray(Image.open(picture)).copy()
    picture.unlink()
    pixels[:5] = 0
    pixels[10, 10] = (0, 0, 9)  # not in all bands
    write_geotiff(picture.with_suffix(".tif"), pixels, "0")
    raster = open_raster(picture.with_suffix(".tif"))
    assert raster.valid is not None
    assert not raster.valid[:5].any()
    assert raster.valid[5:].all()
    sample = SegmentationDataset(tiny_data, "train", tiny_classes).read(0)
    truth = open_mask(mask_path(tiny_data, "train_0"), tiny_classes)
    assert (sample.truth[:5] == 255).all()
    assert sample.truth[5:].equal(truth[5:])


@pytest.mark.parametrize(
    ("picture", "world"),
    [("a.tif", "a.tfw"), ("a.tif", "a.tifw"), ("a.jpg", "a.jgw"), ("a.png", "a.pgw"), ("a.jpeg", "a.jgw"), ("a.tif", "a.wld")],
)
def test_the_world_file_beside_a_picture(picture: str, world: str, tmp_path: Path) -> None:
    assert world_file(tmp_path / picture) is None
    (tmp_path / world).write_text("1\n0\n0\n-1\n5\n6\n")
    assert world_file(tmp_path / picture) == tmp_path / world
