"""Joint transformations of an image and its mask, which keep their types: uint8, and float32 for deep images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from segnet.classes import IGNORE_INDEX
from segnet.config.sections import RGB, AugmentConfig, Bands
from segnet.data.images import compress
from segnet.data.pasting import draw_pixel, draw_pixel_of_some_class, paste_object

JointTransform = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""(image (C, H, W), mask (H, W), shrink, a factor of crop size and zoom, see AugmentConfig.shrink) -> image and mask."""

_MEAN_COLOR = (124, 116, 104)  # of ImageNet: R, G, B
_MEAN_GREY = 114
_NEAREST, _BILINEAR = functional.InterpolationMode.NEAREST_EXACT, functional.InterpolationMode.BILINEAR


class Window(NamedTuple):
    """A rectangle in the pixels of an image. It may extend beyond the image."""

    top: int
    left: int
    height: int
    width: int

    def of(self, pixels: Tensor, fill: tuple[float, ...]) -> Tensor:
        """The window (height, width, C) of `pixels` (H, W, C), with `fill` (C values) beyond their borders."""
        whole_height, whole_width = pixels.shape[:2]
        top, bottom = max(0, self.top), max(0, min(whole_height, self.top + self.height))
        left, right = max(0, self.left), max(0, min(whole_width, self.left + self.width))
        inside = pixels[top:bottom, left:right]
        if inside.shape[:2] == (self.height, self.width):
            return inside.contiguous()
        row = torch.tensor(fill, dtype=pixels.dtype).repeat(self.width)  # copying whole rows is ten times as fast as pixels
        window = row.repeat(self.height, 1).view(self.height, self.width, -1)
        if inside.numel():
            top, left = top - self.top, left - self.left
            window[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        return window


def mean_color(bands: Bands) -> tuple[float, ...]:
    """The value of each channel that stands for the mean colour of ImageNet: the network subtracts about the same."""
    mean = _MEAN_COLOR if bands.channels == 3 else (_MEAN_GREY,) * bands.channels
    if not bands.ranges:
        return mean
    return tuple(low + (high - low) * value / 255 for (low, high), value in zip(bands.ranges, mean, strict=True))


class RandomZoomCrop:
    """A window of the image at a random zoom, place and angle, resized to `size` (height, width).

    The zoom is drawn log-uniformly from `scale`, the angle uniformly from -rotation to +rotation degrees. The window is cut
    out before it is resized, so the cost does not depend on the size of the image. Beyond the borders of the input the image
    has the values `fill`, one for each channel, and the mask `IGNORE_INDEX`.
    """

    def __init__(
        self, size: tuple[int, int], scale: tuple[float, float], rotation: float = 0.0, fill: tuple[float, ...] = _MEAN_COLOR
    ) -> None:
        self.size, self.scale, self.rotation, self.fill = size, scale, rotation, fill

    def __call__(self, image: Tensor, mask: Tensor, pixel: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Image and mask of a random window; with `pixel` (row, column), of one that contains it before the rotation."""
        window = self.draw_window(mask.shape[0], mask.shape[1], pixel)
        angle = _uniform(-self.rotation, self.rotation) if self.rotation else 0.0
        return self.cut(image, mask, window, angle)

    def draw_window(self, height: int, width: int, pixel: tuple[int, int] | None = None) -> Window:
        """A random window of an image of height × width: inside the image if it fits, around it if it is larger.

        With `pixel` (row, column) it is one of those windows that contain this pixel.
        """
        zoom = math.exp(_uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        sides = [max(1, round(side / zoom)) for side in self.size]
        places = list[int]()
        for axis, (whole, part) in enumerate(zip((height, width), sides, strict=True)):
            first, last = min(0, whole - part), max(0, whole - part)
            if pixel is not None:
                first, last = max(first, pixel[axis] - part + 1), min(last, pixel[axis])
            places.append(math.floor(_uniform(first, last + 1)))
        return Window(places[0], places[1], sides[0], sides[1])

    def cut(self, image: Tensor, mask: Tensor, window: Window, angle: float = 0.0) -> tuple[Tensor, Tensor]:
        """The window of image and mask, rotated about its centre by `angle` degrees and resized to `self.size`.

        Both follow the half-pixel convention. Torchvision's NEAREST samples at pixel corners and would shift the mask
        against the image; NEAREST_EXACT does not.
        """
        size = list(self.size)
        if angle:
            window, size = _with_margin(window, self.size, angle)
        pixels = window.of(image.permute(1, 2, 0), self.fill).permute(2, 0, 1)
        labels = window.of(mask[..., None], (IGNORE_INDEX,)).permute(2, 0, 1)
        pixels = functional.resize_image(pixels, size, _BILINEAR, antialias=True)
        labels = functional.resize_image(labels, size, _NEAREST)
        if angle:
            pixels = functional.rotate_image(pixels, angle, _BILINEAR, fill=list(self.fill))
            labels = functional.rotate_image(labels, angle, functional.InterpolationMode.NEAREST, fill=[IGNORE_INDEX])
            pixels, labels = (functional.center_crop_image(part, list(self.size)) for part in (pixels, labels))
        return pixels, labels[0]


def _with_margin(window: Window, size: tuple[int, int], angle: float) -> tuple[Window, list[int]]:
    """(a larger window that covers `size` after a rotation about its centre by `angle`, its size after resizing)."""
    radians = math.radians(abs(angle))
    cos, sin = abs(math.cos(radians)), math.sin(radians)
    needed = (size[0] * cos + size[1] * sin, size[1] * cos + size[0] * sin)
    larger, margins = list[int](), list[int]()
    for side, output, covered in zip((window.height, window.width), size, needed, strict=True):
        margin = max(0, math.ceil((covered - output) / 2 * side / output)) + 1
        grown = round(output * (side + 2 * margin) / side)
        margins.append(margin)
        larger.append(grown + (grown - output) % 2)  # an even difference keeps the centre in place
    top, left = margins
    return Window(window.top - top, window.left - left, window.height + 2 * top, window.width + 2 * left), larger


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))


def happens(probability: float) -> bool:
    """True with this probability. Where it is 0, no random number is drawn."""
    return probability > 0 and float(torch.rand(1)) < probability


class Balance(NamedTuple):
    """Crops around pixels of rare classes, see DataConfig.balance."""

    probability: float  # of such a crop
    odds: Tensor  # (K,) float64: the probabilities of the classes are proportional to these


class Donors(Protocol):
    """The pictures from which objects of rare classes are cut out, see AugmentConfig.copy_paste."""

    def draw(self) -> tuple[Tensor, Tensor, int]:
        """An image (C, H, W), its mask (H, W), and the id of a class in the mask, drawn from torch's global generator."""
        ...


class TrainTransform:
    """The augmentation of an image and its mask, except colours, drawn from torch's global generator, which the dataset seeds.

    An augmentation that is off draws no random number, so adding one to the program changes no earlier run.
    """

    def __init__(
        self, config: AugmentConfig, bands: Bands = RGB, *, balance: Balance | None = None, donors: Donors | None = None
    ) -> None:
        self.config = config
        self.jpeg = config.jpeg if bands.scale == "picture" else 0.0  # of other images than those of 8 bits there are no JPEGs
        self.fill = mean_color(bands)
        self.balance = balance
        self.donors = donors

    def __call__(self, image: Tensor, mask: Tensor, shrink: float = 1.0) -> tuple[Tensor, Tensor]:
        pixel = None
        if self.balance and happens(self.balance.probability):
            pixel = draw_pixel_of_some_class(mask, self.balance.odds)
        image, mask = self._crop(image, mask, shrink, pixel)
        if self.donors and happens(self.config.copy_paste):
            donor, donor_mask, class_id = self.donors.draw()
            donor, donor_mask = self._crop(donor, donor_mask, shrink, draw_pixel(donor_mask == class_id))
            image, mask = paste_object(image, mask, donor, donor_mask, class_id)
        if happens(self.config.cutout):
            image, mask = cut_out(image, mask, self.fill)
        if happens(self.jpeg):
            image = compressed(image, int(torch.randint(20, 91, ())))  # here and not in `colors`: a GPU cannot
        return image, mask

    def _crop(self, image: Tensor, mask: Tensor, shrink: float, pixel: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        """A crop of the configured size, zoomed, rotated, mirrored and turned."""
        config = self.config
        size = [max(16, round(shrink * side)) for side in config.crop_size]
        turns = int(torch.randint(1, 4, ())) if happens(config.quarter_turn) else 0
        height, width = reversed(size) if turns % 2 else size
        low, high = config.scale
        zoom_crop = RandomZoomCrop((height, width), (shrink * low, shrink * high), config.rotation, self.fill)
        image, mask = zoom_crop(image, mask, pixel)
        if float(torch.rand(1)) < config.flip:
            image, mask = image.flip(-1), mask.flip(-1)
        if happens(config.vertical_flip):
            image, mask = image.flip(-2), mask.flip(-2)
        if turns:
            image, mask = image.rot90(turns, (-2, -1)), mask.rot90(turns, (-2, -1))
        return image, mask


def cut_out(image: Tensor, mask: Tensor, fill: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Copies in which a random rectangle of the image has the values `fill` and that of the mask is `IGNORE_INDEX`.

    Its area is 2 to 20 percent of the image, its height 0.3 to 3.3 times its width unless that exceeds the image
    (Zhong et al. 2020, section 3.1).
    """
    height, width = mask.shape
    area = _uniform(0.02, 0.2) * height * width
    ratio = math.exp(_uniform(math.log(0.3), math.log(3.3)))
    rows = min(height, max(1, round(math.sqrt(area * ratio))))
    columns = min(width, max(1, round(math.sqrt(area / ratio))))
    top, left = int(torch.randint(height - rows + 1, ())), int(torch.randint(width - columns + 1, ()))
    color = torch.tensor(fill, dtype=image.dtype).view(-1, 1, 1)
    image = functional.erase_image(image, top, left, rows, columns, color)
    mask = functional.erase_image(mask, top, left, rows, columns, torch.tensor(IGNORE_INDEX, dtype=mask.dtype))
    return image, mask


def compressed(image: Tensor, quality: int) -> Tensor:
    """The image (C, H, W) uint8 after JPEG compression of this quality, 1 to 95; other bands than R, G, B each as a grey picture.

    By Pillow: torchvision's own functions for JPEG are deprecated.
    """
    return torch.from_numpy(compress(image.permute(1, 2, 0).numpy(), quality)).permute(2, 0, 1)


def eval_transform(image: Tensor, mask: Tensor, shrink: float = 1.0) -> tuple[Tensor, Tensor]:
    """Image and mask unchanged: an image is scored at its own size. Resizing for the network is part of inference."""
    return image, mask
