"""The folder layout of Pascal VOC: the names of its folders and the paths in them.

Plain names do as well: images/ where there is no JPEGImages/, masks/ where there is no SegmentationClass/, and lists such as
train.txt in the data folder itself where there is no ImageSets/Segmentation/.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from segnet.classes import ClassSet
from segnet.config.data_folder import lists_folder
from segnet.config.sections import CLASSES_FILE, LISTS, PLAIN_PICTURES
from segnet.system.errors import UserError, data_error
from segnet.system.files import is_inside, write_text

PICTURES = "JPEGImages"
MASKS = "SegmentationClass"
PLAIN_MASKS = "masks"
ALL = "all"  # the list of the pictures of a set that is not divided yet
FOLDERS = (PICTURES, MASKS, LISTS)  # LISTS is "ImageSets/Segmentation": a file <split>.txt with one id a line for each split


def pictures_folder(root: Path) -> Path:
    """The folder of the pictures."""
    return _folder(root, PICTURES, PLAIN_PICTURES)


def masks_folder(root: Path) -> Path:
    """The folder of the masks."""
    return _folder(root, MASKS, PLAIN_MASKS)


def _folder(root: Path, name: str, plain: str) -> Path:
    return root / (plain if os.path.isdir(root / plain) and not os.path.isdir(root / name) else name)


def picture_path(root: Path, sample_id: str, suffix: str = ".jpg") -> Path:
    """The path of a picture. Its suffix is any that `images.SUFFIXES` holds; `find_pictures` finds the file that is there."""
    return pictures_folder(root) / f"{sample_id}{suffix}"


def mask_path(root: Path, sample_id: str) -> Path:
    """The path of the mask of a picture."""
    return masks_folder(root) / f"{sample_id}.png"


def split_path(root: Path, split: str) -> Path:
    """The path of the list of a split."""
    return lists_folder(root) / f"{split}.txt"


def write_classes(root: Path, classes: ClassSet) -> None:
    """Write names and colours of the classes into the data folder, unless it has such a file.

    Commands that are given the folder in place of a configuration read it.
    """
    path = root / CLASSES_FILE
    if not path.exists():
        write_text(path, f"names: {json.dumps(classes.names)}\ncolors: {json.dumps(classes.colors)}\n")


def write_missing_lists(root: Path, lists: Mapping[str, Sequence[str]]) -> int:
    """Write the lists of ids of splits that are not there; their number. They are written last: a set with lists is complete."""
    missing = {path: ids for split, ids in lists.items() if not (path := split_path(root, split)).exists()}
    for path, ids in missing.items():
        write_text(path, "".join(f"{sample_id}\n" for sample_id in ids))
    return len(missing)


def file_fault(path: Path, root: Path) -> UserError | None:
    """The reason why a file of the data folder is not opened: it lies elsewhere, or is a folder, a pipe, a device."""
    if not is_inside(path, root):
        return link_fault(path)
    if path.is_symlink() and not path.exists():
        return data_error(path, "is a link to nothing", "restore what it links to")
    if path.exists() and not path.is_file():
        return data_error(path, "not a file" + (" but a folder" if path.is_dir() else ""), "put a file in its place")
    return None


def link_fault(path: Path) -> UserError:
    """The fault of a file or folder that lies outside of the data folder when links are followed."""
    found = f"is a link out of the data folder, to {os.path.realpath(path)}"
    return data_error(path, found, "copy it into the data folder, or set data.root to a folder that holds both")
