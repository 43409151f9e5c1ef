"""GeoJSON of a picture: a Polygon with its holes for each region.

Coordinates are pixels, x to the right, y down. Those of a GeoTIFF are of its own coordinate system, which the member "crs" of
GeoJSON 2008 names: RFC 7946 has WGS 84 alone, into which they cannot be brought without tables of the systems.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnet.classes import ClassSet
from segnet.data.map_coordinates import MapPlace
from segnet.regions.rims import Ring
from segnet.regions.shapes import Kept, PictureShapes, Shape
from segnet.system.errors import data_error

SUFFIX = ".geojson"
_DECIMALS = 9  # of coordinates: a tenth of a millimetre where they are degrees


def encode_geojson(shapes: PictureShapes, classes: ClassSet, place: MapPlace | None = None) -> bytes:
    """The content of a file. Properties of a feature: class, id, area in pixels, and the mean probability of the class.

    With `place` coordinates are those of the map, and a feature has its area in square metres where that is known.
    """
    content: dict[str, Any] = {
        "type": "FeatureCollection",
        "picture": shapes.picture,
        "height": shapes.size[0],
        "width": shapes.size[1],
        "tolerance": shapes.tolerance,
        **({"kept": shapes.kept._asdict()} if shapes.kept else {}),
        **(_where(place) if place else {}),
    }
    # Each feature is text before the next one is made: the lists of all of them would take twenty times the memory.
    features = ", ".join(json.dumps(_feature(shape, classes, place)) for shape in shapes.shapes)
    return f'{json.dumps(content)[:-1]}, "features": [{features}]}}\n'.encode()


def _where(place: MapPlace) -> dict[str, Any]:
    """The coordinate system, null where it has no name, and the way from pixels to coordinates."""
    crs = {"type": "name", "properties": {"name": place.crs}} if place.crs else None
    return {"crs": crs, "transform": place.transform}


def _feature(shape: Shape, classes: ClassSet, place: MapPlace | None) -> dict[str, Any]:
    name, probability = classes.names[shape.class_id], round(shape.probability, 6)
    properties = {"class": name, "id": shape.class_id, "area": shape.pixels, "mean_probability": probability}
    if place and place.pixel_m2:
        properties["area_m2"] = float(f"{shape.pixels * place.pixel_m2:.8g}")
    polygon = [_on_map(ring, place) for ring in shape.polygon] if place else shape.polygon
    rings = [ring.tolist() for ring in polygon]
    for ring in rings:
        ring.append(ring[0])  # the first corner is repeated
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": rings}}


def _on_map(ring: Ring, place: MapPlace) -> NDArray[np.float64]:
    """The ring in map coordinates. As RFC 7946 wants it, the outer one runs counter-clockwise where y points up."""
    return place.to_map(_backwards(ring) if place.turns else ring).round(_DECIMALS)


def _backwards(ring: Ring) -> Ring:
    """The ring in the other direction, from the same corner."""
    return np.concatenate([ring[:1], ring[:0:-1]])


def read_geojson(path: Path) -> PictureShapes:
    """The shapes in a file that `encode_geojson` wrote. Raises UserError (data) for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        place = MapPlace(_six(content["transform"]), None, None) if "transform" in content else None
        shapes = [_shape(feature, place) for feature in content["features"]]
        kept = Kept(**content["kept"]) if "kept" in content else None
        return PictureShapes(content["picture"], (content["height"], content["width"]), shapes, content["tolerance"], kept)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        found = f"not polygons that segnet predict wrote ({error!s:.60})"
        raise data_error(path, found, "predict the picture again with --overwrite") from None


def _six(numbers: list[float]) -> tuple[float, float, float, float, float, float]:
    a, b, c, d, e, f = map(float, numbers)
    return a, b, c, d, e, f


def _shape(feature: dict[str, Any], place: MapPlace | None) -> Shape:
    properties = feature["properties"]
    rings = [np.array(ring[:-1]).reshape(-1, 2) for ring in feature["geometry"]["coordinates"]]
    polygon = [place.to_pixels(ring) if place else ring.astype(np.int32) for ring in rings]
    if place and place.turns:
        polygon = [_backwards(ring) for ring in polygon]
    return Shape(properties["id"], polygon, properties["area"], properties["mean_probability"])
