"""Pixel counts per class over a split."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from segnet.data.cache import FOLDER, load_small, save_small
from segnet.data.dataset import SegmentationDataset
from segnet.data.layout import mask_path
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
