"""Pictures and masks in Pascal VOC's layout, in an order that is a function of the seed and the step."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import PIL
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segnet.classes import ClassSet
from segnet.config.sections import DataConfig
from segnet.data.cache import FOLDER, DecodedSamples, Undecoded, open_decoded
from segnet.data.images import open_image, open_mask, pixel_count
from segnet.data.layout import (
    SHOWN,
    find_pictures,
    label_faults,
    label_warnings,
    mask_path,
    merge_alike,
    overlap_faults,
    parse_split,
    read_split,
    require_same_size,
    split_path,
)
from segnet.data.sampler import SampleKey
from segnet.data.transforms import JointTransform, eval_transform
from segnet.system.digests import derive_seed, digest_files, digest_of
from segnet.system.distributed import is_main
from segnet.system.errors import UserError, raise_first
from segnet.system.files import is_inside, short_name


class Sample(NamedTuple):
    """A picture and its truth; a batch has a leading B and a tuple of ids."""

    image: Tensor  # (3, H, W) uint8 RGB
    mask: Tensor  # (H, W) uint8 class ids, 255 ignored
    id: str


class SegmentationDataset(Dataset[Sample]):
    """One split of a data set in VOC's layout.

    Augmentation of a sample depends on (seed, epoch, id, size) alone – not on the worker, the order or what came before.
    Raises UserError (data) for the faults of the list and of the files as such, and when reading for those of their content.
    """

    def __init__(
        self, root: Path, split: str, classes: ClassSet, *, transform: JointTransform = eval_transform, seed: int = 0
    ) -> None:
        self.root, self.split, self.classes, self.transform, self.seed = root, split, classes, transform, seed
        self.ids = read_split(root, split)
        pictures, faults = find_pictures(root, self.ids)
        raise_first(merge_alike(faults, lambda _: split_path(root, split)), limit=SHOWN)
        self.pictures = [pictures[name] for name in self.ids]
        self.decoded: DecodedSamples | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: SampleKey) -> Sample:
        sample = self.read(key.picture)
        with torch.random.fork_rng(devices=[]):
            seed = derive_seed(self.seed, "augment", key.epoch, sample.id)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would see to every kind of device as well
            image, mask = self.transform(sample.image, sample.mask, key.shrink)
        return Sample(image, mask, sample.id)

    def keep_decoded(self, folder: Path | None = None) -> None:
        """From now on read samples from one file of decoded ones in `folder` (default: beside the data), made first if need be.

        It holds what the files hold now. Raises UserError (environment) when it cannot be made, (data) as `read` does.
        """
        self.decoded = None
        digest = digest_of("decoded 1", PIL.__version__, *self.decoding, *self.ids, *content_digests(self).tolist())
        with ThreadPoolExecutor() as pool:
            pixels = list(pool.map(pixel_count, self.pictures))
        source = Undecoded(digest, pixels, lambda index: self.read(index)[:2])
        self.decoded = open_decoded(folder or self.root / FOLDER, self.file_name, source)

    @property
    def decoding(self) -> tuple[object, ...]:
        """All that the values of a decoded mask depend on, beside its file."""
        return (self.classes,)

    @property
    def file_name(self) -> str:
        """The split's name, for a file beside the data."""
        return short_name(self.split.replace("/", "_"))

    def read(self, index: int) -> Sample:
        """The picture and mask as they are on disk. Raises UserError (data) when they differ in size."""
        if self.decoded:
            return Sample(*self.decoded[index], self.ids[index])
        image, mask = open_image(self.pictures[index]), self.read_mask(index)
        require_same_size(image, mask, mask_path(self.root, self.ids[index]))
        return Sample(image, mask, self.ids[index])

    def read_mask(self, index: int) -> Tensor:
        """The mask alone, (H, W) uint8."""
        return self.read_mask_of(self.ids[index])

    def read_mask_of(self, sample_id: str) -> Tensor:
        """The mask of an id, (H, W) uint8."""
        return open_mask(mask_path(self.root, sample_id), self.classes)


def open_split(data: DataConfig, split: str, *, transform: JointTransform = eval_transform, seed: int = 0) -> SegmentationDataset:
    """A split to learn from or to be scored on: also without what makes the result worthless.

    Raises UserError (data) for all that SegmentationDataset does, for a picture that `data.train_split` holds as well, and
    for masks by which nothing can be learnt or scored; what they leave in doubt is a warning.
    """
    root, train, classes = Path(data.root), data.train_split, data.class_set
    dataset = SegmentationDataset(root, split, classes, transform=transform, seed=seed)
    every, learnt = set(range(len(classes))), set[int]()
    if split == train:
        seen = _labels_seen(dataset.ids, dataset.read_mask_of, lambda seen: len(seen & every) > 1)
    else:
        train_ids = parse_split(root, train)[0]
        raise_first(overlap_faults(root, train, train_ids, split, dataset.ids))
        seen = _labels_seen(dataset.ids, dataset.read_mask_of, lambda seen: seen >= every)
        learnt = _labels_seen(train_ids, lambda name: _mask_if_sound(root, name, classes), lambda learnt: learnt >= seen & every)
    raise_first(label_faults(root, split, seen, classes, train))
    warn(label_warnings(root, split, seen, classes, train, learnt))
    return dataset


def warn(warnings: Sequence[UserError]) -> None:
    """A line on stderr for each, said once by all ranks."""
    for warning in warnings if is_main() else ():
        print(f"warning: {warning}", file=sys.stderr)


def _labels_seen(ids: Sequence[str], read: Callable[[str], Tensor], enough: Callable[[set[int]], bool]) -> set[int]:
    """The values of the masks of `ids`, all together; no mask is read once they are `enough`."""
    seen = set[int]()
    for name in random.Random(0).sample(ids, len(ids)):  # objects may start late in a sequence
        seen |= set(torch.unique(read(name)).tolist())
        if enough(seen):
            break
    return seen


def _mask_if_sound(root: Path, name: str, classes: ClassSet) -> Tensor:
    """The mask of a picture; without a value where it has a fault, which is said where its split is opened."""
    path = mask_path(root, name)
    try:
        return open_mask(path, classes) if is_inside(path, root) else torch.empty(0)
    except (UserError, OSError):
        return torch.empty(0)


def content_digests(dataset: SegmentationDataset) -> Tensor:
    """(N,) int64: for each picture of `dataset` a digest of its file's bytes and its mask's."""
    masks = [mask_path(dataset.root, name) for name in dataset.ids]
    return digest_files(list(zip(dataset.pictures, masks, strict=True)))
