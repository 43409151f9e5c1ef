"""Measure how fast a configuration is, beside a plain way of doing the same work.

examples:
  python scripts/benchmark.py inference configs/camvid_segnet.yaml --size 360 480
  python scripts/benchmark.py train configs/camvid_segnet.yaml --size 224 224 --batch 2 --json train.json
  python scripts/benchmark.py data configs/voc_segnet.yaml data.workers=16 --gpu-rate 550

`data`: pictures per second from files, and from decoded samples, to batches of uint8, against Pillow and NumPy to batches of
floats. "Per core" is per second of processor time of one thread, so that other programs on the machine disturb it little.
`inference` and `train`: one forward pass, and one training step, against the plain network in NCHW and float32 with the same
weights. Answers are compared first; then all take turns. Quartiles are those of the ratio over the rounds. "Of peak": the
share of the rate of the fastest large 3×3 convolution in the same precision. "Saved" is what a picture keeps in memory
for the backward pass. Allocators matter: compare runs with the same variables in `environment`.
The last line of the output is one JSON document.
"""

import argparse
import json
import math
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from PIL import ImageEnhance as Enhance
from torch import Tensor

from segnet.benchmarks.network import benchmark_inference, benchmark_training
from segnet.benchmarks.timing import print_table
from segnet.config.loading import load_config, override_config
from segnet.config.sections import AugmentConfig, Config
from segnet.data.dataset import SegmentationDataset
from segnet.data.layout import mask_path
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler
from segnet.system.command_line import run_command
from segnet.system.devices import choose_device, describe_device, describe_instructions, explain_full_memory
from segnet.system.files import make_folder, write_text
from segnet.system.streams import printing_is_the_result
from segnet.training.data import open_train_set


class Rate(NamedTuple):
    """Pictures per second over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: list[float]) -> "Rate":
        return cls(statistics.median(rounds), min(rounds), max(rounds))


def main() -> None:
    arguments = _arguments()
    if not arguments.json:
        printing_is_the_result()
    config = load_config(arguments.config, arguments.overrides)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    versions["pillow"] = PIL.__version__
    device = describe_device(torch.device("cpu") if arguments.command == "data" else choose_device(config.device))
    device += f"; instruction sets: {describe_instructions()}"
    print(f"benchmark {arguments.command} {arguments.config} on {device}\n" + ", ".join(f"{k} {v}" for k, v in versions.items()))
    sys.stdout.flush()
    found = {"benchmark": arguments.command, "config": str(arguments.config), "overrides": arguments.overrides, "device": device}
    if arguments.command == "data":
        document = {**found, "versions": versions, **benchmark_data(config, arguments.pictures, arguments.rounds)}
        if arguments.gpu_rate:
            document["gpu"] = feeding(document["per_core"], arguments.gpu_rate)
    else:
        measured = _benchmark_network(arguments, config)
        document = {**found, "versions": versions, **_surroundings(), **measured}
    if arguments.json:
        write_text(arguments.json, json.dumps(document, indent=1) + "\n")
    if arguments.command != "data":
        print_table(measured)
    print(json.dumps(document))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    what = {"inference": "from pictures to logits", "train": "a training step", "data": "reading and augmenting pictures"}
    for name, text in what.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("config", type=Path, metavar="CONFIG")
        command.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
        command.add_argument("--rounds", type=int, default=9, metavar="N", help="rounds, each way in turn (9)")
        command.add_argument("--json", type=Path, metavar="FILE", help="write the JSON document there too")
        if name == "data":
            command.add_argument("--pictures", type=int, default=64, metavar="N", help="pictures per round (64)")
            command.add_argument("--gpu-rate", type=float, metavar="R", help="pictures/s that a GPU takes: can they be fed?")
        else:
            command.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of the pictures (augment.crop_size)")
            default = "train.batch_size" if name == "train" else "1"
            command.add_argument("--batch", type=int, metavar="N", help=f"pictures at once ({default})")
            command.add_argument("--compile", action="store_true", help="also torch.compile, which takes minutes first")
            command.add_argument("--emulated", action="store_true", help="also what the device emulates, slowly")
    arguments = parser.parse_args()
    counts = (arguments.rounds, getattr(arguments, "pictures", 1), getattr(arguments, "gpu_rate", None) or 1)
    if min(counts) < 1:
        parser.error("--rounds, --pictures and --gpu-rate are 1 or more")
    return arguments


def _benchmark_network(arguments: argparse.Namespace, config: Config) -> dict[str, object]:
    """Measure inference or training, and return its numbers."""
    height, width = arguments.size or config.augment.crop_size
    training = arguments.command == "train"
    batch = arguments.batch or (config.train.batch_size if training else 1)
    changes = ["train.accumulate=1", f"train.batch_size={batch}", f"augment.crop_size=[{height},{width}]"]
    config = override_config(config, changes)
    benchmark = benchmark_training if training else benchmark_inference
    with explain_full_memory("lower --batch or --size"):
        return benchmark(config, rounds=arguments.rounds, compiled=arguments.compile, emulated=arguments.emulated)


def _surroundings() -> dict[str, object]:
    """What speed depends on beside the device: threads, backends, and variables that choose an allocator."""
    prefixes = ("MALLOC_", "LD_PRELOAD", "OMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "PYTORCH_", "TORCH_", "CUDA_", "NVIDIA_")
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "threads": torch.get_num_threads(),
        "environment": {key: value for key, value in sorted(os.environ.items()) if key.startswith(prefixes)},
        "backends": {
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "cuda": torch.version.cuda,
            "cudnn": cudnn.version(),
            "cudnn.benchmark": cudnn.benchmark,
            "cudnn.deterministic": cudnn.deterministic,
            "cudnn.allow_tf32": cudnn.allow_tf32,
            "matmul.allow_tf32": matmul.allow_tf32,
        },
    }


def benchmark_data(config: Config, pictures: int, rounds: int) -> dict[str, object]:
    """Measure the ways in turn, print a table, and return its numbers."""
    torch.set_num_threads(1)
    from_files, from_cache = (_first(open_train_set(config), pictures) for _ in range(2))
    size = config.train.batch_size
    if config.data.cache_folder:
        make_folder(Path(config.data.cache_folder))
    with tempfile.TemporaryDirectory(dir=config.data.cache_folder) as folder:
        from_cache.keep_decoded(Path(folder))
        ways: dict[str, Callable[[int], object]] = {
            "plain PIL": lambda number: list(plain_batches(from_files, config.augment, size, number)),
            "from files": lambda number: _read(from_files, size, number),
            "from cache": lambda number: _read(from_cache, size, number),
        }
        per_core = _rounds(ways, rounds, len(from_files), time.process_time)
        busy: dict[str, Callable[[int], object]] = {}
        workers = config.data.workers
        if workers:
            busy = {
                name: lambda number, dataset=dataset: _read(dataset, size, number, workers=workers, epochs=8)  # type: ignore[misc]
                for name, dataset in (("from files", from_files), ("from cache", from_cache))
            }
        with_workers = _rounds(busy, min(3, rounds), 8 * len(from_files), time.perf_counter)
    base = per_core["plain PIL"].median
    print(f"{len(from_files)} pictures to {config.augment.crop_size[0]}×{config.augment.crop_size[1]}, {rounds} rounds")
    print(f"{'pictures/s per core':<24}{'median':>8}{'lowest':>9}{'highest':>9}{'× PIL':>8}")
    for name, rate in per_core.items():
        print(f"{name:<24}{rate.median:>8.0f}{rate.low:>9.0f}{rate.high:>9.0f}{rate.median / base:>8.2f}")
    for name, rate in with_workers.items():
        print(f"{name}, {workers} workers: {rate.median:.0f} pictures/s ({rate.low:.0f}–{rate.high:.0f}), start included")
    return {
        "crop_size": config.augment.crop_size,
        "pictures": len(from_files),
        "rounds": rounds,
        "per_core": {name: {**rate._asdict(), "times_pil": rate.median / base} for name, rate in per_core.items()},
        "workers": {"count": workers, **{name: rate._asdict() for name, rate in with_workers.items()}},
    }


def _first(dataset: SegmentationDataset, count: int) -> SegmentationDataset:
    """`dataset` cut down to `count` pictures from all over it."""
    step = max(1, len(dataset) // count)
    dataset.ids, dataset.pictures = dataset.ids[::step][:count], dataset.pictures[::step][:count]
    return dataset


def _rounds(ways: dict[str, Callable[[int], object]], rounds: int, pictures: int, clock: Callable[[], float]) -> dict[str, Rate]:
    """Each way's rate; they take turns in every round, and a first round does not count."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = clock()
            way(number)
            rates[name].append(pictures / (clock() - started))
    return {name: Rate.of(found[1:]) for name, found in rates.items()}


def _read(dataset: SegmentationDataset, size: int, number: int, *, workers: int = 0, epochs: int = 1) -> None:
    """`epochs` times all pictures of `dataset`, as training reads them, from its round `number` on."""
    steps = math.ceil(epochs * len(dataset) / size)
    sampler = ResumableSampler(len(dataset), size, seed=0, start=number * steps, total=(number + 1) * steps)
    for _ in build_loader(dataset, sampler, workers=workers):
        pass


def plain_batches(dataset: SegmentationDataset, augment: AugmentConfig, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same pictures once, by Pillow and NumPy alone, as most training scripts do it: float images and int64 masks."""
    rng, order = random.Random(seed), list(range(len(dataset)))
    rng.shuffle(order)
    order += order[: -len(order) % size]  # whole batches, as the loader has them
    for start in range(0, len(order), size):
        samples = [plain_sample(dataset, index, augment, rng) for index in order[start : start + size]]
        images, masks = zip(*samples, strict=True)
        yield torch.stack(images), torch.stack(masks)


def plain_sample(dataset: SegmentationDataset, index: int, augment: AugmentConfig, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Decode, scale the whole picture, mirror, crop, colour, pad, normalise: (3, H, W) float32 and (H, W) int64.

    It leaves out EXIF, hue, rotation, blur and every check.
    """
    image = Image.open(dataset.pictures[index]).convert("RGB")
    mask: Image.Image = Image.open(mask_path(dataset.root, dataset.ids[index]))
    zoom = math.exp(rng.uniform(*(math.log(scale) for scale in augment.scale)))
    width, height = max(1, round(image.width * zoom)), max(1, round(image.height * zoom))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    mask = mask.resize((width, height), Image.Resampling.NEAREST)
    if rng.random() < augment.flip:
        image, mask = (part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in (image, mask))
    change = ((Enhance.Brightness, augment.brightness), (Enhance.Contrast, augment.contrast), (Enhance.Color, augment.saturation))
    rows, columns = augment.crop_size
    top, left = rng.randint(0, max(0, height - rows)), rng.randint(0, max(0, width - columns))
    box = (left, top, min(width, left + columns), min(height, top + rows))
    image, mask = image.crop(box), mask.crop(box)
    for enhance, most in change:
        if most:
            image = enhance(image).enhance(rng.uniform(1 - most, 1 + most))
    pixels, labels = np.asarray(image), np.asarray(mask)
    beyond = ((0, rows - labels.shape[0]), (0, columns - labels.shape[1]))
    if any(map(any, beyond)):
        pixels, labels = np.pad(pixels, (*beyond, (0, 0))), np.pad(labels, beyond, constant_values=255)
    normal = (pixels.astype(np.float32) / 255 - _MEAN) / _STD
    return torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1))), torch.from_numpy(labels.astype(np.int64))


_MEAN, _STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def feeding(per_core: dict[str, dict[str, float]], gpu_rate: float) -> dict[str, object]:
    """How many workers a GPU of that rate needs, one core each, and whether this machine has the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    needed = {name: math.ceil(gpu_rate / rate["median"]) for name, rate in per_core.items()}
    for name, workers in needed.items():
        enough = "enough" if workers <= cores else "too few"
        print(f"{gpu_rate:g} pictures/s {name}: {workers} workers; the {cores} cores here are {enough}")
    return {"rate": gpu_rate, "cores": cores, "workers_needed": needed}


if __name__ == "__main__":
    run_command(main)
