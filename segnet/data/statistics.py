"""Numbers over a whole split: the pixels of each class, the values of each band."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from segnet.config.sections import Range
from segnet.data.cache import FOLDER, load_small, save_small
from segnet.data.dataset import SegmentationDataset
from segnet.data.images import open_raster
from segnet.data.layout import mask_path
from segnet.data.scaling import Raster
from segnet.system.digests import digest_files, digest_of


class ClassStatistics(NamedTuple):
    """Pixel counts for each class of a split."""

    pixels: list[int]  # of the class
    pixels_of_pictures: list[int]  # all pixels of the pictures in which the class occurs


def class_statistics(dataset: SegmentationDataset) -> ClassStatistics:
    """The pixel counts of `dataset`; ignored pixels count as pixels of a picture and of no class.

    They are kept in the data folder with a digest of the masks' bytes, and counted again when the digest has changed.
    """
    digest = _digest(dataset, "class statistics 1")
    path = dataset.root / FOLDER / f"{dataset.file_name}.statistics.json"
    kept = load_small(path, digest)
    if not kept:
        kept = count_classes(dataset)._asdict()
        save_small(path, digest, kept)
    return ClassStatistics(**kept)


def pictures_of_classes(dataset: SegmentationDataset) -> list[list[int]]:
    """For each class the indices of the samples of `dataset` whose masks show it. Kept as `class_statistics` are."""
    digest = _digest(dataset, "pictures of classes 1")
    path = dataset.root / FOLDER / f"{dataset.file_name}.pictures.json"
    kept = load_small(path, digest)
    if not kept:
        found = list[list[int]]([] for _ in range(len(dataset.classes)))
        for index, counts in enumerate(_counts_of_masks(dataset)):
            for class_id in counts[: len(found)].nonzero().flatten().tolist():
                found[class_id].append(index)
        kept = {str(class_id): indices for class_id, indices in enumerate(found)}
        save_small(path, digest, kept)
    return [kept[str(class_id)] for class_id in range(len(dataset.classes))]


def _digest(dataset: SegmentationDataset, kind: str) -> str:
    """A digest of the masks of `dataset`, for a file of what is `kind`."""
    contents = digest_files([[mask_path(dataset.root, name)] for name in dataset.ids]).tolist()
    return digest_of(kind, *dataset.decoding, *dataset.ids, *contents)


def count_classes(dataset: SegmentationDataset) -> ClassStatistics:
    """`class_statistics`, counted now on all cores."""
    count = len(dataset.classes)
    pixels = torch.zeros(count, dtype=torch.int64)
    of_pictures = torch.zeros(count, dtype=torch.int64)
    for counts in _counts_of_masks(dataset):
        pixels += counts[:count]
        of_pictures += (counts[:count] > 0) * counts.sum()
    return ClassStatistics(pixels.tolist(), of_pictures.tolist())


def _counts_of_masks(dataset: SegmentationDataset) -> Iterator[Tensor]:
    """(256,) int64 for each mask of `dataset`, in order: the number of pixels of each value, counted on all cores."""

    def count_one(index: int) -> Tensor:
        return torch.bincount(dataset.read_mask(index).flatten(), minlength=256)

    with ThreadPoolExecutor() as pool:  # decoding and counting release the global interpreter lock
        counted = pool.map(count_one, range(len(dataset)))
        yield from tqdm(counted, total=len(dataset), desc="classes", unit="mask", disable=None, leave=False, delay=2)


PERCENTILES = (0.1, 99.9)
_BINS = 1 << 16


def percentile_ranges(dataset: SegmentationDataset) -> tuple[Range, ...]:
    """The values below which 0.1 and 99.9 percent of the stored values of each band lie, over all pictures of `dataset`.

    Pixels that hold nothing do not count. Integers of up to 16 bits are counted exactly, others in
    65,536 equal parts of their range. A band of a single value v has the range v..v+1.
    Raises UserError (data) for a damaged picture.
    """
    channels = dataset.bands.channels
    low, high, exact = np.full(channels, np.inf), np.full(channels, -np.inf), True
    for raster in _rasters(dataset):
        exact = exact and np.dtype(raster.stored).kind in "ui" and np.dtype(raster.stored).itemsize <= 2
        for band, values in enumerate(_known_values(raster)):
            low[band] = min(low[band], values.min(initial=np.inf))
            high[band] = max(high[band], values.max(initial=-np.inf))
    low, high = np.where(low > high, 0, low), np.where(low > high, 0, high)  # a band without any value
    exact = exact and float((high - low).max()) < _BINS
    width = np.ones(channels) if exact else np.maximum(high - low, 1e-12) / (_BINS - 1)
    counts = np.zeros((channels, _BINS), np.int64)
    for raster in _rasters(dataset):
        for band, values in enumerate(_known_values(raster)):
            places = np.rint((values.astype(np.float64) - low[band]) / width[band]).astype(np.int64)
            counts[band] += np.bincount(places, minlength=_BINS)
    ranges = []
    for band in range(channels):
        below = counts[band].cumsum()
        first, last = (int(np.searchsorted(below, below[-1] * share / 100)) for share in PERCENTILES)
        start, end = low[band] + first * width[band], low[band] + last * width[band]
        ranges.append((float(start), float(end if end > start else start + 1)))
    return tuple(ranges)


def _rasters(dataset: SegmentationDataset) -> Iterator[Raster]:
    """The pictures of a split from their files, in order, a few of them in memory."""
    together = 16
    with ThreadPoolExecutor() as pool:
        for start in tqdm(range(0, len(dataset), together), desc="scale", unit="batch", disable=None, leave=False, delay=2):
            yield from pool.map(lambda path: open_raster(path, bands=dataset.bands), dataset.pictures[start : start + together])


def _known_values(raster: Raster) -> list[np.ndarray]:
    """The values of each band in the pixels that hold something."""
    image = raster.image.numpy()
    return [band[raster.valid.numpy()] if raster.valid is not None else band.reshape(-1) for band in image]
