"""What is computed once from a data set and used again while its content is the same: decoded samples, class statistics.

It stands in `.segnet/` beside the data, or in a folder of the user's choice. Every file carries a digest of all that it
was made from, and is used only where that digest fits.
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

from segnet.system.digests import DIGEST_BYTES, digest_of
from segnet.system.distributed import is_main
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import atomic_write, lock_folder, make_folder, remove_stale_temporaries, write_text

FOLDER = ".segnet"
_RECORD = np.dtype([("offset", "<i8"), ("height", "<i8"), ("width", "<i8")])
_MAGIC = b"SegNet decoded 1"


def may_write(folder: Path) -> bool:
    """Whether `folder` is there to be written to. One without any permission to write is left alone by root as well."""
    return bool(folder.stat().st_mode & 0o222) and os.access(folder, os.W_OK)


def load_small(path: Path, digest: str) -> dict[str, list[int]]:
    """What `save_small` wrote under `digest`; empty when there is nothing, or it was made from something else, or is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: values for name, values in found.items() if isinstance(values, list)}
        whole = all(type(value) is int for values in lists.values() for value in values)
        return lists if whole and found["digest"] == digest and found["check"] == digest_of(digest, lists) else {}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}


def save_small(path: Path, digest: str, lists: dict[str, list[int]]) -> None:
    """Write `lists` for `load_small`, atomically. Where the data folder cannot be written, nothing happens."""
    try:
        if may_write(path.parent.parent):
            path.parent.mkdir(exist_ok=True)
            write_text(path, json.dumps({"digest": digest, "check": digest_of(digest, lists), **lists}, indent=1) + "\n")
    except OSError:
        pass


class Undecoded(NamedTuple):
    """Where decoded samples come from."""

    digest: str  # of everything they depend on
    pixels: Sequence[int]  # height × width of each
    decode: Callable[[int], tuple[Tensor, Tensor]]  # the number of a sample -> image (3, H, W), mask (H, W), uint8


class DecodedSamples:
    """Pictures and masks in one file that is mapped into memory: what one worker has read, no other reads from disk.

    The file: 16 bytes that say what it is, 16 of the digest, N, a record (offset, height, width) per sample, then each
    sample's (H, W, 3) and (H, W) bytes. Little-endian.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = np.asarray(np.memmap(path, dtype=np.uint8, mode="c"))  # nothing written to a sample reaches the file
        start = len(_MAGIC) + DIGEST_BYTES
        count = int(self._bytes[start : start + 8].view("<i8")[0])
        self._records = np.frombuffer(self._bytes[start + 8 : start + 8 + count * _RECORD.itemsize].tobytes(), _RECORD)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) and mask (H, W), uint8, the very values and memory order that decoding gives."""
        offset, height, width = (int(value) for value in self._records[index])
        middle, end = offset + 3 * height * width, offset + 4 * height * width
        image = torch.from_numpy(self._bytes[offset:middle].reshape(height, width, 3))
        return image.permute(2, 0, 1), torch.from_numpy(self._bytes[middle:end].reshape(height, width))

    def __reduce__(self) -> tuple[type[DecodedSamples], tuple[Path]]:
        return DecodedSamples, (self.path,)  # a worker maps the file itself


def open_decoded(folder: Path, name: str, source: Undecoded) -> DecodedSamples:
    """The decoded samples of `source`, made now unless `folder` has them. Older ones of the same `name` are removed.

    Several processes may ask at once: one makes the file, the others wait for it.
    Raises UserError (environment) when the folder cannot be written or the disk is too full, and whatever decoding raises.
    """
    path = folder / f"{name}-{source.digest}.decoded"
    remedy = "set data.cache_folder to another folder, or data.cache=none"
    if not _is_whole(path, source):
        try:
            if not folder.exists() and folder.parent.exists() and not may_write(folder.parent):
                raise UserError(ExitCode.ENVIRONMENT, folder, "the folder above it is read-only", remedy)
            make_folder(folder)
            with lock_folder(folder, wait=True) as held:
                if not _is_whole(path, source):
                    if held:  # or they may be another's that writes now
                        remove_stale_temporaries(folder)
                    _make(path, source, remedy)
                    for old in set(folder.glob(f"{name}-{'?' * 2 * DIGEST_BYTES}.decoded")) - {path}:
                        old.unlink(missing_ok=True)  # whoever has it mapped keeps it
        except OSError as error:
            found = f"cannot be written ({error.strerror})"
            raise UserError(ExitCode.ENVIRONMENT, error.filename or folder, found, remedy) from None
    try:
        return DecodedSamples(path)
    except OSError as error:  # such as ENODEV of a file system of network or container
        found = f"its file system cannot map files into memory ({error.strerror})"
        raise UserError(ExitCode.ENVIRONMENT, path, found, remedy) from None


def _head(source: Undecoded) -> bytes:
    return _MAGIC + bytes.fromhex(source.digest) + len(source.pixels).to_bytes(8, "little")


def _size(source: Undecoded) -> int:
    return len(_head(source)) + len(source.pixels) * _RECORD.itemsize + 4 * sum(source.pixels)


def _is_whole(path: Path, source: Undecoded) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_head(source))) == _head(source) and path.stat().st_size == _size(source)
    except OSError:
        return False


def _make(path: Path, source: Undecoded, remedy: str) -> None:
    size, (total, _, free) = _size(source), shutil.disk_usage(path.parent)
    if total and size > 0.95 * free:  # a file system that does not know its size says 0
        found = f"decoded samples need {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        raise UserError(ExitCode.ENVIRONMENT, path.parent, found, remedy)
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
    """Every decoded sample, few of them in memory at a time."""
    count, together = len(source.pixels), 64
    with tqdm(total=count, unit="picture", disable=None, leave=False, delay=2) as bar:
        for start in range(0, count, together):
            for sample in pool.map(source.decode, range(start, min(count, start + together))):
                bar.update()
                yield sample


def _append(file: BinaryIO, values: Tensor) -> None:
    file.write(values.contiguous().numpy().tobytes())
