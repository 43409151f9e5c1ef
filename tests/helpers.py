"""Plain functions that several test files call: make data, expect a refusal, compare folders."""

from __future__ import annotations

import csv
import os
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from script_server import ScriptProcess, script_environment, script_server

from segnet.classes import ClassSet
from segnet.config.loading import load_config
from segnet.config.sections import Config, ModelConfig
from segnet.data.images import save_image
from segnet.data.mask_files import save_mask
from segnet.runs.checkpoint import load_checkpoint
from segnet.system.devices import processor_features
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import write_text
from segnet.system.processes import STOP_SIGNALS

ROOT = Path(__file__).parent.parent
CLASSES = ("ground", "box", "disc")
RunScript = Callable[..., subprocess.CompletedProcess[str]]  # the fixture `run_script`
needs_compiler = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "AVX2" and "avx512_f" in processor_features(),
    reason="inductor computes wrongly where ATEN_CPU_CAPABILITY hides AVX-512 from torch alone",
)


@cache
def recipes() -> list[Path]:
    """The YAML files of configs/ and its folders that belong to the project, without template.yaml.

    Readers write their own configurations into that folder, too: those are not known to git. Without git, all are given.
    """
    done = subprocess.run(["git", "ls-files", "configs"], cwd=ROOT, capture_output=True, text=True, check=False)
    known = {ROOT / name for name in done.stdout.splitlines()}
    there = {*(ROOT / "configs").rglob("*.yaml")} - {ROOT / "configs" / "template.yaml"}
    return sorted(there & known or there)


def tiny_mask(*, seed: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """(H, W) class ids: ground with a box and a disc on it, each anywhere, and a border of 255 above the box."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, dtype=np.uint8)
    top, left = rng.integers(1, size[0] // 2), rng.integers(0, size[1] // 2)
    mask[top : top + 12, left : left + 12] = 1
    mask[top - 1, left : left + 12] = 255
    row, column = rng.integers(8, size[0] - 8), rng.integers(8, size[1] - 8)
    mask[(rows - row) ** 2 + (columns - column) ** 2 < 36] = 2
    return mask


def write_pair(root: Path, name: str, mask: np.ndarray, classes: ClassSet) -> None:
    """A mask in VOC's layout, and a noisy picture in which each class has its own colour."""
    colors = np.array([[60, 90, 60], [200, 60, 60], [60, 60, 200]], dtype=np.float64)
    picture = colors[np.where(mask == 255, 0, mask)] + np.random.default_rng(mask.sum()).normal(0, 12, (*mask.shape, 3))
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
    save_image(root / "JPEGImages" / f"{name}.jpg", picture.clip(0, 255).astype(np.uint8))
    save_mask(root / "SegmentationClass" / f"{name}.png", mask, classes)


def write_picture(path: Path, size: tuple[int, int] = (9, 12), seed: int = 0) -> Path:
    """A picture of noise, whatever its suffix says stored as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")
    return path


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def packed_rows(samples: np.ndarray, bits: int, *, big: bool = True) -> list[bytes]:
    """The rows of (H, W) or (H, W, bands) samples of so many bits, each filled up to whole bytes."""
    if bits >= 8:
        wide = samples.astype(samples.dtype.newbyteorder(">" if big else "<"))
        return [row.tobytes() for row in wide]
    flat = samples.reshape(len(samples), -1, 1) >> np.arange(bits)[::-1] & 1
    return [np.packbits(row.reshape(-1)).tobytes() for row in flat]


def write_png(path: Path, samples: np.ndarray, bits: int, color: int, extra: bytes = b"") -> Path:
    """A PNG of any depth and colour type, which Pillow cannot write; `extra` chunks stand before its pixels."""
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, color, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in packed_rows(samples, bits))))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra + pixels + png_chunk(b"IEND", b""))
    return path


def write_tiff(path: Path, samples: np.ndarray, bits: int, light: int, *, extra: tuple[int, ...] = (), kind: int = 1) -> Path:
    """A TIFF of any depth, PhotometricInterpretation, ExtraSamples and SampleFormat, most of which Pillow cannot write."""
    height, width, bands = *samples.shape[:2], 1 if samples.ndim == 2 else samples.shape[2]
    data = b"".join(packed_rows(samples, bits, big=False))
    shorts: dict[int, tuple[int, ...]] = {256: (width,), 257: (height,), 258: (bits,) * bands, 259: (1,), 262: (light,)}
    shorts |= {277: (bands,), 278: (height,), 338: extra, 339: (kind,) * bands, 320: (0,) * (3 << bits) if light == 3 else ()}
    shorts = {tag: values for tag, values in sorted((shorts | {273: (0,), 279: (len(data),)}).items()) if values}
    after = 8 + 2 + 12 * len(shorts) + 4  # what does not fit into an entry
    place, entries, outside = after + sum(2 * len(v) for v in shorts.values() if len(v) > 2), b"", b""
    for tag, values in shorts.items():
        content = struct.pack(f"<{len(values)}H", *(values if tag != 273 else (place,)))
        if len(content) > 4:
            outside, content = outside + content, struct.pack("<I", after + len(outside))
        entries += struct.pack("<HHI", tag, 3, len(values)) + content.ljust(4, b"\0")
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(shorts)) + entries + b"\0" * 4 + outside + data)
    return path


def write_split(root: Path, split: str, names: list[str]) -> None:
    """The list of a split's ids."""
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{split}.txt", "".join(f"{name}\n" for name in names))


def tiny_config_for(root: Path) -> Config:
    """Two stages of widths 4 and 8 on the data in `root`: 2 epochs of 3 steps, on the CPU, in float32, without workers."""
    return Config.model_validate(
        {
            "device": "cpu",
            "model": {"encoder": ({"widths": (4,)}, {"widths": (8,)}), "decoder": ({"widths": (4,)}, {"widths": (4,)})},
            "data": {"root": str(root), "classes": CLASSES, "workers": 0},
            "augment": {"crop_size": (32, 32)},
            "train": {"epochs": 2.0, "batch_size": 2, "precision": "float32", "kernel": "torch", "log_every_steps": 1},
            "inference": {"precision": "float32"},
        }
    )


@contextmanager
def refused(code: ExitCode, *parts: str) -> Iterator[None]:
    """The body raises a UserError with `code`, whose text holds every one of `parts`."""
    with pytest.raises(UserError) as caught:
        yield
    text = str(caught.value)
    assert caught.value.code == code, text
    assert [part for part in parts if part not in text] == [], text


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` and its content, to see that nothing changed."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def model_config(name: str) -> ModelConfig:
    """The network of configs/model/<name>.yaml."""
    return load_config(ROOT / "configs" / "model" / f"{name}.yaml", ["data={root: data, classes: voc}"]).model


def same(a: object, b: object) -> bool:
    """Equal to the bit, through nested tables and lists."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_same_run(a: Path, b: Path, what: str = "runs") -> None:
    """Two finished runs have the same networks, training state and metrics.csv but for the time they took, to the bit;
    `what` says which trial it is."""
    for name in ("last.pt", "best.pt"):
        first, second = load_checkpoint(a / name), load_checkpoint(b / name)
        assert (first.step, first.score) == (second.step, second.score), f"{what}: {name}: steps or scores differ"
        assert same(first.weights, second.weights), f"{what}: {name}: weights differ"
        assert same(first.training, second.training), f"{what}: {name}: training states differ"
    assert untimed_rows(a) == untimed_rows(b), f"{what}: metrics differ"


def read_metrics(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv by its columns."""
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def untimed_rows(run: Path) -> list[str]:
    """The lines of metrics.csv without their last column, the minutes."""
    return [line.rpartition(",")[0] for line in (run / "metrics.csv").read_text().split("\n")]


def steps_logged(run: Path) -> int:
    """The last step in metrics.csv."""
    path = run / "metrics.csv"
    lines = path.read_text().split("\n")[1:-1] if path.exists() else []
    return int(lines[-1].split(",")[0]) if lines else 0


def start_script(name: str, *arguments: object) -> ScriptProcess:
    """scripts/NAME.py in a process group of its own, which hears all stop signals: background jobs and nohup ignore some."""
    command = [str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
    return script_server().start(command, ROOT, script_environment(), session=STOP_SIGNALS)


def start_training(config: Path, run: Path, *arguments: str) -> ScriptProcess:
    """train.py in a process group of its own."""
    return start_script("train", config, "--run", run, *arguments)


def group_lives(group: int) -> bool:
    """Whether a process of the process group is there still."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
