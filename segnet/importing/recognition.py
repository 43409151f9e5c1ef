"""The formats of labelled sets: the files by which each is recognised, and the function that reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from segnet.importing.ade20k import find_ade20k, read_ade20k
from segnet.importing.cityscapes import find_cityscapes, read_cityscapes
from segnet.importing.coco import find_coco, read_coco
from segnet.importing.cvat import find_cvat, read_cvat
from segnet.importing.cvat_images import find_cvat_images, read_cvat_images
from segnet.importing.files import LOOKED_AT, Tree, load_json
from segnet.importing.folder_pairs import find_pairs, read_pairs
from segnet.importing.label_studio import find_label_studio, read_label_studio
from segnet.importing.labelme import find_labelme, read_labelme
from segnet.importing.roboflow import find_roboflow, read_roboflow
from segnet.importing.source import Choices, Source
from segnet.importing.supervisely import find_supervisely, read_supervisely
from segnet.importing.ultralytics import find_ultralytics, read_ultralytics
from segnet.importing.voc import find_voc, read_voc
from segnet.system.errors import UserError, config_error, data_error, raise_first


class Format(NamedTuple):
    """A format of labelled sets."""

    title: str
    find: Callable[[Tree], str]  # the file by which it is recognised; empty: it is another format
    read: Callable[[Tree, Choices], Source]
    uses: tuple[str, ...] = ()  # the choices that only some formats know


_DRAWN = ("pictures", "overlap")
FORMATS = {
    "cvat": Format("CVAT segmentation mask 1.1", find_cvat, read_cvat, ("pictures",)),
    "cvat-images": Format("CVAT for images 1.1", find_cvat_images, read_cvat_images, _DRAWN),
    "voc": Format("Pascal VOC", find_voc, read_voc, ("pictures",)),
    "coco": Format("COCO JSON", find_coco, read_coco, _DRAWN),
    "labelme": Format("LabelMe JSON", find_labelme, read_labelme, _DRAWN),
    "roboflow": Format("Roboflow semantic masks", find_roboflow, read_roboflow),
    "ultralytics": Format("Ultralytics polygons", find_ultralytics, read_ultralytics, _DRAWN),
    "label-studio": Format("Label Studio JSON", find_label_studio, read_label_studio, _DRAWN),
    "supervisely": Format("Supervisely", find_supervisely, read_supervisely, _DRAWN),
    "cityscapes": Format("Cityscapes", find_cityscapes, read_cityscapes),
    "ade20k": Format("ADE20K scene parsing", find_ade20k, read_ade20k),
}
_PAIRS = Format("pairs of pictures and masks", lambda tree: "", read_pairs, ("pictures", "masks", "foreground"))
NAMES = (*FORMATS, "pairs")
_INSIDE = {"voc": {"cvat"}}  # the files of a format that are found in others too


def require_used(known: Format, choices: Choices) -> None:
    """Raise UserError (config) for a choice that a format does not know."""
    for option in ("pictures", "masks", "foreground", "overlap"):
        if getattr(choices, option) and option not in known.uses:
            remedy = "leave it out, or read the set as pairs of pictures and masks: --format pairs"
            raise config_error(f"--{option}", f"has no meaning for {known.title}", remedy)


def recognise(tree: Tree, choices: Choices, source: Path, *, name: str | None = None) -> tuple[Format, str]:
    """The format of a set and the file by which it was recognised; `name` is the user's word for it.

    Where a file of labels was named as the source, it is that file: what lies beside it may be of other sets.
    Raises UserError (data) where there is none, or several.
    """
    if name:
        known = FORMATS.get(name, _PAIRS)
        marker = find_pairs(tree, choices) if known is _PAIRS else known.find(tree)
        if not marker:
            raise data_error(source, f"has not the files of {known.title}", "leave out --format to see what it is")
        return known, marker
    if choices.masks:
        return _PAIRS, choices.masks
    found = {key: marker for key, known in FORMATS.items() if (marker := known.find(tree)) and tree.only in ("", marker)}
    found = {key: marker for key, marker in found.items() if not _INSIDE.get(key, set()) & found.keys()}
    if len(found) > 1:
        both = " and ".join(f"{FORMATS[key].title} ({marker})" for key, marker in found.items())
        raise data_error(source, f"may be {both}", f"say which: --format {' or '.join(found)}")
    if found:
        key, marker = next(iter(found.items()))
        return FORMATS[key], marker
    if not tree.only and (marker := find_pairs(tree, choices)):
        return _PAIRS, marker
    titles = ", ".join(known.title for known in FORMATS.values())
    held = f"{len(tree.pictures):,} pictures and {len(tree.others):,} other files"
    remedy = f"known are {titles} and {_PAIRS.title} (--masks 'labels/{{name}}.png' says where the masks are)"
    unknown = data_error(source, f"holds {held}, and no labels of a known format", remedy)
    raise_first([*_unreadable(tree), unknown])
    raise unknown


def _unreadable(tree: Tree) -> Iterator[UserError]:
    """The faults of the JSON files that cannot be read, of those by which a format is recognised."""
    for name in tree.jsons()[:LOOKED_AT]:
        try:
            load_json(tree.root / name)
        except UserError as fault:
            yield fault
