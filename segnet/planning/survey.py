"""The facts of a dataset that a plan rests on: how many pictures of which sizes, and how much of which classes, how wide."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from segnet.config.sections import Bands, DataConfig
from segnet.data.dataset import SegmentationDataset, open_split, require_useful_labels
from segnet.data.deep_pictures import ARRAY_SUFFIX
from segnet.data.image_headers import EXTRA_SAMPLES_TAG, TIFF_ALPHA, bands_of_tiff, format_of, read_tiff_tags
from segnet.data.images import open_raster
from segnet.planning.objects import Objects, find_objects, width_below

_MEASURED_MASKS = 200  # whose objects are measured; pixels and sizes are counted in all
_OPENED_PICTURES = 20  # whose bands and depths are looked at
_LARGEST_SIDE = 1536  # pixels: objects are measured in the middle of a larger mask
_THREADS = 8  # each needs memory for the objects of a mask


class ClassFacts(NamedTuple):
    """A class in the training masks."""

    name: str
    pixels: int
    pictures: int  # that show it
    narrow: float  # pixels: its objects that are narrower hold 5 % of its pixels; NaN where no measured mask shows it
    middle: float  # pixels: the same for 50 %


class PictureFacts(NamedTuple):
    """What some training pictures, all over the split, store."""

    opened: int
    channels: int  # 3 for colours and grey, else the number of their bands
    grey: bool  # R, G and B are equal in all of them
    deep: bool  # one stores more than 8 bits


class Survey(NamedTuple):
    """The training pictures of a dataset, and how many there are to score."""

    data: DataConfig
    train: int  # pictures
    val: int
    heights: tuple[float, ...]  # of the training pictures, pixels
    widths: tuple[float, ...]
    classes: tuple[ClassFacts, ...]
    measured: int  # masks whose objects were measured
    pictures: PictureFacts

    @property
    def size(self) -> tuple[float, float]:
        """The middle height and width."""
        return median(self.heights), median(self.widths)

    @property
    def present(self) -> tuple[ClassFacts, ...]:
        """The classes that the training masks show."""
        return tuple(facts for facts in self.classes if facts.pixels)


def survey(data: DataConfig) -> Survey:
    """Read the training masks. Raises UserError (data) as training does for faults of the two splits."""
    train_set, val_set = (open_split(data, split) for split in (data.train_split, data.val_split))
    for dataset in (train_set, val_set):
        require_useful_labels(dataset, data)
    step = -(-len(train_set) // _MEASURED_MASKS)
    with ThreadPoolExecutor(_THREADS) as pool:
        read = pool.map(lambda index: _read(train_set, index, objects=index % step == 0), range(len(train_set)))
        masks = list(tqdm(read, "masks", len(train_set), unit="mask", leave=False, disable=None))
    counts = np.array([mask.counts for mask in masks])
    measured = [mask.objects for mask in masks if mask.objects]
    objects = Objects(*(np.concatenate(parts) for parts in zip(*measured, strict=True)))
    heights, widths = zip(*(mask.size for mask in masks), strict=True)
    return Survey(
        data=data,
        train=len(train_set),
        val=len(val_set),
        heights=heights,
        widths=widths,
        classes=_class_facts(data.class_set.names, counts, objects),
        measured=len(measured),
        pictures=_picture_facts(train_set),
    )


def _picture_facts(dataset: SegmentationDataset) -> PictureFacts:
    """Raises UserError (data) for a picture that is damaged, or has another number of bands than the first one."""
    paths = dataset.pictures[:: -(-len(dataset) // _OPENED_PICTURES)]
    channels = _bands_of(paths[0])
    rasters = [open_raster(path, bands=Bands(channels)) for path in paths]
    grey = channels == 3 and all(bool((raster.image == raster.image[:1]).all()) for raster in rasters)
    return PictureFacts(len(paths), channels, grey, deep=any(raster.stored != "uint8" for raster in rasters))


def _bands_of(path: Path) -> int:
    """The bands that a network needs for a picture: 3 for one of colours or grey, else all that it stores."""
    if path.suffix.lower() == ARRAY_SUFFIX:
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        stored = shape[2] if len(shape) == 3 else 1
    elif format_of(path) in ("TIFF", None) and (tags := read_tiff_tags(path)):
        alpha = tags.get(EXTRA_SAMPLES_TAG, ())[:1] in TIFF_ALPHA
        stored = bands_of_tiff(tags) - alpha
    else:
        return 3
    return 3 if stored in (1, 3) else stored


class _Mask(NamedTuple):
    """What is kept of a mask."""

    size: tuple[int, int]
    counts: NDArray[np.int64]  # (256,) pixels of each value
    objects: Objects | None


def _read(dataset: SegmentationDataset, index: int, *, objects: bool) -> _Mask:
    mask = dataset.read_mask(index).numpy()
    counts = np.bincount(mask.ravel(), minlength=256)
    top, left = (max(0, side - _LARGEST_SIDE) // 2 for side in mask.shape)
    middle = mask[top : top + _LARGEST_SIDE, left : left + _LARGEST_SIDE]
    return _Mask((mask.shape[0], mask.shape[1]), counts, find_objects(middle) if objects else None)


def _class_facts(names: Sequence[str], counts: NDArray[np.int64], objects: Objects) -> tuple[ClassFacts, ...]:
    """The facts of each class, from (pictures, 256) pixel counts and the objects of the measured masks."""
    return tuple(
        ClassFacts(
            name=name,
            pixels=int(counts[:, k].sum()),
            pictures=int((counts[:, k] > 0).sum()),
            narrow=width_below(objects, k, 0.05),
            middle=width_below(objects, k, 0.5),
        )
        for k, name in enumerate(names)
    )
