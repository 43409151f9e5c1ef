"""A short configuration for an imported set, with sizes that were measured."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from statistics import median

from segnet.config.advice import zoom_to_see
from segnet.config.yaml_files import parse_yaml
from segnet.importing.writing import Imported
from segnet.system.errors import config_error
from segnet.system.files import make_folder, write_text
from segnet.system.invocation import as_started

_STRIDE = 16  # pixels of one step at the network's lowest resolution
_LONGEST = 480  # pixels; a longer side is cropped
_LEAST_ZOOM = 0.4  # a smaller one may lose small objects, which are not measured here
_STEPS = 4000  # enough for a first score
_BATCH = 8


def write_recipe(path: Path, root: Path, result: Imported) -> str:
    """Write a configuration for the set in `root`, unless `path` holds it already; a sentence that says what was done.

    Raises UserError (config) where `path` is another file.
    """
    text = recipe_text(path, root, result)
    if path.exists():
        if path.read_text(encoding="utf-8", errors="replace") != text:
            raise config_error(path, "is there and is different", "give another name after --config, or delete it")
        return f"{path}: is there already"
    parse_yaml(text, path)
    make_folder(path.parent)
    write_text(path, text)
    return f"{path}: written"


def recipe_text(path: Path, root: Path, result: Imported) -> str:
    """The text of the configuration."""
    heights, widths = (sorted(side) for side in zip(*result.sizes, strict=True))
    zoom = zoom_to_see(max(median(heights), median(widths)), least=_LEAST_ZOOM)
    crop = [_crop(zoom * median(side)) for side in (heights, widths)]
    varied = heights[-1] > 1.5 * heights[0] or widths[-1] > 1.5 * widths[0]
    scale = [round(zoom * factor, 2) for factor in ((0.5, 2.0) if varied else (0.75, 1.5))]
    epochs = max(10, min(300, round(_STEPS * _BATCH / len(result.sizes))))
    sizes = f"{widths[0]}×{heights[0]} to {widths[-1]}×{heights[-1]}, in the middle {median(widths):g}×{median(heights):g}"
    commands = as_started(f"segnet train {quote(str(path))}")
    if "train" not in result.lists or "val" not in result.lists:
        commands = as_started(f"segnet split {quote(str(root))} --val 0.2 && {commands}")
    quoted = '"' + str(root).replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"""\
# {len(result.sizes):,} pictures of {sizes} pixels, imported from {result.title}; {len(result.classes)} classes.
#   {commands}
# With a GPU, segnet in place of segnet_small and encoder_weights: vgg16_bn start from ImageNet's features.
base:
  - segnet_small
data:
  root: {quoted}
augment:
  crop_size: [{crop[0]}, {crop[1]}]  # the middle size at that scale, at most {_LONGEST}, in steps of {_STRIDE}
  scale: [{scale[0]}, {scale[1]}]  # around {zoom:g}: the sizes of the pictures {"vary" if varied else "are alike"}
loss:
  class_weights: median_frequency  # rare classes count as much as the background
  weight_power: 0.5  # gentler than the full weights
optim:
  name: adamw  # few steps are enough with it
  lr: 2e-3  # a small network from random weights takes a higher rate than a pretrained one
  schedule: cosine  # falls to zero without an exponent to choose
  warmup: 0.1  # AdamW's first steps are unreliable
  weight_decay: 0.02  # AdamW's learning rate is smaller than SGD's, and the decay is multiplied by it
  clip_norm: 5  # a batch with a rare class has a large gradient
train:
  epochs: {epochs}  # about {_STEPS:,} steps, from 10 to 300 epochs
  batch_size: {_BATCH}
  ema_decay: 0.99  # an average of about 100 steps
  eval_every_epochs: {max(1, epochs // 10)}  # about ten scores in the run
inference:
  scales: [{zoom:g}]  # {"large pictures fit into the field of view only when they are seen smaller" if zoom < 1 else "full size"}
"""


def _crop(side: float) -> int:
    """The nearest multiple of the stride below a side, from 16 to 480."""
    return max(_STRIDE, min(_LONGEST, int(side) // _STRIDE * _STRIDE))
