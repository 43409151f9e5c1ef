"""Plain functions that several test files call: make data, expect a refusal, compare folders."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from segnet.checkpoint import load_checkpoint
from segnet.classes import ClassSet
from segnet.config import ModelConfig, load_config
from segnet.errors import ExitCode, UserError
from segnet.files import write_text
from segnet.images import save_image, save_mask

ROOT = Path(__file__).parent.parent
CLASSES = ("ground", "box", "disc")
RunScript = Callable[..., subprocess.CompletedProcess[str]]  # the fixture `run_script`


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


def write_split(root: Path, split: str, names: list[str]) -> None:
    """The list of a split's ids."""
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{split}.txt", "".join(f"{name}\n" for name in names))


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


def assert_same_run(a: Path, b: Path) -> None:
    """Two finished runs have the same networks, training state and metrics.csv, to the bit."""
    for name in ("last.pt", "best.pt"):
        first, second = load_checkpoint(a / name), load_checkpoint(b / name)
        assert first.step == second.step
        assert same(first.weights, second.weights), f"{name}: weights differ"
        assert same(first.training, second.training), f"{name}: training state differs"
    assert (a / "metrics.csv").read_text() == (b / "metrics.csv").read_text()


def steps_logged(run: Path) -> int:
    """The last step in metrics.csv."""
    path = run / "metrics.csv"
    lines = path.read_text().split("\n")[1:-1] if path.exists() else []
    return int(lines[-1].split(",")[0]) if lines else 0
