"""Predictor: the mask of one picture, in Python. `segnet.prediction` writes the masks of many pictures as files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segnet.data.images import image_to_tensor, open_image
from segnet.inference.answers import predict, prepare_to_predict
from segnet.inference.exported import Network
from segnet.inference.loaded_model import load_model
from segnet.inference.precision import precision_of, resolve_precision
from segnet.system.devices import choose_device
from segnet.tasks.choice import build_task
from segnet.tasks.segmentation_score import Maps

Picture = Path | str | Image.Image | np.ndarray | Tensor


class Prediction(NamedTuple):
    """The result for one picture, on the CPU, at the picture's own size: the image, and `Maps` without the batch dimension."""

    image: Tensor  # (3, H, W) uint8 RGB, upright
    mask: Tensor  # (H, W) uint8 class ids
    confidence: Tensor  # (H, W) float32, probability of the predicted class
    uncertainty: Tensor  # (H, W) float32, 0 certain .. 1: entropy / log K
    entropy: Tensor  # (H, W) float32, of the probabilities, in nats: 0..log K
    variance: Tensor | None  # (H, W) float32 between dropout samples, mean over the classes; None without samples
    mutual_information: Tensor | None  # (H, W) float32, nats: the part of the entropy due to dropout; None without samples
    probabilities: Tensor | None  # (K, H, W) float32, sums to 1 over the classes; None unless requested


class Predictor:
    """A trained network that predicts pictures."""

    def __init__(self, path: Path | str, overrides: Sequence[str] = ()) -> None:
        """Load a run folder, a checkpoint or an exported file.

        `overrides` change its configuration, e.g. "inference.flip=true" or "device=cpu".
        Raises UserError as `load_model` does, and (environment) when the device is not there.
        """
        loaded = load_model(path, overrides)
        config = loaded.config
        self.classes = loaded.classes
        self.device = choose_device(config.device)
        model = loaded.model.to(self.device)
        self.precision = precision_of(config.inference, model)
        self.config = config.model_copy(update={"inference": resolve_precision(config.inference, model)})
        self.answers = build_task(self.config).answers
        self.weights_digest = _weights_digest(model)
        self.model = prepare_to_predict(model, self.config.inference)

    def predict(self, picture: Picture, *, probabilities: bool = False) -> Prediction:
        """The prediction for a path, a Pillow picture, an (H, W, 3) uint8 array or a (3, H, W) uint8 tensor, RGB.

        A picture may have any size; a large one is predicted in windows. `probabilities` requests those of all K classes:
        4·K bytes a pixel.
        Raises UserError (data) for a file that is not a picture, ValueError for an array or tensor of another shape or type.
        """
        image = _as_image(picture)
        maps = predict(self.model, image[None], self.config.inference, self.answers, keep_mean=probabilities)
        return Prediction(image, **_of_first_image(maps))


def _weights_digest(model: Network) -> str:
    """32 hexadecimal digits that depend on the weights of a network as it was loaded, whatever computes with them later."""
    content = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(model.state_dict().items()):
        content.update(f"{name} {weight.dtype} {tuple(weight.shape)}\0".encode())
        content.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return content.hexdigest()


def _of_first_image(maps: Maps) -> dict[str, Any]:
    """Every map by its name, without the batch dimension; None stays None."""
    return {name: None if values is None else values[0] for name, values in maps._asdict().items()}


def _as_image(picture: Picture) -> Tensor:
    """(3, H, W) uint8 RGB on the CPU. Raises as `Predictor.predict`."""
    if isinstance(picture, Path | str):
        return open_image(picture)
    if isinstance(picture, Image.Image):
        return image_to_tensor(picture)
    image = picture if isinstance(picture, Tensor) else torch.from_numpy(np.array(picture)).movedim(-1, 0)
    if image.dim() != 3 or image.shape[0] != 3 or image.dtype != torch.uint8 or not image.numel():
        raise ValueError(f"expected RGB uint8, array (H, W, 3) or tensor (3, H, W); got {tuple(picture.shape)} {picture.dtype}")
    return image.cpu()
