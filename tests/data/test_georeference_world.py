"""The georeference in a world file: coordinates of pixel centres, without a coordinate system."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from geotiffs import TAGS, geo_tags, write_geotiff
from helpers import refused
from image_cases import COLOR
from PIL import Image

from segnet.classes import ClassSet
from segnet.data.georeference import encode_geotiff, find_georeference, read_world_file
from segnet.data.map_coordinates import map_place
from segnet.system.errors import ExitCode

TURNED = "0.5\n0.1\n-0.2\n-0.4\n1000\n2000\n"  # A, D, B, E, C, F


def test_its_coordinates_are_those_of_pixel_centres(tmp_path: Path) -> None:
    (tmp_path / "a.jgw").write_text(TURNED)
    place = map_place(read_world_file(tmp_path / "a.jgw"))
    assert place is not None
    corners = place.to_map(np.array([[0, 0], [2, 1]]))
    assert corners.ravel().tolist() == pytest.approx([1000 - 0.25 + 0.1, 2000 - 0.05 + 0.2, 1000.65, 1999.95])
    assert place.crs is None
    assert place.pixel_m2 is None
    assert "no coordinate system" in place.without_m2


def test_the_tags_of_a_geotiff_come_first(tmp_path: Path) -> None:
    (tmp_path / "a.tfw").write_text(TURNED)
    content = write_geotiff(tmp_path / "a.tif", COLOR).read_bytes()
    found = find_georeference(tmp_path / "a.tif", content, tmp_path / "a.tfw")
    assert found is not None
    assert found.tags[33922][1] == TAGS[33922]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_picture_that_its_orientation_turns_has_no_place(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "a.wld").write_text(TURNED)
    for orientation, has_place in ((1, True), (6, False)):
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(COLOR).save(tmp_path / f"a.{suffix}", exif=exif)
        content = (tmp_path / f"a.{suffix}").read_bytes()
        found = find_georeference(tmp_path / f"a.{suffix}", content, tmp_path / "a.wld")
        assert (found is not None) == has_place
        assert find_georeference(tmp_path / f"a.{suffix}", content, None) is None


def test_a_mask_as_geotiff_keeps_the_numbers_and_says_that_they_are_of_centres(tmp_path: Path, tiny_classes: ClassSet) -> None:
    (tmp_path / "a.pgw").write_text(TURNED)
    mask = np.zeros((4, 5), dtype=np.uint8)
    (tmp_path / "mask.tif").write_bytes(encode_geotiff(mask, tiny_classes, read_world_file(tmp_path / "a.pgw")))
    with Image.open(tmp_path / "mask.tif") as picture:
        assert picture.tag_v2[34264][:8] == (0.5, -0.2, 0, 1000, 0.1, -0.4, 0, 2000)
    assert geo_tags(tmp_path / "mask.tif") == {34735: (1, 1, 0, 1, 1025, 0, 1, 2)}


@pytest.mark.parametrize(
    "text", ["", "1\n0\n0\n-1\n5\n", "1\n0\n0\n-1\n5\n6\n7\n", "0,5\n0\n0\n-1\n5\n6", "1 1 1 1 5 6", "1 0 0 nan 5 6"]
)
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.jgw").write_text(text)
    with refused(ExitCode.DATA, "a.jgw: not a world file", "six numbers", "move it away"):
        read_world_file(tmp_path / "a.jgw")
