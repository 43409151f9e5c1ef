"""What happens to a picture and its mask together, on the way to the network. Everything stays uint8."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from segnet.classes import IGNORE_INDEX
from segnet.config import AugmentConfig

JointTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # image (3, H, W), mask (H, W) -> the same, changed

_FILL = {tv_tensors.Image: [124, 116, 104], tv_tensors.Mask: IGNORE_INDEX}  # ImageNet's mean colour


class RandomZoomCrop(v2.Transform):
    """A window of the picture, of random size and place, resized to `size`.

    The zoom is drawn uniformly in its logarithm from `scale`. The source window is cut out before it is resized, so the
    cost does not depend on the size of the picture. Beyond the picture the image has the mean colour and the mask is ignored.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float]) -> None:
        super().__init__()
        self.size, self.scale = size, scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, list[int]]:
        """The window as [top, left, height, width] in pixels of the picture."""
        height, width = functional.get_size(flat_inputs[0])
        zoom = math.exp(_uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        window = [max(1, round(side / zoom)) for side in self.size]
        top, left = (
            math.floor(_uniform(min(0, whole - part), max(0, whole - part) + 1))
            for whole, part in zip((height, width), window, strict=True)
        )
        return {"window": [top, left, *window]}

    def transform(self, inpt: Any, params: dict[str, list[int]]) -> Any:
        top, left, height, width = params["window"]
        whole_height, whole_width = functional.get_size(inpt)
        beyond = [max(0, -left), max(0, -top), max(0, left + width - whole_width), max(0, top + height - whole_height)]
        if any(beyond):
            inpt = functional.pad(inpt, beyond, fill=_FILL[type(inpt)])
        window = functional.crop(inpt, max(0, top), max(0, left), height, width)
        if isinstance(window, tv_tensors.Mask):  # v2 would take the pixel's corner, and the mask stand off by half a pixel
            exact = functional.resize_image(window[None], list(self.size), functional.InterpolationMode.NEAREST_EXACT)
            return tv_tensors.wrap(exact[0], like=window)
        return functional.resize(window, list(self.size), antialias=True)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))


class TrainTransform:
    """Random zoom, crop, mirror and colour. Draws from torch's global generator, which the data set seeds per sample."""

    def __init__(self, config: AugmentConfig) -> None:
        steps: list[v2.Transform] = [RandomZoomCrop(config.crop_size, config.scale), v2.RandomHorizontalFlip(config.flip)]
        if config.brightness or config.contrast or config.saturation or config.hue:
            steps.append(v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue))
        self.pipeline = v2.Compose(steps)

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        image, mask = self.pipeline(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)


def eval_transform(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Nothing: a picture is scored at its own size. Resizing for the network is part of inference."""
    return image, mask
