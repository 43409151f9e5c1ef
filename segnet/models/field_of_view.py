"""The field of view of a network, computed from its configuration."""

from __future__ import annotations

from segnet.config.sections import ModelConfig


def field_of_view(config: ModelConfig) -> int:
    """The largest distance, in pixels along an axis, at which an input pixel can change an output pixel.

    The interval of pixels behind one output is followed from the head back to the image. It depends on the position of the
    output in the grid of the lowest resolution, so the result is the maximum over all positions. Skips show an output no other
    pixels: the way through the lower resolutions sees all that they see.
    """
    half = config.kernel_size // 2
    head = config.head_kernel_size // 2
    neighbours = _neighbours(config)
    farthest = 0
    for position in range(config.total_stride):
        low, high = position - head, position + head
        for stage, mirror in reversed([*zip(config.decoder, reversed(config.encoder), strict=True)]):
            low, high = low - len(stage.widths) * half, high + len(stage.widths) * half
            if mirror.pool:
                low, high = (low - neighbours) // 2, (high + neighbours) // 2
        for layer in config.neck:
            if layer.operation == "deconvolution":
                low -= layer.kernel_size - 1
            else:
                high += layer.kernel_size - 1
        for stage in reversed(config.encoder):
            if stage.pool:
                low, high = 2 * low, 2 * high + 1
            low, high = low - len(stage.widths) * half, high + len(stage.widths) * half
        farthest = max(farthest, position - low, high - position)
    return farthest


def _neighbours(config: ModelConfig) -> int:
    """The pixels on each side of its own that an upsampled pixel depends on, at the lower resolution."""
    match config.upsampling:
        case "unpool":
            return 0
        case "bilinear" | "deconvolution":
            return 1
