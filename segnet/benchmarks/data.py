"""The speed of reading and augmenting training pictures, beside Pillow and NumPy alone."""

from __future__ import annotations

import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from PIL import ImageEnhance as Enhance
from torch import Tensor
from torch.utils.data import Sampler

from segnet.benchmarks.timing import Facts
from segnet.config.sections import AugmentConfig, Config
from segnet.data.dataset import SegmentationDataset
from segnet.data.layout import mask_path
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler, SampleKey
from segnet.system.devices import usable_cores
from segnet.system.files import make_folder
from segnet.tasks.choice import build_task
from segnet.training.data import augment, open_train_set, resolve_scale

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, for values in 0..1
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_EPOCHS = 8  # of a measurement with workers, which includes their start

ReadRound = Callable[[int], object]  # reads all pictures once or more; its argument is the number of the round


class Rate(NamedTuple):
    """Pictures per second over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Rate:
        """The median and the range of the rates of all rounds."""
        return cls(statistics.median(rounds), min(rounds), max(rounds))


def benchmark_data(config: Config, pictures: int, rounds: int) -> Facts:
    """The rates of reading `pictures` of the train split in each way, as a JSON document. The ways take turns.

    The samples are decoded into a temporary file first, in `data.cache_folder` if it is set: all of the split, as in training.
    Leaves torch with one thread.
    """
    torch.set_num_threads(1)
    from_files, from_cache = (open_train_set(config, build_task(config)) for _ in range(2))
    assert isinstance(from_files, SegmentationDataset)  # what is compared reads masks
    assert isinstance(from_cache, SegmentationDataset)
    config = resolve_scale(config, from_files)
    augment(from_cache, config)
    chosen = _spread_places(len(from_files), pictures)
    size = config.train.batch_size
    workers = config.data.workers
    if config.data.cache_folder:
        make_folder(Path(config.data.cache_folder))
    with tempfile.TemporaryDirectory(dir=config.data.cache_folder) as folder:
        from_cache.keep_decoded(Path(folder))
        ours = {"from files": from_files, "from cache": from_cache}
        ways: dict[str, ReadRound] = {"plain PIL": partial(_read_plainly, from_files, chosen, config.augment, size)}
        ways |= {name: partial(_read, dataset, chosen, size) for name, dataset in ours.items()}
        ways["from cache for a GPU"] = partial(_read, from_cache, chosen, size, for_gpu=True)
        per_core = _measure(ways, rounds, len(chosen), time.process_time)
        busy: dict[str, ReadRound] = {}
        if workers:
            read = partial(_read, workers=workers, epochs=_EPOCHS)
            busy = {name: partial(read, dataset, chosen, size) for name, dataset in ours.items()}
            busy["from cache for a GPU"] = partial(read, from_cache, chosen, size, for_gpu=True)
        with_workers = _measure(busy, min(3, rounds), _EPOCHS * len(chosen), time.perf_counter)
    plain = per_core["plain PIL"].median
    return {
        "crop_size": config.augment.crop_size,
        "pictures": len(chosen),
        "rounds": rounds,
        "per_core": {name: {**rate._asdict(), "times_pil": rate.median / plain} for name, rate in per_core.items()},
        "workers": {"count": workers, **{name: rate._asdict() for name, rate in with_workers.items()}},
    }


def print_rates(document: Facts) -> None:
    """Print the document of `benchmark_data` as a table."""
    height, width = document["crop_size"]
    print(f"{document['pictures']} pictures to {height}×{width}, {document['rounds']} rounds")
    print(f"{'pictures/s per core':<24}{'median':>8}{'lowest':>9}{'highest':>9}{'× PIL':>8}")
    for name, rate in document["per_core"].items():
        print(f"{name:<24}{rate['median']:>8.0f}{rate['low']:>9.0f}{rate['high']:>9.0f}{rate['times_pil']:>8.2f}")
    workers = {name: rate for name, rate in document["workers"].items() if name != "count"}
    for name, rate in workers.items():
        text = f"{rate['median']:.0f} pictures/s ({rate['low']:.0f}–{rate['high']:.0f}), start included"
        print(f"{name}, {document['workers']['count']} workers: {text}")


def workers_needed(per_core: dict[str, dict[str, float]], gpu_rate: float) -> Facts:
    """The workers that a GPU which takes `gpu_rate` pictures per second needs, for each way of reading, a core each."""
    cores = usable_cores()
    needed = {name: math.ceil(gpu_rate / rate["median"]) for name, rate in per_core.items()}
    return {"rate": gpu_rate, "cores": cores, "workers_needed": needed}


def print_workers(document: Facts) -> None:
    """Print the document of `workers_needed`, a line for each way of reading."""
    rate, cores = document["rate"], document["cores"]
    for name, workers in document["workers_needed"].items():
        enough = "enough" if workers <= cores else "too few"
        print(f"{rate:g} pictures/s {name}: {workers} workers; the {cores} cores here are {enough}")


def _spread_places(length: int, count: int) -> list[int]:
    """Up to `count` places from all over a split of `length` pictures."""
    return list(range(0, length, max(1, length // count)))[:count]


def _measure(ways: dict[str, ReadRound], rounds: int, pictures: int, clock: Callable[[], float]) -> dict[str, Rate]:
    """The rate of each way over `rounds`, after one that is not counted; `clock` gives seconds."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, read in ways.items():
            started = clock()
            read(number)
            rates[name].append(pictures / (clock() - started))
    return {name: Rate.of(values[1:]) for name, values in rates.items()}


def _read(
    dataset: SegmentationDataset,
    chosen: Sequence[int],
    size: int,
    number: int,
    *,
    workers: int = 0,
    epochs: int = 1,
    for_gpu: bool = False,
) -> None:
    """Read the `chosen` places of `dataset` `epochs` times in batches of `size`, as training does; `number` is the round.

    With `for_gpu` the changes of colour are left out, which training makes on the GPU.
    """
    steps = math.ceil(epochs * len(chosen) / size)
    batches = ResumableSampler(len(chosen), size, seed=0, start=number * steps, total=(number + 1) * steps)
    for _ in build_loader(dataset, _Chosen(batches, chosen), workers=workers, for_gpu=for_gpu):
        pass


def _read_plainly(dataset: SegmentationDataset, chosen: Sequence[int], augment: AugmentConfig, size: int, number: int) -> None:
    """Read the `chosen` places once by `plain_batches`; `number` is the round."""
    for _ in plain_batches(dataset, chosen, augment, size, seed=number):
        pass


class _Chosen(Sampler[list[SampleKey]]):
    """The keys of `batches`, which count the `chosen` places of a split from 0 on, as keys of the split."""

    def __init__(self, batches: ResumableSampler, chosen: Sequence[int]) -> None:
        self.batches = batches
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for batch in self.batches:
            yield [key._replace(picture=self.chosen[key.picture]) for key in batch]


def plain_batches(
    dataset: SegmentationDataset, chosen: Sequence[int], augment: AugmentConfig, size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The `chosen` places once, in shuffled batches, by Pillow and NumPy alone: (B, 3, H, W) float32 and (B, H, W) int64."""
    rng = random.Random(seed)
    order = list(chosen)
    rng.shuffle(order)
    order += order[: -len(order) % size]  # full batches, as those of the loader
    for start in range(0, len(order), size):
        samples = [plain_sample(dataset, index, augment, rng) for index in order[start : start + size]]
        images, masks = zip(*samples, strict=True)
        yield torch.stack(images), torch.stack(masks)


def plain_sample(dataset: SegmentationDataset, index: int, augment: AugmentConfig, rng: random.Random) -> tuple[Tensor, Tensor]:
    """An augmented sample as most training scripts make it: (3, H, W) float32 and (H, W) int64.

    It scales the whole picture before the crop, and leaves out EXIF, hue, rotation, blur and every check.
    """
    image = Image.open(dataset.pictures[index]).convert("RGB")
    mask: Image.Image = Image.open(mask_path(dataset.root, dataset.ids[index]))
    zoom = math.exp(rng.uniform(*(math.log(scale) for scale in augment.scale)))
    width, height = max(1, round(image.width * zoom)), max(1, round(image.height * zoom))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    mask = mask.resize((width, height), Image.Resampling.NEAREST)
    if rng.random() < augment.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    rows, columns = augment.crop_size
    top, left = rng.randint(0, max(0, height - rows)), rng.randint(0, max(0, width - columns))
    box = (left, top, min(width, left + columns), min(height, top + rows))
    image, mask = image.crop(box), mask.crop(box)
    changes = (
        (Enhance.Brightness, augment.brightness),
        (Enhance.Contrast, augment.contrast),
        (Enhance.Color, augment.saturation),
    )
    for enhance, most in changes:
        if most:
            image = enhance(image).enhance(rng.uniform(1 - most, 1 + most))
    pixels, labels = np.asarray(image), np.asarray(mask)
    beyond = ((0, rows - labels.shape[0]), (0, columns - labels.shape[1]))
    if any(map(any, beyond)):
        pixels = np.pad(pixels, (*beyond, (0, 0)))
        labels = np.pad(labels, beyond, constant_values=255)
    normal = (pixels.astype(np.float32) / 255 - _MEAN) / _STD
    return torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1))), torch.from_numpy(labels.astype(np.int64))
