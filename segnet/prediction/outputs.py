"""The kinds of file that are written for a predicted picture: one row each in the table of its task."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.config.sections import RGB, Bands
from segnet.data.georeference import Georeference, encode_geotiff, find_georeference
from segnet.data.images import encode_image
from segnet.data.map_coordinates import map_place
from segnet.data.mask_files import encode_mask
from segnet.data.picture_encoding import describe_values, encode_array, encode_png, encode_tiff, fits_png, require_tifffile
from segnet.data.rle import encode_rle
from segnet.data.scaling import Raster
from segnet.inference.predictor import Prediction, Restoration
from segnet.prediction.areas import SUFFIX as AREAS
from segnet.prediction.areas import encode_areas, picture_areas
from segnet.prediction.ranking import SUFFIX as RANKING
from segnet.prediction.ranking import encode_doubt, picture_doubt
from segnet.regions.shapes import trace_shapes
from segnet.system.errors import data_error
from segnet.vectors.geojson import SUFFIX as GEOJSON
from segnet.vectors.geojson import encode_geojson

_MAX_JPEG = 65_500  # pixels a side that libjpeg writes
_BYTES_PER_PIXEL = 24  # image, mask and maps of a prediction, with temporaries
_REGIONS = 40  # bytes a pixel: regions and their outlines


class Options(NamedTuple):
    """What changes the content of outputs besides the network and its settings."""

    tolerance: float = 0.0  # of polygons, pixels; 0: exact
    below: float = 0.0  # pixels of a mask with less confidence are ignored; 0: off


PLAIN = Options()


class NamedPrediction(NamedTuple):
    """All that an output is written from."""

    picture: str  # the path of the picture, relative to the folder of all outputs
    prediction: Prediction
    classes: ClassSet
    options: Options = PLAIN
    georeference: Georeference | None = None  # of the picture; None: it has none, or no output needs it


class NamedRestoration(NamedTuple):
    """All that an output of a denoising is written from."""

    picture: str  # the path of the picture, relative to the folder of all outputs
    prediction: Restoration
    georeference: Georeference | None = None  # of the picture; None: it has none, or no output takes it
    nodata: float | None = None  # the value of pixels that hold nothing; None: there are none


class Output(NamedTuple):
    """A kind of output file."""

    suffix: str  # appended to the picture's name without its own suffix
    write: Callable[[BinaryIO, Any], object]  # the content of the file, from a NamedPrediction or a NamedRestoration
    needs_probabilities: bool = False  # whether `write` reads `Prediction.probabilities`
    max_side: int | None = None  # pixels; None: no limit
    memory: int = 0  # bytes a pixel, about, that `write` takes beside the prediction
    needs_georeference: bool = False  # whether `write` is impossible without the georeference of the picture
    takes_georeference: bool = False  # whether `write` keeps a georeference where the picture has one


def _write_mask(file: BinaryIO, named: NamedPrediction) -> None:
    """A palette PNG of class ids; with `below`, of those that are sure enough, and 255 elsewhere."""
    prediction, below = named.prediction, named.options.below
    mask = np.where(prediction.confidence < below, np.uint8(IGNORE_INDEX), prediction.mask) if below else prediction.mask
    file.write(encode_mask(mask, named.classes))


def _write_overlay(file: BinaryIO, named: NamedPrediction) -> None:
    """A JPEG of the image with the mask's colours over it."""
    file.write(encode_image(named.prediction.overlay(), ".jpg"))


def _write_uncertainty(file: BinaryIO, named: NamedPrediction) -> None:
    """A grey PNG, 0 (certain) to 255."""
    scaled = named.prediction.uncertainty * np.float32(255)
    file.write(encode_image(np.rint(scaled, out=scaled).astype(np.uint8), ".png"))


def _write_probabilities(file: BinaryIO, named: NamedPrediction) -> None:
    """(K, H, W) float16 for `numpy.load`, not compressed: that saves a sixth and takes as long as the network."""
    probabilities = named.prediction.probabilities
    assert probabilities is not None
    header = {"descr": "<f2", "fortran_order": False, "shape": tuple(probabilities.shape)}
    entry = zipfile.ZipInfo("probabilities.npy")  # always dated 1980: equal predictions give equal bytes
    with zipfile.ZipFile(file, "w") as archive, archive.open(entry, "w", force_zip64=True) as array:
        np.lib.format.write_array_header_1_0(array, header)
        for plane in probabilities:  # one class at a time, to save memory
            array.write(plane.astype("<f2"))


def _write_json(file: BinaryIO, named: NamedPrediction) -> None:
    """The classes that the mask holds, each with its share of the pixels and its region in COCO's run-length encoding."""
    prediction = named.prediction
    height, width = prediction.mask.shape
    columns = np.ascontiguousarray(prediction.mask.T)  # (W, H), the order of the encoding
    pixels = np.bincount(columns.ravel(), minlength=256)
    classes = [
        {
            "id": int(i),
            "name": named.classes.names[i],
            "pixels": int(pixels[i]),
            "share": int(pixels[i]) / (height * width),
            "rle": {"size": [height, width], "counts": encode_rle((columns == i).T)},
        }
        for i in np.flatnonzero(pixels[: len(named.classes)])  # without pixels where the picture holds nothing
    ]
    means = {
        "confidence": float(prediction.confidence.mean(dtype=np.float64)),
        "uncertainty": float(prediction.uncertainty.mean(dtype=np.float64)),
    }
    content = {"picture": named.picture, "height": height, "width": width, **means, "classes": classes}
    file.write((json.dumps(content) + "\n").encode())


def _write_polygons(file: BinaryIO, named: NamedPrediction) -> None:
    """GeoJSON of the regions, see `trace_shapes`."""
    prediction, tolerance = named.prediction, named.options.tolerance
    shapes = trace_shapes(named.picture, prediction.mask, prediction.confidence, named.classes, tolerance=tolerance)
    file.write(encode_geojson(shapes, named.classes, map_place(named.georeference)))


def _write_areas(file: BinaryIO, named: NamedPrediction) -> None:
    """The rows of a picture in areas.csv."""
    areas = picture_areas(named.picture, named.prediction.mask, named.prediction.confidence, named.classes)
    file.write(encode_areas(areas, map_place(named.georeference)))


def _write_geotiff(file: BinaryIO, named: NamedPrediction) -> None:
    """The mask as a palette TIFF with the georeference of the picture."""
    assert named.georeference
    file.write(encode_geotiff(named.prediction.mask, named.classes, named.georeference))


def _write_restored(file: BinaryIO, named: NamedRestoration) -> None:
    """A PNG of the restored picture, grey or RGB, of 8 or 16 bits."""
    file.write(encode_png(named.prediction.restored))


def _write_tiff(file: BinaryIO, named: NamedRestoration) -> None:
    """A TIFF of the restored picture, of its type, at its place."""
    file.write(encode_tiff(named.prediction.restored, named.georeference, named.nodata))


def _write_array(file: BinaryIO, named: NamedRestoration) -> None:
    """The restored picture for `numpy.load`."""
    file.write(encode_array(named.prediction.restored))


def _write_ranking(file: BinaryIO, named: NamedPrediction) -> None:
    """What the picture is ranked by in ranking.csv."""
    prediction = named.prediction
    file.write(encode_doubt(picture_doubt(named.picture, prediction.image, prediction.entropy, prediction.mutual_information)))


OUTPUTS: dict[str, Output] = {  # of a segmentation, by the name that --save takes
    "mask": Output(".png", _write_mask),
    "overlay": Output(".overlay.jpg", _write_overlay, max_side=_MAX_JPEG),
    "probabilities": Output(".probabilities.npz", _write_probabilities, needs_probabilities=True),
    "uncertainty": Output(".uncertainty.png", _write_uncertainty),
    "json": Output(".json", _write_json),
    "polygons": Output(GEOJSON, _write_polygons, memory=_REGIONS, takes_georeference=True),
    "areas": Output(AREAS, _write_areas, memory=_REGIONS, takes_georeference=True),
    "ranking": Output(RANKING, _write_ranking),
    "geotiff": Output(".tif", _write_geotiff, needs_georeference=True),
}


RESTORED_OUTPUTS: dict[str, Output] = {  # of a denoising
    "restored": Output(".png", _write_restored),
    "tiff": Output(".tif", _write_tiff, takes_georeference=True),
    "array": Output(".npy", _write_array),
}


def outputs_of(task: str) -> dict[str, Output]:
    """The kinds of output of a task by their names, the usual one first."""
    return RESTORED_OUTPUTS if task == "denoise" else OUTPUTS


def shown_outputs(task: str) -> tuple[str, ...]:
    """The kinds of output of a task that a first prediction should have."""
    return ("restored",) if task == "denoise" else ("mask", "overlay")


def find_output(kind: str) -> Output:
    """The kind of output of this name; each task has names of its own."""
    return OUTPUTS[kind] if kind in OUTPUTS else RESTORED_OUTPUTS[kind]


def output_path(stem: Path, kind: str) -> Path:
    """The output file of `kind` for the picture whose outputs are called `stem`."""
    return stem.with_name(stem.name + find_output(kind).suffix)


def need_probabilities(kinds: Iterable[str]) -> bool:
    """True when one of `kinds` is written from the probabilities of all classes."""
    return any(find_output(kind).needs_probabilities for kind in kinds)


def georeference_for(kinds: Sequence[str], picture: Path, content: bytes, world: Path | None = None) -> Georeference | None:
    """The georeference of a picture with this content, for outputs that keep it; None where it has none or no output takes it.

    `world` is its world file. Raises UserError (data) where that cannot be read, or one of `kinds` cannot be written without a
    georeference.
    """
    outputs = [find_output(kind) for kind in kinds]
    needed = any(output.needs_georeference for output in outputs)
    if not needed and not any(output.takes_georeference for output in outputs):
        return None
    georeference = find_georeference(picture, content, world)
    if georeference is None and needed:
        found = "has no georeference (tags 33550 and 33922, or 34264, or a world file) that a GeoTIFF could take over"
        raise data_error(picture, found, "predict it without geotiff")
    return georeference


def require_writable(kinds: Iterable[str], picture: Path, raster: Raster) -> None:
    """Raise UserError when the restored picture cannot be written as one of `kinds`: (data) for its type and number of bands,
    (environment) where a package is missing."""
    kind, bands = np.dtype(raster.stored), len(raster.image)
    if "restored" in kinds and not fits_png(kind, bands):
        found = f"{describe_values(kind, bands)}, which a PNG does not hold"
        raise data_error(picture, found, "write it with --save array (.npy) or --save tiff")
    if "tiff" in kinds:
        require_tifffile()


def bytes_per_pixel(kinds: Sequence[str], num_classes: int, bands: Bands = RGB) -> int:
    """The memory that a pixel takes from the reading of its picture to the end of writing, about."""
    deep = 0 if bands.are_colors else 8 * bands.channels  # the values as stored and as float32
    own = max((find_output(kind).memory for kind in kinds), default=0)
    return _BYTES_PER_PIXEL + deep + own + (4 * num_classes if need_probabilities(kinds) else 0)


def require_size(kinds: Iterable[str], picture: Path, side: int) -> None:
    """Raise UserError (data) when the longer `side` of a picture, in pixels, is more than one of `kinds` can hold."""
    for kind in kinds:
        limit = find_output(kind).max_side
        if limit is not None and side > limit:
            found = f"{side:,} pixels long; its {kind} may have {limit:,}"
            raise data_error(picture, found, f"predict it without {kind}")
