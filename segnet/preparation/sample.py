"""The sample data set: rendered scenes with exact masks."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from PIL import Image

from segnet.classes import SAMPLE
from segnet.data.images import save_mask
from segnet.data.layout import write_classes
from segnet.preparation.scenes import SCENE_VERSION, render_scene
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import atomic_write, write_text
from segnet.system.processes import kill_children


@contextmanager
def stopping_pool(pool: Executor) -> Iterator[Executor]:
    """A pool that begins nothing more, and is not waited for, once the body was left by an error or Ctrl-C."""
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        kill_children()
        raise
    pool.shutdown()


# The sample


def _write_pair(seed: int, index: int, picture_path: Path, mask_path: Path) -> None:
    picture, mask = render_scene(seed, index)
    with atomic_write(picture_path) as file:
        Image.fromarray(picture).save(file, "JPEG", quality=92, subsampling=0)
    save_mask(mask_path, mask, SAMPLE)


def _end_with_parent() -> None:
    """Make this pool process end when its parent does, however that ends; Ctrl-C, which reaches both, is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _start_anew(root: Path, recipe: str) -> None:
    """Remove what another recipe made below `root`, and nothing else, and note this one in `sample.json`.

    Raises UserError (data) when the folder holds files that were not made here.
    """
    mark, number = root / "sample.json", "[0-9]" * 5
    if not mark.exists() and any(path.is_file() for path in root.rglob("*")):
        raise UserError(ExitCode.DATA, root, "holds files that are not the sample's", "choose another --root")
    made = (f"JPEGImages/sample_{number}.jpg", f"SegmentationClass/sample_{number}.png", "ImageSets/Segmentation/train.txt")
    for pattern in (*made, "ImageSets/Segmentation/val.txt"):
        for path in root.glob(pattern):
            path.unlink()
    write_text(mark, recipe)


def generate_sample(root: Path, *, seed: int = 0, count: int = 300) -> dict[str, int]:
    """Write `count` pictures and masks below `root`, every fifth for validation, and return the pictures per split.

    A second call does nothing, a call after an interruption renders what is missing, another seed or count starts anew.
    Raises UserError (data) when `root` holds another data set.
    """
    names = [f"sample_{index:05d}" for index in range(count)]
    splits = {"train": [name for i, name in enumerate(names) if i % 5 != 4], "val": names[4::5]}
    lists = {root / f"ImageSets/Segmentation/{split}.txt": "".join(f"{n}\n" for n in splits[split]) for split in splits}
    pairs = [(seed, i, root / f"JPEGImages/{n}.jpg", root / f"SegmentationClass/{n}.png") for i, n in enumerate(names)]
    recipe, mark = json.dumps({"seed": seed, "count": count, "version": SCENE_VERSION}) + "\n", root / "sample.json"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if not mark.exists() or mark.read_text() != recipe:
        _start_anew(root, recipe)
    missing = [pair for pair in pairs if not (pair[2].exists() and pair[3].exists())]
    with stopping_pool(ProcessPoolExecutor(initializer=_end_with_parent)) as pool:
        list(pool.map(_write_pair, *zip(*missing, strict=True)))  # list() raises here what a worker raised
    write_classes(root, SAMPLE)
    for path, text in lists.items():  # last: a set with lists is complete
        if not path.exists():
            write_text(path, text)
    return {split: len(members) for split, members in splits.items()}
