"""GeoJSON (RFC 7946) of a picture: a Polygon with its holes for each region. Coordinates are pixels, x to the right, y down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from segnet.classes import ClassSet
from segnet.regions.shapes import Kept, PictureShapes, Shape
from segnet.system.errors import data_error

SUFFIX = ".geojson"


def encode_geojson(shapes: PictureShapes, classes: ClassSet) -> bytes:
    """The content of a file. Properties of a feature: class, id, area in pixels, and the mean probability of the class."""
    content: dict[str, Any] = {
        "type": "FeatureCollection",
        "picture": shapes.picture,
        "height": shapes.size[0],
        "width": shapes.size[1],
        "tolerance": shapes.tolerance,
        **({"kept": shapes.kept._asdict()} if shapes.kept else {}),
        "features": [_feature(shape, classes) for shape in shapes.shapes],
    }
    return (json.dumps(content) + "\n").encode()


def _feature(shape: Shape, classes: ClassSet) -> dict[str, Any]:
    name, probability = classes.names[shape.class_id], round(shape.probability, 6)
    properties = {"class": name, "id": shape.class_id, "area": shape.pixels, "mean_probability": probability}
    rings = [[*ring.tolist(), ring[0].tolist()] for ring in shape.polygon]  # the first corner is repeated
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": rings}}


def read_geojson(path: Path) -> PictureShapes:
    """The shapes in a file that `encode_geojson` wrote. Raises UserError (data) for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        shapes = [_shape(feature) for feature in content["features"]]
        kept = Kept(**content["kept"]) if "kept" in content else None
        return PictureShapes(content["picture"], (content["height"], content["width"]), shapes, content["tolerance"], kept)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        found = f"not polygons that segnet predict wrote ({error!s:.60})"
        raise data_error(path, found, "predict the picture again with --overwrite") from None


def _shape(feature: dict[str, Any]) -> Shape:
    properties = feature["properties"]
    polygon = [np.array(ring[:-1], dtype=np.int32).reshape(-1, 2) for ring in feature["geometry"]["coordinates"]]
    return Shape(properties["id"], polygon, properties["area"], properties["mean_probability"])
