"""Pictures and masks in Pascal VOC's layout, in an order that is a function of the seed and the step."""

from __future__ import annotations

import hashlib
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import PIL
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from tqdm import tqdm

from segnet.cache import FOLDER, DecodedSamples, Source, digest_files, digest_of, open_decoded, recall, remember
from segnet.classes import ClassSet
from segnet.distributed import share
from segnet.errors import ExitCode, UserError, kill_children
from segnet.files import is_safe_name
from segnet.images import SUFFIXES, open_image, open_mask, pixel_count
from segnet.transforms import JointTransform, eval_transform


def derive_seed(*parts: int | str) -> int:
    """A seed 0..2^63-1 that depends on every part: randomness as a function, e.g. of (seed, epoch, picture)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Sample(NamedTuple):
    """A picture and its truth; a batch has a leading B and a tuple of ids."""

    image: Tensor  # (3, H, W) uint8 RGB
    mask: Tensor  # (H, W) uint8 class ids, 255 ignored
    id: str


class SampleKey(NamedTuple):
    """Which picture, and in which epoch: all that a worker needs to know to make a sample."""

    epoch: int
    picture: int  # its place in the split


class SegmentationDataset(Dataset[Sample]):
    """One split of a data set in VOC's layout.

    Augmentation of a sample depends on (seed, epoch, id) alone – not on the worker, the order or what came before.
    Raises UserError (data) when the split, a picture or a mask is missing, or an id is there twice.
    """

    def __init__(
        self, root: Path, split: str, classes: ClassSet, *, transform: JointTransform = eval_transform, seed: int = 0
    ) -> None:
        self.root, self.split, self.classes, self.transform, self.seed = root, split, classes, transform, seed
        self.ids = read_split(root, split)
        self.pictures = _find_pictures(root, self.ids)
        self.decoded: DecodedSamples | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: SampleKey) -> Sample:
        sample = self.read(key.picture)
        with torch.random.fork_rng(devices=[]):
            seed = derive_seed(self.seed, "augment", key.epoch, sample.id)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would see to every kind of device as well
            image, mask = self.transform(sample.image, sample.mask)
        return Sample(image, mask, sample.id)

    def keep_decoded(self, folder: Path | None = None) -> None:
        """From now on read samples from one file of decoded ones in `folder` (default: beside the data), made first if need be.

        It holds what the files hold now. Raises UserError (environment) when it cannot be made, (data) as `read` does.
        """
        self.decoded = None
        digest = digest_of("decoded 1", PIL.__version__, *self.decoding, *self.ids, *content_digests(self).tolist())
        with ThreadPoolExecutor() as pool:
            pixels = list(pool.map(pixel_count, self.pictures))
        source = Source(digest, pixels, lambda index: self.read(index)[:2])
        self.decoded = open_decoded(folder or self.root / FOLDER, self.file_name, source)

    @property
    def decoding(self) -> tuple[object, ...]:
        """All that the values of a decoded mask depend on, beside its file."""
        return (self.classes,)

    @property
    def file_name(self) -> str:
        """The split's name, for a file beside the data."""
        return self.split.replace("/", "_")

    def read(self, index: int) -> Sample:
        """The picture and mask as they are on disk. Raises UserError (data) when they differ in size."""
        if self.decoded:
            return Sample(*self.decoded[index], self.ids[index])
        image, mask = open_image(self.pictures[index]), self.read_mask(index)
        if image.shape[1:] != mask.shape:
            found = f"mask {mask.shape[1]}×{mask.shape[0]}, picture {image.shape[2]}×{image.shape[1]} (width × height)"
            raise UserError(ExitCode.DATA, mask_path(self.root, self.ids[index]), found, "make a mask of the picture's size")
        return Sample(image, mask, self.ids[index])

    def read_mask(self, index: int) -> Tensor:
        """The mask alone, (H, W) uint8."""
        return open_mask(mask_path(self.root, self.ids[index]), self.classes)


def split_path(root: Path, split: str) -> Path:
    """The file that lists the ids of a split."""
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"


def mask_path(root: Path, sample_id: str) -> Path:
    """The mask of a picture."""
    return root / "SegmentationClass" / f"{sample_id}.png"


def read_split(root: Path, split: str) -> list[str]:
    """The ids of a split, in the file's order; blank lines are skipped.

    Raises UserError (data) for a missing or empty file, a repeated id, or one that leaves the data folder.
    """
    if not is_safe_name(split):
        raise UserError(ExitCode.DATA, root, f"split '{split}' leaves the data folder", "name a split such as train")
    path = split_path(root, split)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        remedy = "prepare the data (python scripts/prepare_data.py --help), or set data.root"
        raise UserError(ExitCode.DATA, path, "no such file", remedy) from None
    except UnicodeDecodeError as error:
        raise UserError(ExitCode.DATA, path, f"byte {error.start} is not UTF-8", "save the file as UTF-8") from None
    ids: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        if not is_safe_name(name):
            raise UserError(ExitCode.DATA, path, f"line {number}: '{name}' leaves the data folder", "list plain ids")
        if name in ids:
            raise UserError(ExitCode.DATA, path, f"line {number}: '{name}' stands in line {ids[name]} already", "remove one")
        ids[name] = number
    if not ids:
        raise UserError(ExitCode.DATA, path, "no ids in it", "list one picture id per line")
    return list(ids)


def _find_pictures(root: Path, ids: list[str]) -> list[Path]:
    """The picture of each id, whatever its suffix. Raises UserError (data) that lists all that miss a picture or mask."""
    folder = root / "JPEGImages"
    present: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        other = present.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
        if other != path:
            raise UserError(ExitCode.DATA, path, f"has the id of {other.name} too", "remove or rename one of them")
    missing = [(folder / f"{name}.jpg", "picture") for name in ids if name not in present]
    missing += [(mask_path(root, name), "mask") for name in ids if not mask_path(root, name).is_file()]
    if missing:
        remedy = "restore it, or remove its id from the split"
        first, *others = [UserError(ExitCode.DATA, path, f"{kind} is missing", remedy) for path, kind in missing[:10]]
        raise UserError(first.code, first.path, f"{first.found} ({len(missing)} files in all)", remedy, also=tuple(others))
    return [present[name] for name in ids]


def content_digests(dataset: SegmentationDataset) -> Tensor:
    """(N,) int64: for each picture of `dataset` a digest of its file's bytes and its mask's."""
    masks = [mask_path(dataset.root, name) for name in dataset.ids]
    return digest_files(list(zip(dataset.pictures, masks, strict=True)))


class ClassStatistics(NamedTuple):
    """Per class: its pixels, and all pixels of the pictures in which it occurs."""

    pixels: list[int]
    pixels_of_pictures: list[int]


def class_statistics(dataset: SegmentationDataset) -> ClassStatistics:
    """The count of each class in the masks of `dataset`; ignored pixels belong to a picture's size but to no class.

    Counted once: it is kept beside the data with a digest of the masks' bytes, and counted again when that does not fit.
    """
    contents = digest_files([[mask_path(dataset.root, name)] for name in dataset.ids]).tolist()
    digest = digest_of("class statistics 1", *dataset.decoding, *dataset.ids, *contents)
    path = dataset.root / FOLDER / f"{dataset.file_name}.statistics.json"
    kept = recall(path, digest)
    if not kept:
        kept = count_classes(dataset)._asdict()
        remember(path, digest, kept)
    return ClassStatistics(**kept)


def count_classes(dataset: SegmentationDataset) -> ClassStatistics:
    """`class_statistics`, counted now on all cores."""
    count = len(dataset.classes)
    pixels, of_pictures = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)

    def count_one(index: int) -> Tensor:
        return torch.bincount(dataset.read_mask(index).flatten(), minlength=256)

    with ThreadPoolExecutor() as pool:  # decoding and counting let go of the interpreter's lock
        counted = pool.map(count_one, range(len(dataset)))
        for counts in tqdm(counted, total=len(dataset), desc="classes", unit="mask", disable=None, leave=False, delay=2):
            pixels += counts[:count]
            of_pictures += (counts[:count] > 0) * counts.sum()
    return ClassStatistics(pixels.tolist(), of_pictures.tolist())


class ResumableSampler(Sampler[list[SampleKey]]):
    """The keys of batch `start`, `start + 1`, …, `total - 1`: a function of (seed, step) alone.

    The stream is one permutation of the data set after the other, cut into full batches; a batch may span two epochs,
    so each picture is seen exactly once per epoch and no batch is short. Under torchrun each rank gets its part of every batch.
    """

    def __init__(self, length: int, batch_size: int, *, seed: int, start: int, total: int) -> None:
        self.length, self.batch_size, self.seed, self.start, self.total = length, batch_size, seed, start, total
        self._epoch, self._order = -1, list[int]()

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.start, self.total):
            yield share(self.batch(step))

    def batch(self, step: int) -> list[SampleKey]:
        """The whole batch of a step, over all ranks."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [self._key(*divmod(position, self.length)) for position in positions]

    def _key(self, epoch: int, place: int) -> SampleKey:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(self.length))
            random.Random(derive_seed(self.seed, "order", epoch)).shuffle(self._order)
        return SampleKey(epoch, self._order[place])


class _Reading(Dataset[Sample]):
    """`dataset`, with the refusal of a picture as a value: torch would make a RuntimeError of one raised in a worker."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: SampleKey) -> Sample | Exception:  # type: ignore[override]
        try:
            return self.dataset[key]
        except (UserError, OSError) as error:
            return error


def _collate(samples: list[Sample | Exception]) -> Sample | Exception:
    """A batch; its images lie in memory as (B, H, W, 3), the way each was decoded and the network wants them."""
    whole: list[Sample] = []
    for sample in samples:
        if isinstance(sample, Exception):
            return sample
        whole.append(sample._replace(image=sample.image.permute(1, 2, 0)))
    batch: Sample = default_collate(whole)
    return batch._replace(image=batch.image.permute(0, 3, 1, 2))  # (B, 3, H, W)


class _Loader(DataLoader[Sample]):
    """Batches; a picture that was refused, here or in a worker, raises its UserError here."""

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]
        try:
            with _stop_signals_blocked():
                batches = super().__iter__()
            for batch in batches:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        except RuntimeError as error:
            reason = (str(error).splitlines() or [""])[0]
            if "DataLoader timed out" in reason:
                kill_children()
                found = f"no batch for {self.timeout:g} seconds"
                remedy = "see whether the disk hangs, or raise data.worker_timeout"
            elif "DataLoader worker" in reason:
                found, remedy = f"a data worker was lost ({reason})", "free memory or /dev/shm, or lower data.workers"
            else:
                raise
            raise UserError(ExitCode.WORKER_LOST, "data.workers", found, remedy) from None


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """What is started here never receives Ctrl-C or SIGTERM, which reach a whole group: the main process ends its workers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def build_loader(
    dataset: SegmentationDataset,
    batches: Sampler[list[SampleKey]] | None = None,
    *,
    workers: int,
    timeout: float = 0,
    pin_memory: bool = False,
) -> DataLoader[Sample]:
    """Samples in the given batches; without them, the whole split in order, one picture at a time at its own size.

    Under torchrun each rank gets its share of the split. Iterating raises UserError (data) for a damaged picture or mask,
    whatever the number of workers, and (worker lost) for one that died or gave nothing for `timeout` seconds (0: no limit).
    """
    return _Loader(
        _Reading(dataset),
        batch_sampler=[[SampleKey(0, index)] for index in share(list(range(len(dataset))))] if batches is None else batches,
        collate_fn=_collate,
        num_workers=workers,
        timeout=timeout if workers else 0,
        pin_memory=pin_memory,
    )
