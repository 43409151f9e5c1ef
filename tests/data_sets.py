"""Folders of data and what may be wrong with them, and the commands that read them."""

from __future__ import annotations

import io
import runpy
import shutil
import sys
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
from helpers import CLASSES, ROOT
from PIL import Image

from segnet.classes import ClassSet, class_set
from segnet.config.sections import AugmentConfig
from segnet.data.dataset import SegmentationDataset
from segnet.data.layout import mask_path, split_path
from segnet.data.mask_files import save_mask
from segnet.data.transforms import TrainTransform
from segnet.system.errors import ExitCode, UserError

COLORED = Image.fromarray(np.random.default_rng(0).integers(0, 2, (32, 32, 3), dtype=np.uint8) * 128)


def augmented_train_set(root: Path, classes: ClassSet, seed: int = 0) -> SegmentationDataset:
    """The split train with crops of 16×24 and other brightness."""
    transform = TrainTransform(AugmentConfig(crop_size=(16, 24), brightness=0.5))
    return SegmentationDataset(root, "train", classes, transform=transform, seed=seed)


def mirrored_train_set(root: Path, classes: ClassSet) -> SegmentationDataset:
    """The split train with crops of 16×24, all of them mirrored."""
    return SegmentationDataset(root, "train", classes, transform=TrainTransform(AugmentConfig(crop_size=(16, 24), flip=1.0)))


def picture_of(root: Path, split: str) -> Path:
    """The second picture of a split of `tiny_data`."""
    return root / "JPEGImages" / f"{split}_1.jpg"


def mask_of(root: Path, split: str) -> Path:
    """The second mask of a split of `tiny_data`."""
    return mask_path(root, f"{split}_1")


def list_of(root: Path, split: str) -> Path:
    """The list of a split."""
    return split_path(root, split)


def save_picture(picture: Image.Image, path: Path, kind: str = "PNG") -> None:
    """The picture in the format `kind`, whatever the suffix of its path."""
    picture.save(path, kind)


def move_out(path: Path, root: Path) -> None:
    """Leave a link to where the file now lies, outside the data folder."""
    shutil.move(path, root.parent / f"outside_{path.name}")
    path.symlink_to(root.parent / f"outside_{path.name}")


def change_mask(root: Path) -> None:
    """Another mask for the picture "odd" of `mixed_data`."""
    save_mask(mask_path(root, "odd"), np.ones((33, 21), np.uint8), class_set(CLASSES))


def every_mask(root: Path, split: str, values: list[int]) -> None:
    """Masks that hold the first and the last of `values` alone, for a whole split of `tiny_data`."""
    for path in (root / "SegmentationClass").glob(f"{split}_*.png"):
        mask = np.full((32, 32), values[0], np.uint8)
        mask[4:9] = values[-1]
        save_mask(path, mask, class_set(CLASSES))


def run_in_process(name: object, *arguments: object) -> str:
    """What scripts/<name>.py refuses its data with."""
    before, sys.argv = sys.argv, [str(name), *map(str, arguments)]
    said, code = io.StringIO(), None
    try:
        with redirect_stderr(said):
            code = runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))["main"]()
    except UserError as error:
        said.write(str(error))
        code = error.code
    finally:
        sys.argv = before
    assert code in (None, ExitCode.DATA)
    return said.getvalue()


def all_commands(config: Path, run: Path, new: Path) -> dict[str, str]:
    """What each command that reads masks says on stderr."""
    return {
        "check": run_in_process("prepare_data", "check", config),
        "train": run_in_process("train", config, "--run", new, "train.epochs=1"),
        "evaluate": run_in_process("evaluate", run),
    }
