"""What happens to a picture and its mask together, on the way to the network. Everything stays uint8."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from segnet.classes import IGNORE_INDEX
from segnet.config.sections import AugmentConfig

JointTransform = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""image (3, H, W), mask (H, W), size (1: whole, see AugmentConfig.shrink) -> image and mask, changed."""

_MEAN_COLOR = (124, 116, 104)  # ImageNet's
_NEAREST, _BILINEAR = functional.InterpolationMode.NEAREST_EXACT, functional.InterpolationMode.BILINEAR


class Window(NamedTuple):
    """A part of a picture, in its pixels; it may reach beyond the picture."""

    top: int
    left: int
    height: int
    width: int

    def of(self, pixels: Tensor, fill: tuple[int, ...]) -> Tensor:
        """Cut it out of (H, W, C) pixels -> (height, width, C); beyond them everything is `fill`."""
        whole_height, whole_width = pixels.shape[:2]
        top, bottom = max(0, self.top), max(0, min(whole_height, self.top + self.height))
        left, right = max(0, self.left), max(0, min(whole_width, self.left + self.width))
        inside = pixels[top:bottom, left:right]
        if inside.shape[:2] == (self.height, self.width):
            return inside.contiguous()
        row = torch.tensor(fill, dtype=pixels.dtype).repeat(self.width)  # whole rows are copied ten times as fast as pixels
        window = row.repeat(self.height, 1).view(self.height, self.width, -1)
        if inside.numel():
            top, left = top - self.top, left - self.left
            window[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        return window


class RandomZoomCrop:
    """A window of the picture, of random size, place and angle, resized to `size`.

    The zoom is drawn uniformly in its logarithm from `scale`, the angle uniformly from -rotation to +rotation degrees. The
    source window is cut out before it is resized, so the cost does not depend on the size of the picture. Beyond the
    picture the image has the mean colour and the mask is ignored.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float], rotation: float = 0.0) -> None:
        self.size, self.scale, self.rotation = size, scale, rotation

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        window = self.draw_window(mask.shape[0], mask.shape[1])
        angle = _uniform(-self.rotation, self.rotation) if self.rotation else 0.0
        return self.cut(image, mask, window, angle)

    def draw_window(self, height: int, width: int) -> Window:
        """A random window of a picture of that size: within it where it fits, around it where it is larger."""
        zoom = math.exp(_uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        sides = [max(1, round(side / zoom)) for side in self.size]
        places = [
            math.floor(_uniform(min(0, whole - part), max(0, whole - part) + 1))
            for whole, part in zip((height, width), sides, strict=True)
        ]
        return Window(places[0], places[1], sides[0], sides[1])

    def cut(self, image: Tensor, mask: Tensor, window: Window, angle: float = 0.0) -> tuple[Tensor, Tensor]:
        """The window of image and mask, turned about its middle by `angle` degrees, at `self.size`.

        The half-pixel convention holds for both: v2's own nearest takes the pixel's corner, and the mask would stand off.
        """
        size = list(self.size)
        if angle:
            window, size = _with_margin(window, self.size, angle)
        pixels = window.of(image.permute(1, 2, 0), _MEAN_COLOR).permute(2, 0, 1)
        labels = window.of(mask[..., None], (IGNORE_INDEX,)).permute(2, 0, 1)
        pixels = functional.resize_image(pixels, size, _BILINEAR, antialias=True)
        labels = functional.resize_image(labels, size, _NEAREST)
        if angle:
            pixels = functional.rotate_image(pixels, angle, _BILINEAR, fill=list(_MEAN_COLOR))
            labels = functional.rotate_image(labels, angle, functional.InterpolationMode.NEAREST, fill=[IGNORE_INDEX])
            pixels, labels = (functional.center_crop_image(part, list(self.size)) for part in (pixels, labels))
        return pixels, labels[0]


def _with_margin(window: Window, size: tuple[int, int], angle: float) -> tuple[Window, list[int]]:
    """A window about the same middle that still fills `size` once turned, and the size to resize it to at the same zoom."""
    cos, sin = math.cos(math.radians(abs(angle))), math.sin(math.radians(abs(angle)))
    needed = (size[0] * cos + size[1] * sin, size[1] * cos + size[0] * sin)
    sides, larger, margins = (window.height, window.width), list[int](), list[int]()
    for side, output, reach in zip(sides, size, needed, strict=True):
        margins.append(max(0, math.ceil((reach - output) / 2 * side / output)) + 1)
        grown = round(output * (side + 2 * margins[-1]) / side)
        larger.append(grown + (grown - output) % 2)  # the middle stays where it is
    top, left = margins
    return Window(window.top - top, window.left - left, window.height + 2 * top, window.width + 2 * left), larger


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))


class TrainTransform:
    """Random zoom, crop, angle, mirror, colour, blur, drawn from torch's global generator, which the data set seeds per sample.

    What is off draws no random number: switching one on changes no sample of those who leave it off.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config
        steps: list[v2.Transform] = []
        if config.brightness or config.contrast or config.saturation or config.hue:
            steps.append(v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue))
        if config.blur:
            steps.append(v2.RandomApply([v2.GaussianBlur(kernel_size=9, sigma=(0.1, 2.0))], p=config.blur))
        self.picture_alone = v2.Compose(steps) if steps else None

    def __call__(self, image: Tensor, mask: Tensor, size: float = 1.0) -> tuple[Tensor, Tensor]:
        image, mask = _zoom_crop(self.config, size)(image, mask)
        if float(torch.rand(1)) < self.config.flip:
            image, mask = image.flip(-1), mask.flip(-1)
        return (self.picture_alone(image) if self.picture_alone else image), mask


def _zoom_crop(config: AugmentConfig, size: float) -> RandomZoomCrop:
    height, width = (max(16, round(size * side)) for side in config.crop_size)
    low, high = config.scale
    return RandomZoomCrop((height, width), (size * low, size * high), config.rotation)


def eval_transform(image: Tensor, mask: Tensor, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """Nothing: a picture is scored at its own size. Resizing for the network is part of inference."""
    return image, mask
