"""The sample dataset: rendered scenes with exact masks."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Thread

from tqdm import tqdm

from segnet.classes import SAMPLE
from segnet.data.images import save_image
from segnet.data.layout import FOLDERS, mask_path, picture_path, split_path, write_classes, write_missing_lists
from segnet.data.mask_files import save_mask
from segnet.preparation.scenes import SCENE_VERSION, render_scene
from segnet.system.errors import data_error
from segnet.system.files import write_text
from segnet.system.processes import stopping_pool

_MARK = "sample.json"  # in the data folder: the recipe of the files there


def _write_pair(seed: int, index: int, zoom: int, picture_file: Path, mask_file: Path) -> None:
    picture, mask = render_scene(seed, index, zoom)
    save_image(picture_file, picture, full_color=True)
    save_mask(mask_file, mask, SAMPLE)


def _end_with_parent() -> None:
    """End this pool process when its parent ends for any reason. It ignores Ctrl-C, which the parent handles for both."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _start_anew(root: Path, recipe: str) -> None:
    """Remove the files that an earlier recipe made in `root`, and write `recipe` into `sample.json`.

    Raises UserError (data) when the folder holds other files and no `sample.json`.
    """
    mark = root / _MARK
    if not mark.exists() and any(path.is_file() for path in root.rglob("*")):
        raise data_error(root, "holds files that are not the sample's", "choose another --root")
    any_id = "sample_" + "[0-9]" * 5
    for made in (picture_path(root, any_id), mask_path(root, any_id), split_path(root, "train"), split_path(root, "val")):
        for path in made.parent.glob(made.name):
            path.unlink()
    write_text(mark, recipe)


def generate_sample(root: Path, *, seed: int = 0, count: int = 300, zoom: int = 1) -> dict[str, int]:
    """Write `count` pictures and masks into `root`, every fifth for validation. The number of pictures in each split.

    Most pictures have 120·zoom rows and 160·zoom columns. A call on a complete dataset does nothing; after an interruption it
    renders the files that are missing; with another seed, count or zoom it starts anew. Raises UserError (data) when `root` holds
    another dataset.
    """
    names = [f"sample_{index:05d}" for index in range(count)]
    splits = {"train": [name for i, name in enumerate(names) if i % 5 != 4], "val": names[4::5]}
    larger = {"zoom": zoom} if zoom > 1 else {}
    recipe = json.dumps({"seed": seed, "count": count, "version": SCENE_VERSION, **larger}) + "\n"
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    mark = root / _MARK
    if not mark.exists() or mark.read_text() != recipe:
        _start_anew(root, recipe)
    pairs = [(seed, index, zoom, picture_path(root, name), mask_path(root, name)) for index, name in enumerate(names)]
    missing = [pair for pair in pairs if not (pair[3].exists() and pair[4].exists())]
    with stopping_pool(ProcessPoolExecutor(initializer=_end_with_parent)) as pool:
        written = pool.map(_write_pair, *zip(*missing, strict=True))
        list(tqdm(written, "draw", len(missing), unit="picture", leave=False, disable=None))  # raises the processes' exceptions
    write_classes(root, SAMPLE)
    write_missing_lists(root, splits)
    return {split: len(members) for split, members in splits.items()}
