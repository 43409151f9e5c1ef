"""Pixel counts per class over a split."""

from __future__ import annotations

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
    contents = digest_files([[mask_path(dataset.root, name)] for name in dataset.ids]).tolist()
    digest = digest_of("class statistics 1", *dataset.decoding, *dataset.ids, *contents)
    path = dataset.root / FOLDER / f"{dataset.file_name}.statistics.json"
    kept = load_small(path, digest)
    if not kept:
        kept = count_classes(dataset)._asdict()
        save_small(path, digest, kept)
    return ClassStatistics(**kept)


def count_classes(dataset: SegmentationDataset) -> ClassStatistics:
    """`class_statistics`, counted now on all cores."""
    count = len(dataset.classes)
    pixels = torch.zeros(count, dtype=torch.int64)
    of_pictures = torch.zeros(count, dtype=torch.int64)

    def count_one(index: int) -> Tensor:
        return torch.bincount(dataset.read_mask(index).flatten(), minlength=256)

    with ThreadPoolExecutor() as pool:  # decoding and counting release the global interpreter lock
        counted = pool.map(count_one, range(len(dataset)))
        for counts in tqdm(counted, total=len(dataset), desc="classes", unit="mask", disable=None, leave=False, delay=2):
            pixels += counts[:count]
            of_pictures += (counts[:count] > 0) * counts.sum()
    return ClassStatistics(pixels.tolist(), of_pictures.tolist())
