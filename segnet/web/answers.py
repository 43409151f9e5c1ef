"""The answers of the server: the files that `segnet predict` writes, in memory, and the planes that the page draws."""

from __future__ import annotations

import io
import json
import struct
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from segnet.config.sections import Bands
from segnet.data.images import SUFFIXES
from segnet.data.scaling import Raster
from segnet.inference.predictor import Prediction, Predictor, Restoration
from segnet.prediction.outputs import (
    NamedPrediction,
    NamedRestoration,
    find_output,
    georeference_for,
    outputs_of,
    require_size,
    require_writable,
)
from segnet.system.devices import describe_device
from segnet.visualization import preview, to_array

PLANES = "planes"  # the format of an answer to the page
_OF_FOLDERS = ("ranking",)  # outputs that are of no use for a single picture
_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".geojson": "application/geo+json",
    ".csv": "text/csv; charset=utf-8",
    ".npz": "application/octet-stream",
    ".npy": "application/octet-stream",
    ".tif": "image/tiff",
}


class Question(NamedTuple):
    """What is asked of the network."""

    name: str  # of the picture
    content: bytes  # of its file
    format: str  # one of `formats_of`
    with_image: bool = False  # for planes: add the picture as the network sees it


class Answer(NamedTuple):
    """What is sent back."""

    content: bytes
    content_type: str
    size: tuple[int, int]  # height, width of the upright picture
    seconds: float  # that the network took


def formats_of(task: str) -> list[str]:
    """The formats of an answer, the usual one first: the outputs of `segnet predict` for single pictures, and planes."""
    return [*(kind for kind in outputs_of(task) if kind not in _OF_FOLDERS), PLANES]


def describe(predictor: Predictor) -> dict[str, object]:
    """What the page is told of the network, as values for JSON."""
    path, classes = predictor.path.resolve(), predictor.classes
    is_in_run = path.suffix == ".pt" and path.parent.name
    about = [describe_device(predictor.device), predictor.precision.name]
    if len(classes):
        about.insert(0, f"{len(classes)} classes")
    return {
        "title": path.parent.name if is_in_run else path.stem,
        "about": " · ".join(about),
        "task": predictor.config.task,
        "classes": [{"name": name, "color": color} for name, color in zip(classes.names, classes.colors, strict=True)],
        "accept": ",".join(sorted(SUFFIXES)),
        "formats": formats_of(predictor.config.task),
    }


def answer(predictor: Predictor, question: Question) -> Answer:
    """The answer of the network. The same bytes as `segnet predict` writes, unless it asks for planes.

    Raises UserError (data) for a picture that cannot be read, or that the format cannot hold.
    """
    path, kind = Path(question.name), question.format
    raster = predictor.read(path, question.content)
    output = None if kind == PLANES else find_output(kind)
    place = None
    if output:
        require_size([kind], path, max(raster.image.shape[1:]))
        require_writable([kind], path, raster)
        place = georeference_for([kind], path, question.content)
    started = time.perf_counter()
    wanted = output is not None and output.needs_probabilities
    prediction = predictor.predict_or_restore(raster, probabilities=wanted)
    seconds = time.perf_counter() - started
    size = (prediction.image.shape[0], prediction.image.shape[1])
    if output is None:
        image = to_array(preview(raster.image, predictor.config.data.bands)) if question.with_image else None
        if isinstance(prediction, Restoration):
            prediction = prediction._replace(restored=_shown(prediction.restored, raster, predictor.config.data.bands))
        return Answer(_planes(prediction, seconds, image), "application/octet-stream", size, seconds)
    named: NamedPrediction | NamedRestoration
    if isinstance(prediction, Restoration):
        named = NamedRestoration(question.name, prediction, place, raster.nodata)
    else:
        named = NamedPrediction(question.name, prediction, predictor.classes, georeference=place)
    file = io.BytesIO()
    output.write(file, named)
    return Answer(file.getvalue(), _TYPES[Path(output.suffix).suffix or output.suffix], size, seconds)


def _shown(restored: NDArray[Any], raster: Raster, bands: Bands) -> NDArray[np.uint8]:
    """A restored picture in bytes to look at: itself where it holds bytes, grey or RGB."""
    if restored.dtype == np.uint8 and restored.shape[-1] in (1, 3):
        return restored
    low, high = (0.0, 255.0) if bands.ranges else raster.limits
    values = (torch.from_numpy(restored.astype(np.float32)) - low) * (255 / (high - low))
    return to_array(preview(values.permute(2, 0, 1), bands))


def _planes(prediction: Prediction | Restoration, seconds: float, image: NDArray[np.uint8] | None) -> bytes:
    """The length of the JSON that follows (uint32, little-endian), that JSON, and planes of bytes, row by row.

    The JSON has height, width, seconds, and the name of each plane with the number of its bytes a pixel.
    """
    planes: dict[str, NDArray[np.uint8]] = {}
    if isinstance(prediction, Restoration):
        planes["restored"] = prediction.restored
    else:
        planes["mask"] = prediction.mask
        planes["confidence"] = _in_bytes(prediction.confidence)
        planes["uncertainty"] = _in_bytes(prediction.uncertainty)
    if image is not None:
        planes["image"] = image
    height, width = prediction.image.shape[:2]
    names = [[name, plane.size // (height * width)] for name, plane in planes.items()]
    head = json.dumps({"height": height, "width": width, "seconds": seconds, "planes": names}).encode()
    return b"".join([struct.pack("<I", len(head)), head, *(np.ascontiguousarray(plane).tobytes() for plane in planes.values())])


def _in_bytes(shares: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0..1 as 0..255, rounded as `segnet predict` rounds; NaN as 255."""
    scaled = np.nan_to_num(shares, nan=1.0) * np.float32(255)
    return np.rint(scaled, out=scaled).astype(np.uint8)
