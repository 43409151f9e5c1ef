"""Pictures and masks in Pascal VOC's layout, in an order that is a function of the seed and the step."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing.queues
import multiprocessing.util
import os
import random
import re
import sys
import tempfile
import traceback
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NamedTuple, cast

import PIL
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from tqdm import tqdm

from segnet.cache import FOLDER, DecodedSamples, Source, digest_files, digest_of, open_decoded, recall, remember
from segnet.classes import ClassSet
from segnet.config import LISTS, DataConfig, root_fault
from segnet.distributed import is_main, share
from segnet.errors import ExitCode, UserError, kill_children, raise_first
from segnet.files import is_inside, is_safe_name, short_name
from segnet.images import convert_command, open_image, open_mask, pixel_count
from segnet.listing import has_foreign_suffix, has_picture_suffix
from segnet.processes import stop_signals_blocked
from segnet.split_forms import Form, find_form, invisible, mending_command, without_invisible
from segnet.transforms import JointTransform, eval_transform

_SHOWN = 10  # lines of faults that stop a command; `prepare_data.py check` shows all
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}


def derive_seed(*parts: int | str) -> int:
    """A seed 0..2^63-1 that depends on every part: randomness as a function, e.g. of (seed, epoch, picture)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Sample(NamedTuple):
    """A picture and its truth; a batch has a leading B and a tuple of ids."""

    image: Tensor  # (3, H, W) uint8 RGB
    mask: Tensor  # (H, W) uint8 class ids, 255 ignored
    id: str


class SampleKey(NamedTuple):
    """Which picture, and when: all that a worker needs to know to make a sample."""

    epoch: int
    picture: int  # its place in the split
    size: float = 1.0  # what crop and zoom are multiplied by, see AugmentConfig.sizes


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
        raise_first(merge_alike(faults, lambda _: split_path(root, split)), limit=_SHOWN)
        self.pictures = [pictures[name] for name in self.ids]
        self.decoded: DecodedSamples | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: SampleKey) -> Sample:
        sample = self.read(key.picture)
        with torch.random.fork_rng(devices=[]):
            seed = derive_seed(self.seed, "augment", key.epoch, sample.id)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would see to every kind of device as well
            image, mask = self.transform(sample.image, sample.mask, key.size)
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


def require_same_size(image: Tensor, mask: Tensor, path: Path) -> None:
    """Raise UserError (data) when a picture and its mask, the file at `path`, differ in size."""
    if image.shape[1:] != mask.shape:
        found = f"mask {mask.shape[1]}×{mask.shape[0]}, picture {image.shape[2]}×{image.shape[1]} (width × height)"
        raise _bad(path, found, "make a mask of the picture's size")


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


def overlap_faults(root: Path, first: str, first_ids: Sequence[str], second: str, second_ids: Sequence[str]) -> list[UserError]:
    """The fault of two splits that share pictures."""
    common = sorted(set(first_ids) & set(second_ids))
    if not common:
        return []
    named = ", ".join(common[:5]) + (", …" if common[5:] else "")
    found = f"{len(common)} pictures are in {first} as well: {named}"
    return [_bad(split_path(root, second), found, "remove them from one of the lists")]


def label_faults(root: Path, split: str, seen: set[int], classes: ClassSet, train: str) -> list[UserError]:
    """The fault of a split whose masks, all together, hold the values `seen`: nothing to learn in the split `train`, nothing
    to score in any, or 255 where 1 was meant.

    That no mask of a whole split shows an object although 255 occurs is not what borders look like.
    """
    path, ignore, shown = split_path(root, split), classes.ignore_id, seen - {classes.ignore_index}
    if seen == {classes.ignore_index}:
        return [_bad(path, f"its masks are {ignore} everywhere, which is not scored", "label the pictures")]
    if seen == {0, classes.ignore_index}:
        found = f"its masks hold only 0 and {ignore}, and {ignore} is not scored"
        remedy = f"if {ignore} means class 1: {convert_command(mask_path(root, 'ID'))} --map {ignore}=1"
        return [_bad(path, found, remedy)]
    if split == train and len(shown) == 1:
        found = f"its masks show nothing but '{classes.names[shown.pop()]}', which a network learns to answer everywhere"
        return [_bad(path, found, "list pictures that show other classes too, or label them")]
    return []


def label_warnings(root: Path, split: str, seen: set[int], classes: ClassSet, train: str, learnt: set[int]) -> list[UserError]:
    """What a score on the split cannot say, whose masks hold the values `seen`, and those of the split `train` `learnt`.

    `learnt` is empty where that is not known.
    """
    path, shown = split_path(root, split), sorted(seen - {classes.ignore_index})
    warnings = list[UserError]()
    if split != train and len(shown) == 1:
        found = f"its masks show nothing but '{classes.names[shown[0]]}': a network that answers it everywhere scores 100"
        warnings.append(_bad(path, found, "list pictures that show other classes too"))
    unknown = [classes.names[k] for k in shown if learnt and k not in learnt]
    if unknown:
        found = f"its masks show {', '.join(unknown)}, and none of {train} does: no network can learn that"
        warnings.append(_bad(path, found, f"list pictures in {train} that show it"))
    return warnings


def split_path(root: Path, split: str) -> Path:
    """The file that lists the ids of a split."""
    return root / LISTS / f"{split}.txt"


def mask_path(root: Path, sample_id: str) -> Path:
    """The mask of a picture."""
    return root / "SegmentationClass" / f"{sample_id}.png"


def read_split(root: Path, split: str) -> list[str]:
    """The ids of a split, in the file's order; blank lines are skipped. Raises UserError (data) for the faults of its list."""
    ids, faults = parse_split(root, split)
    raise_first(faults, limit=_SHOWN)
    return ids


def parse_split(root: Path, split: str) -> tuple[list[str], list[UserError]]:
    """The sound ids of a split, each once, and the faults of its list.

    These are: no list, none in UTF-8, an empty one, an id that is repeated, leaves the data folder or is not written plainly,
    and lines that are no plain ids, as `find_form` knows them: one fault for all of them.
    """
    if not is_safe_name(split):
        return [], [_bad(root, f"split '{split}' leaves the data folder", "name a split such as train")]
    path = split_path(root, split)
    try:
        if fault := file_fault(path, root):
            return [], [fault]
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        return [], [_bad(path, f"byte {error.start} is not UTF-8", "save the file as UTF-8, e.g. iconv -f UTF-16 -t UTF-8")]
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        if wrong := root_fault(root):
            return [], [_bad(root, f"{wrong[0]} ({path}: no such file)", wrong[1])]
        others = ", ".join(sorted(other.stem for other in path.parent.glob("[!.]*.txt")))
        remedy = "prepare the data (python scripts/prepare_data.py --help), or set data.root"
        return [], [_bad(path, "no such file", f"the splits there are {others}" if others else remedy)]
    named = {number: name for number, name in enumerate(map(str.strip, lines), 1) if name}
    exists = _picture_test(root)
    form = find_form(named, exists)
    faults = [_form_fault(path, named, form)] if form else []
    ids = dict[str, int]()
    for number, name in named.items():
        if form and (number in form.ids or number in form.others):
            continue
        if name in ids:
            faults.append(_bad(path, f"line {number}: '{name}' stands in line {ids[name]} already", "remove one"))
        elif wrong := _id_fault(name, exists):
            faults.append(_bad(path, f"line {number}: '{name}' {wrong[0]}", wrong[1]))
        else:
            ids[name] = number
    if not ids and not faults:
        faults.append(_bad(path, "no ids in it", "list one picture id per line"))
    return list(ids), faults


def _id_fault(name: str, exists: Callable[[str], bool]) -> tuple[str, str] | None:
    """What is wrong with an id as such, and the cure. Names of files may hold spaces of other widths, joiners and the like."""
    hidden, visible = invisible(name), without_invisible(name)
    if name.startswith("#") and not exists(name):
        return "is a comment, or an id without a picture", "remove the line"
    if hidden and not (all(unicodedata.category(c) in ("Zs", "Cf") or c.isprintable() for c in name) and exists(name)):
        return f"holds {hidden}, which cannot be seen", f"write '{visible}'"
    if not is_safe_name(visible):
        return "leaves the data folder", "list plain ids"
    if name != (plain := PurePosixPath(name).as_posix()):
        return "is not written plainly", f"write '{plain}'"
    return None


def _form_fault(path: Path, lines: dict[int, str], form: Form) -> UserError:
    number, name = next(iter(form.ids.items()))
    count, beside = len(form.ids) + len(form.others), ", ".join(form.beside)
    found = f"{count} of {len(lines)} lines are no plain ids ({beside}), as line {number}: '{lines[number]}'"
    command = mending_command(path, lines, form)
    remedy = f"write one id a line, without folder and suffix, here '{name}'" + (f": {command}" if command else "")
    return _bad(path, found, remedy)


def _picture_test(root: Path) -> Callable[[str], bool]:
    """Whether there is a file for the picture of an id; folders are read once."""
    listing = cache(_listing)

    def exists(name: str) -> bool:
        path = root / "JPEGImages" / name
        inside = not name.startswith("/") and ".." not in name.split("/") and "\0" not in name
        return inside and path.name in listing(path.parent)

    return exists


def names_a_picture(root: Path, path: Path) -> bool:
    """Whether a text file holds the id of a picture, in whatever form."""
    exists, lines = _picture_test(root), path.read_bytes().decode("utf-8-sig", "replace").splitlines()
    named = {number: name for number, name in enumerate(map(str.strip, lines), 1) if name}
    return any(map(exists, named.values())) or find_form(named, exists) is not None


def find_pictures(root: Path, ids: Sequence[str]) -> tuple[dict[str, Path], list[UserError]]:
    """The picture of each id that has one, whatever its suffix, and the faults of pictures and masks as files.

    These are: a folder or a file that is missing, two pictures of one id, and what `file_fault` says. No file is opened.
    """
    pictures, faults, listing, folded = dict[str, Path](), list[UserError](), cache(_listing), cache(_folded)
    inside = cache(lambda folder: is_inside(folder, root))
    for kind, folder in (("picture", root / "JPEGImages"), ("mask", root / "SegmentationClass")):
        if not folder.is_dir():
            faults.append(_bad(folder, "no such folder", f"put the {kind}s there, or set data.root"))
            continue
        if not inside(folder):
            faults.append(_outside(folder))
            continue
        for name in ids:
            path = folder / f"{name}.{'jpg' if kind == 'picture' else 'png'}"
            found = [n for n in listing(path.parent).get(path.stem, []) if kind == "picture" or n == path.name]
            if not found:
                faults.append(_missing(path, kind, folder, folded))
                continue
            file = path.with_name(found[0])
            if kind == "picture":
                pictures[name] = file
            plain = file.is_file() and not file.is_symlink() and inside(file.parent)
            if not plain and (fault := file_fault(file, root)):
                faults.append(fault)
            if len(found) > 1:
                faults.append(_bad(path.with_name(found[1]), f"has the id of {found[0]} too", "remove or rename one of them"))
    return pictures, faults


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return []


def _listing(folder: Path) -> dict[str, list[str]]:
    """What has a picture's suffix in a folder, by its name without the suffix."""
    by_stem = defaultdict[str, list[str]](list)
    for name in _names_in(folder):
        if has_picture_suffix(name):
            by_stem[os.path.splitext(name)[0]].append(name)
    return by_stem


def _fold(name: str) -> str:
    """What two names have in common that differ only in case, in Unicode's form or in what cannot be seen."""
    stem, suffix = os.path.splitext(name)
    return without_invisible(unicodedata.normalize("NFC", f"{stem.strip()}{suffix}")).casefold()


class _Folded(NamedTuple):
    """The names in a folder by what they have in common with those that differ as `_fold` says."""

    whole: dict[str, str]
    stems: dict[str, str]  # of what is, or looks like, a picture: by its name without the suffix


def _folded(folder: Path) -> _Folded:
    names = _names_in(folder)
    pictures = [name for name in names if has_picture_suffix(name) or has_foreign_suffix(name)]
    return _Folded({_fold(name): name for name in names}, {_fold(os.path.splitext(name)[0]): name for name in pictures})


def _missing(path: Path, kind: str, folder: Path, folded: Callable[[Path], _Folded]) -> UserError:
    """The fault of a file that is not there; it names the one that was probably meant."""
    place = folder
    for part in path.relative_to(folder).parts[:-1]:
        place /= folded(place).whole.get(_fold(part), part)
    there = folded(place)
    name = there.whole.get(_fold(path.name)) or there.stems.get(_fold(path.stem)) or there.whole.get(_fold(path.stem))
    near = place / (name or "")
    if not name or near.is_dir():
        return _bad(path, f"{kind} is missing", "restore it, or remove its id from the split")
    suffix = os.path.splitext(without_invisible(name))[1].lower()
    unread = kind == "picture" and not has_picture_suffix(f"name{suffix}")
    if unread and suffix and name != path.stem:
        found, remedy = "which is not read", "convert it to JPEG or PNG"
    elif unread or (name == path.stem and not has_picture_suffix(name)):
        found, remedy = "without a suffix", f"give it the suffix of its format, such as {path.suffix}"
    elif name == path.stem:
        found, remedy = "with a suffix in its id", "list ids without a suffix"
    elif suffix == path.suffix or kind == "picture":
        found, remedy = _difference(near.relative_to(folder), path.relative_to(folder)), "rename it, or correct the id"
    else:
        found, remedy = "which is no PNG", "save masks as PNG; JPEG changes the ids"
    return _bad(path, f"{kind} is missing; only {near.relative_to(folder)} is there, {found}", remedy)


def _difference(near: Path, path: Path) -> str:
    visible = without_invisible(near.name)
    if visible != near.name or Path(visible).stem.strip() != near.stem:
        return "which differs in spaces or invisible characters"
    there, meant = (str(name.with_suffix("")) for name in (near, path))
    same = unicodedata.normalize("NFC", there) == unicodedata.normalize("NFC", meant) and there != meant
    return "whose name is in another Unicode form" if same else "which differs in case"


def _outside(path: Path) -> UserError:
    found = f"is a link out of the data folder, to {os.path.realpath(path)}"
    return _bad(path, found, "copy it into the data folder, or set data.root to a folder that holds both")


def file_fault(path: Path, root: Path) -> UserError | None:
    """Why a file of the data folder is not opened: it lies elsewhere, or is a folder, a pipe, a device."""
    if not is_inside(path, root):
        return _outside(path)
    if path.is_symlink() and not path.exists():
        return _bad(path, "is a link to nothing", "restore what it links to")
    if path.exists() and not path.is_file():
        return _bad(path, "not a file" + (" but a folder" if path.is_dir() else ""), "put a file in its place")
    return None


_CURED_TOGETHER = ("a mask in mode ", "is a link out of the data folder")  # so begin the faults of many files with one cure


def merge_alike(faults: Sequence[UserError], place: Callable[[UserError], Path]) -> list[UserError]:
    """`faults`, where those of one kind with one cure and one place, such as their split, are one line with a count."""
    alike = defaultdict[tuple[str, Path | None], list[UserError]](list)
    for number, fault in enumerate(faults):
        kind = next((start for start in _CURED_TOGETHER if fault.found.startswith(start)), None)
        alike[(kind, place(fault)) if kind else (str(number), None)].append(fault)
    return [_merged(group, where) if where and group[1:] else group[0] for (_, where), group in alike.items()]


def _merged(faults: Sequence[UserError], where: Path) -> UserError:
    first = faults[0]
    return UserError(first.code, where, f"{len(faults)} files, such as {first.path}: {first.found}", first.remedy)


def _bad(path: Path, found: str, remedy: str) -> UserError:
    return UserError(ExitCode.DATA, path, found, remedy)


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
    so each picture is seen exactly once per epoch and no batch is short. Under torchrun each rank gets its share of every batch.
    The run from step 0 to `total` has as many parts of equal steps as there are `sizes`; the keys of a part have its size.
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int, start: int, total: int, sizes: Sequence[float] = (1.0,)
    ) -> None:
        self.length, self.batch_size, self.seed, self.start, self.total = length, batch_size, seed, start, total
        self.sizes = sizes
        self._epoch, self._order = -1, list[int]()

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.start, self.total):
            yield share(self.batch(step))

    def batch(self, step: int) -> list[SampleKey]:
        """The whole batch of a step, over all ranks."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        size = self.sizes[step * len(self.sizes) // self.total]
        return [self._key(*divmod(position, self.length), size) for position in positions]

    def _key(self, epoch: int, place: int, size: float) -> SampleKey:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(self.length))
            random.Random(derive_seed(self.seed, "order", epoch)).shuffle(self._order)
        return SampleKey(epoch, self._order[place], size)


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
            yield from self._batches()
        except (RuntimeError, OSError, EOFError) as error:
            mistake = self._explain(error)
            if mistake is None:
                raise
            raise mistake from None

    def _explain(self, error: RuntimeError | OSError | EOFError) -> UserError | None:
        """What the user can mend of an error of the workers; None for any other error."""
        reason = (str(error).splitlines() or [""])[0]
        number = error.errno if isinstance(error, OSError) else _number_of_exit(error)
        if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in reason or "items of ancdata" in reason:
            return _too_few_files()
        if "DataLoader timed out" in reason:
            kill_children()
            found, remedy = f"no batch for {self.timeout:g} seconds", "see whether the disk hangs, or raise data.worker_timeout"
        elif lost := _lost_worker(error):
            return lost
        elif isinstance(error, ConnectionError | EOFError):
            found, remedy = "a data worker was lost (it closed its connection)", "lower data.workers"
        else:
            return None
        return UserError(ExitCode.WORKER_LOST, "data.workers", found, remedy)

    def _batches(self) -> Iterator[Sample]:
        if self.num_workers:
            require_open_files(self.num_workers)
            _choose_socket_folder()
        with stop_signals_blocked():
            try:
                batches = super().__iter__()
            except OSError as error:  # of a pipe, a lock or a process
                _clear(error)
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise
                found, remedy = f"no worker can be started ({error.strerror})", "free memory or /dev/shm, or lower data.workers"
                raise UserError(ExitCode.ENVIRONMENT, "data.workers", found, remedy) from None
        try:
            for batch in batches:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            if self.num_workers:  # its workers end now, not when the collector finds frames that an exception holds
                batches._shutdown_workers()  # type: ignore[attr-defined]


_FILES_OF_A_WORKER = 4  # held by this process for each: one end of its queue, the other end, and two that tell of its end
_FILES_BESIDE_WORKERS = 24  # the queue of batches, batches on their way, pictures that a worker reads
_LONGEST_SOCKET_FOLDER = 107 - len("/pymp-xxxxxxxx/listener-xxxxxxxx")  # an address of AF_UNIX has up to 107 bytes


def require_open_files(workers: int) -> None:
    """Raise UserError (environment) unless this process may open the files that so many workers need; started ones would end
    half-way."""
    opened: list[int] = []
    try:
        for _ in range(_FILES_OF_A_WORKER * workers + _FILES_BESIDE_WORKERS if workers else 0):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise _too_few_files() from None
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _too_few_files() -> UserError:
    limit = os.sysconf("SC_OPEN_MAX")
    found = f"too many open files for the data workers: the limit is {limit}"
    return UserError(ExitCode.ENVIRONMENT, "data.workers", found, "raise it with ulimit -n, or lower data.workers")


def _choose_socket_folder() -> None:
    """Let workers put the sockets that hand over batches in a short folder where TMPDIR is too long for a socket's address.

    Workers inherit the folder that multiprocessing has made here. Raises UserError (environment) when there is no short one.
    """
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= _LONGEST_SOCKET_FOLDER:
        return
    before = tempfile.tempdir
    for tempfile.tempdir in ("/tmp", "/var/tmp", "/dev/shm"):
        try:
            multiprocessing.util.get_temp_dir()
            return
        except OSError:
            continue
        finally:
            tempfile.tempdir = before
    found = f"too long for a socket's address: {len(os.fsencode(usual))} bytes, expected {_LONGEST_SOCKET_FOLDER} at most"
    raise UserError(ExitCode.ENVIRONMENT, f"TMPDIR={usual}", found, "set TMPDIR to a shorter folder, or data.workers=0")


def _clear(error: OSError) -> None:
    """Let go of an iterator that could not be made, whose end would print a traceback of its own."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        traceback.clear_frames(error.__traceback__)
    finally:
        sys.unraisablehook = before


def _tell_errors(_worker: int) -> None:
    """Make errors of a worker's threads known to the main process, which would wait for the batch until its time limit."""
    multiprocessing.queues.Queue._on_queue_feeder_error = _send_error  # type: ignore[attr-defined]
    sys.excepthook = _end_worker


def _send_error(queue: multiprocessing.queues.Queue[tuple[int, Exception]], error: Exception, item: tuple[int, object]) -> None:
    """Send the error of a batch that could not be sent, in place of the batch."""
    number = error.errno if isinstance(error, OSError) else None
    known = OSError(number, os.strerror(number)) if number else RuntimeError(f"DataLoader worker: {error}")
    queue.put((item[0], known))


def _end_worker(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End this worker with the error's number as exit code: the thread that hands over batches cannot send one."""
    if isinstance(error, ConnectionError | EOFError):
        return  # the main process has ended, or wants no more
    if not isinstance(error, OSError):
        sys.__excepthook__(kind, error, trace)
    os._exit(getattr(error, "errno", None) or 1)


def _number_of_exit(error: BaseException) -> int | None:
    """The `errno` with which `_end_worker` ended a worker, from torch's words or those of the cause."""
    found = re.search(r"exited unexpectedly with exit code (\d+)", f"{error} {error.__cause__}")
    return int(found[1]) if found and int(found[1]) > 1 else None


def _lost_worker(error: BaseException) -> UserError | None:
    """What torch says of a worker that ended; None for any other error."""
    reason, number = (str(error).splitlines() or [""])[0], _number_of_exit(error)
    if number:
        reason = os.strerror(number)
        return UserError(ExitCode.WORKER_LOST, "data.workers", f"a data worker was lost ({reason})", "lower data.workers")
    if "DataLoader worker" in reason or "Pin memory thread" in reason:
        remedy = "free memory or /dev/shm, or lower data.workers"
        return UserError(ExitCode.WORKER_LOST, "data.workers", f"a data worker was lost ({reason})", remedy)
    return None


@contextmanager
def explain_lost_worker() -> Iterator[None]:
    """Raises UserError (worker lost) where a worker ends while the body is at something else than its next batch, since torch
    then interrupts whatever runs."""
    try:
        yield
    except RuntimeError as error:
        if lost := _lost_worker(error):
            raise lost from None
        raise


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
    whatever the number of workers, (worker lost) for one that died or gave nothing for `timeout` seconds (0: no limit), and
    (environment) where workers may not open enough files.
    """
    return _Loader(
        _Reading(dataset),
        batch_sampler=[[SampleKey(0, index)] for index in share(list(range(len(dataset))))] if batches is None else batches,
        collate_fn=_collate,
        num_workers=workers,
        timeout=timeout if workers else 0,
        pin_memory=pin_memory,
        worker_init_fn=_tell_errors,
    )


def split_of(loader: DataLoader[Sample]) -> SegmentationDataset:
    """The whole split that a loader of `build_loader` reads, of which it gives this rank's share."""
    return cast(_Reading, loader.dataset).dataset
