"""What the reader of each format returns: the classes of a set, and its pictures with a function that draws each mask."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from segnet.importing.class_file import ClassLine
from segnet.system.errors import UserError, data_error

BACKGROUND = "background"
Overlap = Literal["last", "smallest", "ignore"]
Size = tuple[int, int]  # height, width


class Choices(NamedTuple):
    """The choices of a user. None, empty or False: not chosen."""

    classes: list[ClassLine] | None = None  # of --classes FILE, in the order of their ids
    overlap: Overlap | None = None  # whose pixels they are where shapes of several classes overlap
    pictures: Path | None = None  # a folder of pictures beside the source
    masks: str = ""  # pattern of the masks of folder pairs, such as "labels/{name}_mask.png"
    foreground: bool = False  # every value above 0 is one class


class Counts(NamedTuple):
    """What drawing the shapes of a picture, or of a whole set, came to."""

    shapes: int = 0  # drawn
    overlapped: int = 0  # pixels in shapes of several classes
    outside: int = 0  # shapes that reach outside of the picture, where they are cut
    too_small: int = 0  # shapes that cover no pixel


class Drawn(NamedTuple):
    """The mask of a picture."""

    mask: np.ndarray  # (H, W) uint8: positions in `Source.classes`, and 255
    counts: Counts = Counts()


class Item(NamedTuple):
    """A picture and its labels."""

    id: str  # in the data folder
    picture: Path | bytes
    labels: Path  # the file that holds them, for messages
    draw: Callable[[Size], Drawn] | None  # from the upright picture's size; None: it has no label. Raises UserError (data)
    split: str | None = None


class Source(NamedTuple):
    """A labelled set as its files describe it."""

    classes: list[ClassLine]  # at most 255; those of masks that only a file can name have its order
    items: list[Item]
    faults: list[UserError]
    notes: list[str]  # what a user should know and cannot see in the table
    rules: dict[str, str]  # by which labels became pixels


def split_of(text: str) -> str | None:
    """train, val or test where `text`, a name or path, has one of the usual words for exactly one of them."""
    words = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
    words |= {"test": "test", "testing": "test"}
    found = {words[word] for word in re.split(r"[^a-z]+", text.lower()) if word in words}
    return found.pop() if len(found) == 1 else None


def short_ids(names: Sequence[str]) -> dict[str, str]:
    """The id of each picture from its path: without its suffix and without the folders that all of them share."""
    stems = {name: str(Path(name).with_suffix("")).split("/") for name in names}
    shared = 0
    parts = list(stems.values())
    while parts and all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return {name: "/".join(part[shared:]) for name, part in stems.items()}


def require_size(declared: tuple[object, object], size: Size, labels: Path | str) -> None:
    """Raise UserError (data) where a file of labels was made for a picture of another size; (height, width) may be None."""
    if declared[0] is None or declared[1] is None or declared == size:
        return
    found = f"is for a picture of {declared[1]}×{declared[0]}, the upright picture has {size[1]}×{size[0]} (width × height)"
    turned = declared == (size[1], size[0])
    remedy = "the labels are for the picture before its EXIF rotation: remove that from the picture" if turned else ""
    raise data_error(labels, found, remedy or "export pictures and labels together")


def merged_error(error: UserError) -> UserError:
    """`error`, with more than three of its lines of one kind and one remedy merged into one that counts them and names three."""
    alike = defaultdict[tuple[str, str], list[UserError]](list)
    for fault in (error, *error.also):
        kind = re.sub(r"'[^']*'|\s*\([^)]*\)|\[[^]]*\]|[\d.,]+", "", fault.found)
        alike[kind, fault.remedy].append(fault)
    merged = list[UserError]()
    for group in alike.values():
        first = group[0]
        if len(group) > 3:
            others = "; ".join(f"{Path(fault.path).name}: {fault.found}" for fault in group[1:3])
            found = f"{first.found}; {len(group)} of this kind, also {others} (--verbose names all)"
            merged.append(UserError(first.code, first.path, found, first.remedy))
        else:
            merged += group
    first, *also = merged
    return UserError(first.code, first.path, first.found, first.remedy, also=tuple(also))
