"""Files that are computed once from a dataset: decoded samples, and small results such as class statistics.

They lie in `.segnet/` in the data folder, or in a folder that the user chooses. Each contains a digest of everything that
it was computed from, and is used only while that digest is the same.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from segnet.config.sections import RGB, Bands
from segnet.system.digests import DIGEST_BYTES, digest_of
from segnet.system.distributed import is_main
from segnet.system.errors import environment_error
from segnet.system.files import atomic_write, lock_folder, make_folder, remove_stale_temporaries, write_text

FOLDER = ".segnet"
_RECORD = np.dtype([("offset", "<i8"), ("height", "<i8"), ("width", "<i8")])
_MAGIC = b"SegNet decoded 1"


def may_write(folder: Path) -> bool:
    """Whether files may be written into `folder`. A folder that gives nobody the permission to write binds root, too."""
    return bool(folder.stat().st_mode & 0o222) and os.access(folder, os.W_OK)


def load_small(path: Path, digest: str) -> dict[str, list[int]]:
    """The lists that `save_small` wrote with `digest`; empty when the file is missing, damaged or has another digest."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: values for name, values in record.items() if isinstance(values, list)}
        whole = all(type(value) is int for values in lists.values() for value in values)
        fits = record["digest"] == digest and record["check"] == digest_of(digest, lists)
        return lists if whole and fits else {}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}


def save_small(path: Path, digest: str, lists: dict[str, list[int]]) -> None:
    """Write `lists` for `load_small`, atomically; nothing when the data folder cannot be written."""
    try:
        if may_write(path.parent.parent):
            path.parent.mkdir(exist_ok=True)
            write_text(path, json.dumps({"digest": digest, "check": digest_of(digest, lists), **lists}, indent=1) + "\n")
    except OSError:
        pass


class Undecoded(NamedTuple):
    """Samples before they are decoded."""

    digest: str  # of everything that the decoded samples depend on
    pixels: Sequence[int]  # height × width of each sample
    decode: Callable[[int], tuple[Tensor, Tensor]]  # index -> image (C, H, W) of `_type_of(bands)`, mask (H, W) uint8
    bands: Bands = RGB

    @property
    def bytes_per_pixel(self) -> int:
        """Of an image and its mask."""
        return self.bands.channels * _type_of(self.bands).itemsize + 1


def _type_of(bands: Bands) -> np.dtype:
    """The type of the values of images."""
    return np.dtype(np.uint8 if bands.scale == "picture" else np.float32)


class DecodedSamples:
    """Images and masks in one file that is mapped into memory, so that all workers share what one has read from disk.

    The file, little-endian: 16 bytes that identify the format, 16 of the digest, the count N as 8, N records (offset,
    height, width), then for each sample its image (H, W, C) and its mask (H, W), a byte a value; four bytes a value of an image
    of float32.
    """

    def __init__(self, path: Path, bands: Bands = RGB) -> None:
        self.path = path
        self.bands = bands
        self._bytes = np.asarray(np.memmap(path, dtype=np.uint8, mode="c"))  # "c": writing to a sample leaves the file as it is
        start = len(_MAGIC) + DIGEST_BYTES
        count = int(self._bytes[start : start + 8].view("<i8")[0])
        self._records = np.frombuffer(self._bytes[start + 8 : start + 8 + count * _RECORD.itemsize].tobytes(), _RECORD)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (C, H, W) and mask (H, W), with the types, values and the memory order that decoding gives."""
        offset, height, width = (int(value) for value in self._records[index])
        channels, kind = self.bands.channels, _type_of(self.bands)
        middle = offset + channels * height * width * kind.itemsize
        end = middle + height * width
        values = np.require(self._bytes[offset:middle].view(kind), requirements="A")  # float32 may lie at any byte
        image = torch.from_numpy(values.reshape(height, width, channels))
        return image.permute(2, 0, 1), torch.from_numpy(self._bytes[middle:end].reshape(height, width))

    def __reduce__(self) -> tuple[type[DecodedSamples], tuple[Path, Bands]]:
        return DecodedSamples, (self.path, self.bands)  # a worker maps the file itself


def open_decoded(folder: Path, name: str, source: Undecoded) -> DecodedSamples:
    """The decoded samples of `source` from their file in `folder`, which is made first if it is missing.

    Files of the same `name` with another digest are removed. Of several processes one makes the file, and the others wait.
    Raises UserError (environment) when the folder cannot be written or the disk is too full, and whatever decoding raises.
    """
    path = folder / f"{name}-{source.digest}.decoded"
    remedy = "set data.cache_folder to another folder, or data.cache=none"
    if not _is_whole(path, source):
        try:
            if not folder.exists() and folder.parent.exists() and not may_write(folder.parent):
                raise environment_error(folder, "the folder above it is read-only", remedy)
            make_folder(folder)
            with lock_folder(folder, wait=True) as held:
                if not _is_whole(path, source):
                    if held:  # without a lock, another process may be writing these files
                        remove_stale_temporaries(folder)
                    _make(path, source, remedy)
                    for old in set(folder.glob(f"{name}-{'?' * 2 * DIGEST_BYTES}.decoded")) - {path}:
                        old.unlink(missing_ok=True)  # a process that has mapped it keeps its content
        except OSError as error:
            found = f"cannot be written ({error.strerror})"
            raise environment_error(error.filename or folder, found, remedy) from None
    try:
        return DecodedSamples(path, source.bands)
    except OSError as error:  # such as ENODEV, on file systems of networks or containers
        found = f"its file system cannot map files into memory ({error.strerror})"
        raise environment_error(path, found, remedy) from None


def _head(source: Undecoded) -> bytes:
    return _MAGIC + bytes.fromhex(source.digest) + len(source.pixels).to_bytes(8, "little")


def _size(source: Undecoded) -> int:
    """Bytes of the whole file."""
    return len(_head(source)) + len(source.pixels) * _RECORD.itemsize + source.bytes_per_pixel * sum(source.pixels)


def _is_whole(path: Path, source: Undecoded) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_head(source))) == _head(source) and path.stat().st_size == _size(source)
    except OSError:
        return False


def _make(path: Path, source: Undecoded, remedy: str) -> None:
    size = _size(source)
    total, _, free = shutil.disk_usage(path.parent)
    if total and size > 0.95 * free:  # a total of 0 means that the file system does not know its size
        found = f"decoded samples need {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        raise environment_error(path.parent, found, remedy)
    if is_main():
        print(f"decoding {len(source.pixels)} pictures once into {path} ({size / 1e9:.2f} GB)", flush=True)
    with atomic_write(path) as file, ThreadPoolExecutor() as pool:
        file.write(_head(source))
        records = np.zeros(len(source.pixels), _RECORD)
        file.write(records.tobytes())
        for index, (image, mask) in enumerate(_in_order(pool, source)):
            records[index] = (file.tell(), *mask.shape)
            _append(file, image.permute(1, 2, 0))
            _append(file, mask)
        file.seek(len(_head(source)))
        file.write(records.tobytes())


def _in_order(pool: ThreadPoolExecutor, source: Undecoded) -> Iterator[tuple[Tensor, Tensor]]:
    """Every decoded sample in order, decoded on all cores, with at most 64 of them in memory."""
    count = len(source.pixels)
    together = 64
    with tqdm(total=count, unit="picture", disable=None, leave=False, delay=2) as bar:
        for start in range(0, count, together):
            for sample in pool.map(source.decode, range(start, min(count, start + together))):
                bar.update()
                yield sample


def _append(file: BinaryIO, values: Tensor) -> None:
    file.write(values.contiguous().numpy().tobytes())
