"""Changes of an image's colours and sharpness. They are drawn with a sample and made where that is fastest.

The values are torchvision's to the bit, except that `adjust_contrast` sums the grey values exactly, so that they do not depend
on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from segnet.config.sections import RGB, AugmentConfig, Bands, Range

ARITHMETIC = 2  # counts up where a change of this file changes the values; checkpoints hold it

Change = tuple[Callable[[Tensor, float], Tensor], float]
"""An operation on an image (C, H, W), which returns one of the same type, and its factor."""

DrawChanges = Callable[[], Sequence[Change]]
"""Draws the changes of one sample, in their order, from torch's global generator."""


def no_changes() -> tuple[Change, ...]:
    """No changes: for images that keep their colours. Draws nothing."""
    return ()


def turned_off(config: AugmentConfig, bands: Bands) -> list[str]:
    """The keys of `config` that are on and that `bands` rule out: changes of colour need 8-bit R, G, B, gamma and JPEG 8 bits."""
    keys = [] if bands.are_colors else ["saturation", "hue"]
    if bands.scale != "picture":
        keys += ["gamma", "jpeg"]
    return [key for key in keys if getattr(config, key)]


def draw_changes(config: AugmentConfig, bands: Bands = RGB) -> tuple[Change, ...]:
    """The changes of one sample, in their order, drawn from torch's global generator.

    What is off draws no random number; so does what is turned off by `bands`.
    """
    config = config.model_copy(update=dict.fromkeys(turned_off(config, bands), 0.0))
    brightness, contrast = functional.adjust_brightness_image, adjust_contrast
    if not bands.are_colors:
        brightness, contrast = partial(brighten, ranges=bands.ranges), partial(contrast_bands, ranges=bands.ranges)
    changes: list[Change | None] = []
    if config.brightness or config.contrast or config.saturation or config.hue:
        order = torch.randperm(4).tolist()
        changes += [
            _draw(brightness, config.brightness, around=1),
            _draw(contrast, config.contrast, around=1),
            _draw(functional.adjust_saturation_image, config.saturation, around=1),
            _draw(adjust_hue, config.hue, around=0),
        ]
        changes = [changes[place] for place in order]
    if config.gamma:
        most = math.log(1 + config.gamma)
        changes.append((adjust_gamma, math.exp(_uniform(-most, most))))
    if config.blur and float(torch.rand(1)) < config.blur:
        changes.append((blur, _uniform(0.1, 2.0)))
    return tuple(change for change in changes if change)


def _draw(operation: Callable[[Tensor, float], Tensor], most: float, *, around: float) -> Change | None:
    """`operation` with a factor from `around - most` to `around + most`; None where `most` is 0."""
    return (operation, _uniform(around - most, around + most)) if most else None


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(1).uniform_(low, high))


def change_colors(image: Tensor, changes: Sequence[Change]) -> Tensor:
    """The image (C, H, W) uint8 after `changes`, one after the other. The input is left as it is."""
    if changes:
        image = image.contiguous()  # on a CPU half as much work as with the channels last
    for operation, factor in changes:
        image = operation(image, factor)
    return image


def change_batch(images: Tensor, changes: Sequence[Sequence[Change]]) -> None:
    """Make the changes of each of the images (B, C, H, W) uint8 in place. On a GPU nothing waits for it."""
    for image, of_image in zip(images, changes, strict=True):
        if of_image:
            image.copy_(change_colors(image, of_image))


def adjust_contrast(image: Tensor, factor: float) -> Tensor:
    """The image (3, H, W) uint8 blended with the mean of its grey values, of which a part of 1 - `factor` is taken."""
    grey = functional.rgb_to_grayscale_image(image)
    mean = (grey.sum(dtype=torch.float64) / grey.numel()).float()
    return image.mul(factor).add_(mean, alpha=1 - factor).clamp_(0, 255).to(torch.uint8)


def brighten(image: Tensor, factor: float, ranges: Sequence[Range] = ()) -> Tensor:
    """The image (C, H, W) multiplied by `factor`, after the `ranges` of its channels became 0..255; it keeps its own range."""
    low, high = _limits(image, ranges)
    return _clamped(image.sub(low).mul_(factor).add_(low), low, high, image.dtype)


def contrast_bands(image: Tensor, factor: float, ranges: Sequence[Range] = ()) -> Tensor:
    """The image (C, H, W), each band blended with its own mean, of which a part of 1 - `factor` is taken."""
    low, high = _limits(image, ranges)
    mean = (image.sum(dim=(1, 2), keepdim=True, dtype=torch.float64) / image[0].numel()).float()
    return _clamped(image.mul(factor).add_(mean * (1 - factor)), low, high, image.dtype)


def _limits(image: Tensor, ranges: Sequence[Range]) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of each channel, (C, 1, 1) float32: those of its range, or 0 and 255."""
    limits = torch.tensor(ranges or [(0.0, 255.0)], device=image.device)[..., None, None]
    return limits[:, 0], limits[:, 1]


def _clamped(values: Tensor, low: Tensor, high: Tensor, kind: torch.dtype) -> Tensor:
    return torch.minimum(torch.maximum(values, low), high).to(kind)


def adjust_gamma(image: Tensor, gamma: float) -> Tensor:
    """The image (C, H, W) uint8 with each value v replaced by 255 · (v / 255) ** `gamma`.

    It looks the values up in a table. A power of each pixel takes longer, and its last bit depends on the number of threads.
    """
    levels = torch.arange(256, dtype=torch.uint8, device=image.device).view(1, 16, 16)
    return functional.adjust_gamma_image(levels, gamma).flatten()[image.int()]


def adjust_hue(image: Tensor, factor: float) -> Tensor:
    """The image (3, H, W) uint8 with its hue turned by `factor`, in turns of the colour circle, -0.5 to 0.5.

    HSV as in Smith, "Color gamut transform pairs", SIGGRAPH 1978. Saturation and value stay, so the largest and the smallest
    channel of a pixel keep their values and may only change places; the sector of the circle says which channel is which.
    Choices are made by `lerp` with weights 0 and 1: on a CPU `where` takes ten times as long.
    """
    values = image.float().mul_(1 / 255)
    high = torch.maximum(torch.maximum(values[0], values[1]), values[2])
    spread = high - torch.minimum(torch.minimum(values[0], values[1]), values[2])
    is_grey = spread.clone().eq_(0)
    saturation = spread / (high + is_grey)
    red, green, blue = values.neg_().add_(high).div_(spread.add_(is_grey))  # 0 for the largest channel, 1 for the smallest
    is_red, is_green = red.clone().eq_(0), green.clone().eq_(0)
    hue = (green + 4).sub_(red).lerp_((red + 2).sub_(blue), is_green).lerp_(blue.sub_(green), is_red)
    hue.mul_(1 / 6).add_(1)
    hue.sub_(hue.floor()).add_(factor)
    hue.sub_(hue.floor()).mul_(6)
    sector = hue.floor()  # 0..6, of which 6 is 0
    fraction = hue.sub_(sector).mul_(saturation)
    rest = 1 - saturation
    falling = (1 - fraction).mul_(high)
    rising = fraction.add_(rest).mul_(high)
    low = rest.mul_(high)
    is_odd = sector * 0.5
    is_odd.sub_(is_odd.floor()).mul_(2)
    middle = rising.lerp_(falling, is_odd)
    place = torch.arange(6, 0, -2, device=image.device).view(3, 1, 1) + sector  # (3, H, W): 5 to 7 and 11, 12 around its peak
    place.sub_(8.5).abs_().sub_(3).abs_()  # below 1 where the channel is the largest, above 2 where it is the smallest
    is_low = place.clone().gt_(2)
    turned = torch.lerp(middle, high, place.lt_(1)).lerp_(low, is_low)
    return turned.mul_(256 - 1e-3).to(torch.uint8)


def blur(image: Tensor, deviation: float) -> Tensor:
    """The image (C, H, W) uint8 after a Gaussian blur of this standard deviation, in pixels, of 9×9 pixels at most."""
    return functional.gaussian_blur_image(image, [9, 9], [deviation, deviation])
