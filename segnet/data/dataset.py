"""A split of a dataset in Pascal VOC's layout: its samples, and the requirements on its labels."""

from __future__ import annotations

import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, cast

import PIL
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.config.sections import RGB, Bands, DataConfig
from segnet.data.cache import FOLDER, DecodedSamples, Undecoded, open_decoded
from segnet.data.colors import Change, DrawChanges, change_colors, no_changes
from segnet.data.images import open_raster, pixel_count
from segnet.data.label_faults import label_faults, label_warnings
from segnet.data.layout import mask_path, split_path
from segnet.data.mask_files import open_mask
from segnet.data.sample_files import find_pictures, merge_alike, size_faults
from segnet.data.sampler import SampleKey
from segnet.data.split_lists import SHOWN, overlap_faults, parse_split, read_split
from segnet.data.transforms import JointTransform, eval_transform
from segnet.system.digests import derive_seed, digest_files, digest_of
from segnet.system.distributed import is_main
from segnet.system.errors import UserError, raise_first
from segnet.system.files import is_inside, short_name


class Sample(NamedTuple):
    """An image and the truth that its task compares the answer with. A batch has a leading dimension B and a tuple of ids."""

    image: Tensor  # (C, H, W) uint8; float32 where `Bands.scale` is not "picture", or where a task says so
    truth: Tensor  # of a segmentation: (H, W) uint8 class ids; `IGNORE_INDEX` is not scored. Of another task: as that says
    id: str
    colors: Sequence[Change] | Sequence[Sequence[Change]] = ()  # still to be made: of an image, or of each image of a batch


class SplitDataset(Dataset[Sample], ABC):
    """The samples of one split of a dataset, for a task.

    The augmentation of a sample is a function of (seed, epoch, id, shrink) alone: it depends neither on the worker nor on
    the samples before.
    """

    ids: list[str]

    def __init__(self, root: Path, split: str, *, bands: Bands, seed: int, transform: JointTransform = eval_transform) -> None:
        self.root = root
        self.bands = bands
        self.split = split
        self.transform = transform
        self.draw_colors: DrawChanges = no_changes
        self.seed = seed
        self.decoded: DecodedSamples | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: SampleKey) -> Sample:
        sample = self.before_colors(key)
        return Sample(change_colors(sample.image, cast(Sequence[Change], sample.colors)), sample.truth, sample.id)

    @abstractmethod
    def before_colors(self, key: SampleKey) -> Sample:
        """The augmented sample; its changes of colour may be drawn and still to be made."""

    @abstractmethod
    def read(self, index: int) -> Sample:
        """The sample without augmentation. Raises UserError (data) for a fault of its files."""

    @abstractmethod
    def files(self) -> list[list[Path]]:
        """The files of each sample."""

    @abstractmethod
    def keep_decoded(self, folder: Path | None = None) -> None:
        """Read samples from a file of decoded ones in `folder` (default: the data folder) from now on.

        The file is made first unless it is there and fits the present content of the samples' files.
        Raises UserError (environment) when it cannot be made, (data) as `read`.
        """

    @property
    def file_name(self) -> str:
        """The name of the split as part of a file name."""
        return short_name(self.split.replace("/", "_"))


class SegmentationDataset(SplitDataset):
    """The samples of one split of a dataset in VOC's layout.

    The constructor raises UserError (data) for faults of the list, and for files that are missing or lie elsewhere; reading a
    sample raises it for faults in the content of its files.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        classes: ClassSet,
        *,
        bands: Bands = RGB,
        transform: JointTransform = eval_transform,
        seed: int = 0,
    ) -> None:
        super().__init__(root, split, bands=bands, transform=transform, seed=seed)
        self.classes = classes
        self.ids = read_split(root, split)
        pictures, faults = find_pictures(root, self.ids)
        raise_first(merge_alike(faults, lambda _: split_path(root, split)), limit=SHOWN)
        self.pictures = [pictures[name] for name in self.ids]

    def before_colors(self, key: SampleKey) -> Sample:
        """The augmented sample, whose changes of colour are drawn and still to be made."""
        sample = self.read(key.picture)
        with torch.random.fork_rng(devices=[]):
            seed = derive_seed(self.seed, "augment", key.epoch, sample.id)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the devices, too
            image, mask = self.transform(sample.image, sample.truth, key.shrink)
            colors = self.draw_colors()
        return Sample(image, mask, sample.id, colors)

    def keep_decoded(self, folder: Path | None = None) -> None:
        self.decoded = None
        kind = () if self.bands.are_colors else self.bands[:2]  # ranges and previews are the network's
        digest = digest_of("decoded 1", PIL.__version__, *self.decoding, *kind, *self.ids, *content_digests(self).tolist())
        with ThreadPoolExecutor() as pool:
            pixels = list(pool.map(pixel_count, self.pictures))
        source = Undecoded(digest, pixels, lambda index: self.read(index)[:2], self.bands)
        self.decoded = open_decoded(folder or self.root / FOLDER, self.file_name, source)

    @property
    def decoding(self) -> tuple[object, ...]:
        """The values that a decoded mask depends on besides its file."""
        return (self.classes, *self.classes.class_of_stored)

    def read(self, index: int) -> Sample:
        """The sample without augmentation; its mask is `IGNORE_INDEX` where the picture holds nothing.

        Raises UserError (data) when a file is damaged or the two sizes differ.
        """
        if self.decoded:
            return Sample(*self.decoded[index], self.ids[index])
        image, valid, *_ = open_raster(self.pictures[index], bands=self.bands)
        mask = self.read_mask(index)
        path = mask_path(self.root, self.ids[index])
        raise_first(size_faults((image.shape[1], image.shape[2]), (mask.shape[0], mask.shape[1]), path))
        return Sample(image, mask if valid is None else mask.where(valid, IGNORE_INDEX), self.ids[index])

    def read_mask(self, index: int) -> Tensor:
        """The mask of a sample from its file, (H, W) uint8."""
        return open_mask(mask_path(self.root, self.ids[index]), self.classes)

    def files(self) -> list[list[Path]]:
        """The picture and the mask of each sample."""
        return [[picture, mask_path(self.root, name)] for picture, name in zip(self.pictures, self.ids, strict=True)]


def open_split(data: DataConfig, split: str, *, seed: int = 0) -> SegmentationDataset:
    """The split `split` of the dataset that a configuration names. No picture or mask is read; see `require_useful_labels`.

    Raises UserError (data) as SegmentationDataset does, and for a picture that `data.train_split` contains as well.
    """
    root = Path(data.root)
    dataset = SegmentationDataset(root, split, data.class_set, bands=data.bands, seed=seed)
    require_unseen(data, split, dataset.ids)
    return dataset


def require_unseen(data: DataConfig, split: str, ids: Sequence[str]) -> None:
    """Raise UserError (data) when `ids`, those of `split`, are in `data.train_split` as well, which is another split."""
    root = Path(data.root)
    if split != data.train_split:
        train_ids, _ = parse_split(root, data.train_split)
        raise_first(overlap_faults(root, data.train_split, train_ids, split, ids))


def require_useful_labels(dataset: SegmentationDataset, data: DataConfig) -> None:
    """Raise UserError (data) when the masks of a split give nothing to learn or to score; print warnings for what is doubtful.

    It reads masks in random order until their classes settle the question: usually a few, at worst all of the split and of
    `data.train_split`. Raises UserError (data) for a damaged mask among those of the split.
    """
    root, split, classes, train = dataset.root, dataset.split, dataset.classes, data.train_split
    every = set(range(len(classes)))
    learnt = set[int]()

    def read(name: str) -> Tensor:
        return open_mask(mask_path(root, name), classes)

    def read_if_sound(name: str) -> Tensor:
        return _mask_if_sound(root, name, classes)

    if split == train:
        seen = _values_in_masks(dataset.ids, read, lambda seen: len(seen & every) > 1)
    else:
        seen = _values_in_masks(dataset.ids, read, lambda seen: seen >= every)
        train_ids, _ = parse_split(root, train)
        learnt = _values_in_masks(train_ids, read_if_sound, lambda learnt: learnt >= seen & every)
    raise_first(label_faults(root, split, seen, classes, train))
    warn(label_warnings(root, split, seen, classes, train, learnt))


def warn(warnings: Sequence[UserError]) -> None:
    """Print each warning as a line on stderr, on the main rank alone."""
    for warning in warnings if is_main() else ():
        print(f"warning: {warning}", file=sys.stderr)


def _values_in_masks(ids: Sequence[str], read: Callable[[str], Tensor], enough: Callable[[set[int]], bool]) -> set[int]:
    """The set of all values in the masks of `ids`. Reading stops when the values so far are `enough`."""
    seen = set[int]()
    for name in random.Random(0).sample(ids, len(ids)):  # in a video, the first frames may show few classes
        seen |= set(torch.unique(read(name)).tolist())
        if enough(seen):
            break
    return seen


def _mask_if_sound(root: Path, name: str, classes: ClassSet) -> Tensor:
    """The mask of an id of another split; an empty tensor when it has a fault, which the opening of that split reports."""
    path = mask_path(root, name)
    try:
        return open_mask(path, classes) if is_inside(path, root) else torch.empty(0)
    except (UserError, OSError):
        return torch.empty(0)


def content_digests(dataset: SplitDataset) -> Tensor:
    """(N,) int64: for each sample of `dataset` a digest of the bytes of its files."""
    return digest_files(dataset.files())
