"""From a picture to its mask, in Python; `jobs` does it for whole folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segnet.data.images import image_to_tensor, open_image
from segnet.inference.answers import predict_maps, prepare_to_predict, resolve_precision
from segnet.inference.loaded_model import load_model
from segnet.system.devices import choose_device, choose_precision

Picture = Path | str | Image.Image | np.ndarray | Tensor


class Prediction(NamedTuple):
    """What the network says about one picture, on the CPU, at the picture's own size."""

    image: Tensor  # (3, H, W) uint8 RGB, upright
    mask: Tensor  # (H, W) uint8 class ids
    confidence: Tensor  # (H, W) float32, probability of the predicted class
    uncertainty: Tensor  # (H, W) float32, 0 certain .. 1: entropy / log K
    entropy: Tensor  # (H, W) float32, of the probabilities, in nats: 0..log K
    variance: Tensor | None  # (H, W) float32 between dropout samples, mean over the classes; None without samples
    mutual_information: Tensor | None  # (H, W) float32, nats: what of the entropy dropout explains; None without samples
    probabilities: Tensor | None  # (K, H, W) float32, where asked for


class Predictor:
    """A trained network that predicts pictures: a run folder or a checkpoint is all it needs."""

    def __init__(self, path: Path | str, overrides: Sequence[str] = ()) -> None:
        """Load it, with configuration overrides such as "inference.flip=true" or "device=cpu". Raises UserError."""
        model, self.classes, config = load_model(path, overrides)
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.inference.precision, self.device)
        self.config = config.model_copy(update={"inference": resolve_precision(config.inference, self.device)})
        self.model = prepare_to_predict(model.to(self.device), self.config.inference)

    def predict(self, picture: Picture, *, probabilities: bool = False) -> Prediction:
        """The prediction for a path, a Pillow picture, an (H, W, 3) uint8 array or a (3, H, W) uint8 tensor, RGB.

        Pictures of any size: large ones are seen through windows. `probabilities` of all classes take 4·K bytes a pixel.
        Raises UserError (data) for a file that is no picture, ValueError for an array or tensor of another form.
        """
        image = _as_image(picture)
        maps = predict_maps(self.model, image[None], self.config.inference, probabilities=probabilities)
        return Prediction(
            image,
            mask=maps.mask[0],
            confidence=maps.confidence[0],
            uncertainty=maps.uncertainty[0],
            entropy=maps.entropy[0],
            variance=None if maps.variance is None else maps.variance[0],
            mutual_information=None if maps.mutual_information is None else maps.mutual_information[0],
            probabilities=None if maps.probabilities is None else maps.probabilities[0],
        )


def _as_image(picture: Picture) -> Tensor:
    if isinstance(picture, Path | str):
        return open_image(picture)
    if isinstance(picture, Image.Image):
        return image_to_tensor(picture)
    image = picture if isinstance(picture, Tensor) else torch.from_numpy(np.array(picture)).movedim(-1, 0)
    if image.dim() != 3 or image.shape[0] != 3 or image.dtype != torch.uint8 or not image.numel():
        raise ValueError(f"expected RGB uint8, array (H, W, 3) or tensor (3, H, W); got {tuple(picture.shape)} {picture.dtype}")
    return image.cpu()
