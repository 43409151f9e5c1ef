"""Small sets as labelling tools export them, and what an import makes of them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from segnet.importing.class_file import read_class_file
from segnet.importing.source import Choices, Overlap
from segnet.importing.writing import Imported, Unlabelled, import_set

Size = tuple[int, int]


def photo(path: Path, size: Size = (24, 32), seed: int = 0, orientation: int = 1) -> Path:
    """A picture of noise in the format of its suffix; with an orientation other than 1 its EXIF says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif)
    return path


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_array(path: Path, values: object) -> Path:
    """A grey or RGB picture of exact values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)
    return path


def zipped(folder: Path, inside: str = "") -> Path:
    """A zip of a folder, beside it, with its files below the folder `inside`."""
    path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, str(Path(inside) / file.relative_to(folder)))
    return path


def run_import(
    source: Path,
    out: Path,
    *,
    classes: Path | None = None,
    overlap: Overlap | None = None,
    pictures: Path | None = None,
    masks: str = "",
    foreground: bool = False,
    unlabelled: Unlabelled | None = None,
    name: str | None = None,
) -> Imported:
    """`import_set` with the choices of the command line."""
    choices = Choices(read_class_file(classes) if classes else None, overlap, pictures, masks, foreground)
    return import_set(source, out, choices, unlabelled=unlabelled, name=name)


def masks_in(out: Path) -> dict[str, np.ndarray]:
    """The mask of each id of a data folder."""
    folder = out / "SegmentationClass"
    paths = sorted(folder.rglob("*.png"))
    return {str(path.relative_to(folder).with_suffix("")): np.asarray(Image.open(path)) for path in paths}


def lists_in(out: Path) -> dict[str, list[str]]:
    """The lists of a data folder."""
    return {path.stem: path.read_text().split("\n")[:-1] for path in sorted((out / "ImageSets" / "Segmentation").glob("*.txt"))}


def names_in(out: Path) -> list[str]:
    """The names in classes.yaml."""
    return json.loads((out / "classes.yaml").read_text().splitlines()[0].removeprefix("names: "))
