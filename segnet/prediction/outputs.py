"""What is written of a predicted picture: each kind of file, how, and under which suffix."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segnet.classes import ClassSet
from segnet.data.images import save_image
from segnet.data.mask_files import save_mask
from segnet.inference.predictor import Prediction
from segnet.prediction.rle import encode_rle
from segnet.system.files import atomic_write, write_text
from segnet.visualization import overlay


class Predicted(NamedTuple):
    """What the writers write from."""

    picture: str  # its path, relative to the folder of all outputs
    prediction: Prediction
    classes: ClassSet


def _save_uncertainty(path: Path, found: Predicted) -> None:
    """Grey, 0 certain .. 255."""
    scaled = found.prediction.uncertainty.numpy() * np.float32(255)
    save_image(path, np.rint(scaled, out=scaled).astype(np.uint8))


def _save_probabilities(path: Path, found: Predicted) -> None:
    """(K, H, W) float16 for `numpy.load`. Not compressed, which would save a sixth and take as long as the network."""
    probabilities = found.prediction.probabilities
    assert probabilities is not None
    header = {"descr": "<f2", "fortran_order": False, "shape": tuple(probabilities.shape)}
    entry = zipfile.ZipInfo("probabilities.npy")  # dated 1980: the same bytes whenever it is written
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive, archive.open(entry, "w", force_zip64=True) as array:
        np.lib.format.write_array_header_1_0(array, header)
        for plane in probabilities.numpy():  # one class at a time, in little memory
            array.write(plane.astype("<f2"))


def _save_json(path: Path, found: Predicted) -> None:
    """The classes that the picture has, each with its share and its mask in COCO's run-length encoding."""
    prediction = found.prediction
    height, width = prediction.mask.shape
    columns = np.ascontiguousarray(prediction.mask.numpy().T)  # in the order of the encoding
    pixels = np.bincount(columns.ravel(), minlength=256)
    classes = [
        {
            "id": int(i),
            "name": found.classes.names[i],
            "pixels": int(pixels[i]),
            "share": int(pixels[i]) / (height * width),
            "rle": {"size": [height, width], "counts": encode_rle((columns == i).T)},
        }
        for i in np.flatnonzero(pixels)
    ]
    means = {
        "confidence": float(prediction.confidence.numpy().mean(dtype=np.float64)),
        "uncertainty": float(prediction.uncertainty.numpy().mean(dtype=np.float64)),
    }
    content = {"picture": found.picture, "height": height, "width": width, **means, "classes": classes}
    write_text(path, json.dumps(content) + "\n")


WRITERS: dict[str, tuple[str, Callable[[Path, Predicted], None]]] = {  # what to save -> suffix, how
    "mask": (".png", lambda path, found: save_mask(path, found.prediction.mask, found.classes)),
    "overlay": (
        ".overlay.jpg",
        lambda path, found: save_image(path, overlay(found.prediction.image, found.prediction.mask, found.classes)),
    ),
    "probabilities": (".probabilities.npz", _save_probabilities),
    "uncertainty": (".uncertainty.png", _save_uncertainty),
    "json": (".json", _save_json),
}
