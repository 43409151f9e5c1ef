"""Map coordinates by the tags of a GeoTIFF: corners of pixels, the coordinate system, and square metres where these are sure."""

import numpy as np
import pytest
from geotiffs import write_geotiff
from image_cases import COLOR

from segnet.data.georeference import Georeference, read_georeference
from segnet.data.map_coordinates import MapPlace, map_place


def keys(**values: int) -> tuple[int, ...]:
    """A directory of GeoKeys by short names."""
    numbers = {"model": 1024, "raster": 1025, "geodetic": 2048, "projected": 3072, "unit": 3076}
    rows = [number for name, value in values.items() for number in (numbers[name], 0, 1, value)]
    return (1, 1, 0, len(values), *rows)


def place(tags: dict[int, object]) -> MapPlace | None:
    return map_place(Georeference({number: (12, value) for number, value in tags.items()}, False))


GRID = {33550: (0.25, 0.5, 0.0), 33922: (2.0, 4.0, 0.0, 100.0, 200.0, 0.0)}
UTM = keys(model=1, raster=1, projected=25832)


def test_the_tags_of_a_file_give_the_place_of_its_corners(tmp_path):
    found = map_place(read_georeference(write_geotiff(tmp_path / "a.tif", COLOR)))
    assert found == MapPlace((0.25, 0.0, 412345.678, 0.0, -0.25, 5712345.25), "urn:ogc:def:crs:EPSG::25832", 0.0625)
    assert map_place(None) is None


def test_a_tie_point_inside_of_the_picture_counts_from_there():
    corners = np.array([[2, 4], [0, 0], [3, 5]])
    found = place({**GRID, 34735: UTM})
    assert found is not None
    assert found.to_map(corners).tolist() == [[100, 200], [99.5, 202], [100.25, 199.5]]
    assert np.array_equal(found.to_pixels(found.to_map(corners)), corners)
    assert found.turns


def test_coordinates_of_pixel_centres_are_half_a_pixel_off():
    centres = place({**GRID, 34735: keys(model=1, raster=2, projected=25832)})
    assert centres is not None
    assert centres.to_map(np.array([[2, 4]])).tolist() == [[100 - 0.125, 200 + 0.25]]
    turned = (0.0, 2.0, 0.0, 10.0, 3.0, 0.0, 0.0, 20.0, *[0.0] * 7, 1.0)
    found = place({34264: turned, 34735: keys(model=1, raster=2, projected=25832)})
    assert found is not None
    assert found.to_map(np.array([[0, 0], [1, 0], [0, 1]])).tolist() == [[9, 18.5], [9, 21.5], [11, 18.5]]
    assert found.pixel_m2 == 6


@pytest.mark.parametrize(
    "tags",
    [
        {33550: (0.0, 0.5, 0.0), 33922: GRID[33922]},
        {33550: GRID[33550], 33922: (*GRID[33922], *GRID[33922])},  # points on the ground
        {33922: (*GRID[33922], *GRID[33922])},
        {33550: (0.25,), 33922: GRID[33922]},
        {33550: ("a", "b", "c"), 33922: GRID[33922]},
        {33550: (float("nan"), 1.0, 0.0), 33922: GRID[33922]},
        {34264: (1.0,) * 16},
    ],
)
def test_tags_that_give_pixels_no_place(tags):
    assert place({**tags, 34735: UTM}) is None


SYSTEMS = {
    "UTM without a unit": (keys(model=1, projected=32633), "EPSG::32633", 0.125, ""),
    "metres": (keys(model=1, projected=2056, unit=9001), "EPSG::2056", 0.125, ""),
    "US feet": (keys(model=1, projected=2263, unit=9003), "EPSG::2263", 0.125 * (1200 / 3937) ** 2, ""),
    "no unit": (keys(model=1, projected=2263), "EPSG::2263", None, "do not name their unit"),
    "links": (keys(model=1, projected=2314, unit=9039), "EPSG::2314", None, "none of metre and foot (EPSG 9039)"),
    "Web Mercator": (keys(model=1, projected=3857, unit=9001), "EPSG::3857", None, "does not keep areas"),
    "own system": (keys(model=1, projected=32767, unit=9001), None, 0.125, ""),
    "ETRS89 in degrees": (keys(model=2, geodetic=4258), "EPSG::4258", None, "angles"),
    "WGS 84 in degrees": (keys(model=2, geodetic=4326), "OGC:1.3:CRS84", None, "angles"),
    "geocentric": (keys(model=3, geodetic=4978), None, None, "no coordinate system"),
    "none": ((1, 1, 0, 0), None, None, "no coordinate system"),
    "cut off": ((1, 1, 0, 5, 1024, 0), None, None, "no coordinate system"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_coordinate_systems_and_their_square_metres(name):
    directory, urn, area, why = SYSTEMS[name]
    found = place({**GRID, 34735: directory})
    assert found is not None
    assert found.crs == (f"urn:ogc:def:crs:{urn}" if urn else None)
    assert found.pixel_m2 == pytest.approx(area)
    assert why in found.without_m2
    assert bool(found.without_m2) == (area is None)
