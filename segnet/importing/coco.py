"""COCO's JSON: polygons, both run-length encodings and crowd regions."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from segnet.data.rle import decode_rle
from segnet.importing.class_file import ClassLine
from segnet.importing.files import LOOKED_AT, PictureFinder, Tree, load_json
from segnet.importing.painting import Patch, Shape, crop, paint_declared
from segnet.importing.polygons import coco_polygon, read_points
from segnet.importing.source import (
    BACKGROUND,
    Choices,
    Item,
    Overlap,
    Size,
    Source,
    short_ids,
    split_of,
)
from segnet.system.errors import UserError, data_error

_KEYS = {"images", "annotations", "categories"}


def find_coco(tree: Tree) -> str:
    """The first file in COCO's form; empty: none."""
    return next((name for name in tree.jsons()[:LOOKED_AT] if _is_coco(tree.root / name)), "")


def _is_coco(path: Path) -> bool:
    try:
        content = load_json(path)
    except UserError:
        return False
    return isinstance(content, dict) and content.keys() >= _KEYS


class _File(NamedTuple):
    """A file of annotations whose parts have the types that they should have."""

    path: Path
    folder: str  # in the source
    split: str | None
    categories: dict[int, str]
    images: dict[Any, dict[str, Any]]
    annotations: list[dict[str, Any]]


def read_coco(tree: Tree, choices: Choices) -> Source:
    """A set in one JSON file, or in one for each split. Raises UserError (data) where their categories differ."""
    faults, notes = list[UserError](), list[str]()
    files = [_open(tree, name, faults) for name in tree.jsons() if _is_coco(tree.root / name)]
    for file in [file for file in files if not any("segmentation" in annotation for annotation in file.annotations)]:
        if len(files) > 1:
            files.remove(file)
            notes.append(f"{file.path.name} has no segmentations and is left out")
    first = files[0]
    for file in files[1:]:
        if file.categories != first.categories:
            found = f"has other categories than {first.path.name}"
            raise data_error(file.path, found, "import one of the files: name it in place of the folder")
    classes, number_of = _classes(first)
    used = {str(annotation.get("category_id")) for file in files for annotation in file.annotations}
    if idle := [f"{i} '{name}'" for i, name in first.categories.items() if str(i) not in used and name != BACKGROUND]:
        notes.append(f"no object of category {', '.join(idle)}; leave it out with --classes FILE")
    finder = PictureFinder(tree, choices.pictures)
    items = _items(files, number_of, choices.overlap or "smallest", finder, faults)
    crowds = sum(bool(annotation.get("iscrowd")) for file in files for annotation in file.annotations)
    if crowds:
        notes.append(f"{crowds:,} crowd regions (iscrowd) are drawn like other objects of their class")
    notes += finder.notes(item.picture for item in items)
    rules = {"polygons": "COCO's tools (rleFrPoly)", "overlap": choices.overlap or "smallest"}
    return Source(classes, items, faults, notes, rules)


def _open(tree: Tree, name: str, faults: list[UserError]) -> _File:
    """A file whose parts are checked; those of a wrong form are left out, and are faults."""
    path = tree.root / name
    content = load_json(path)
    for key in _KEYS:
        if not isinstance(content[key], list) or not all(isinstance(entry, dict) for entry in content[key]):
            raise data_error(path, f"'{key}' is no list of objects", "export it again")
    categories = dict[int, str]()
    for entry in content["categories"]:
        number, title = entry.get("id"), entry.get("name")
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(title, str) or not title:
            faults.append(data_error(path, f"category {number!r} has no whole number as id or no name", "correct the file"))
        elif number in categories or title in categories.values():
            faults.append(data_error(path, f"category {number} '{title}' is declared twice", "give each its own id and name"))
        else:
            categories[number] = title
    images = dict[Any, dict[str, Any]]()
    for entry in content["images"]:
        key = entry.get("id")
        if not isinstance(key, int | str) or not isinstance(entry.get("file_name"), str) or key in images:
            known = isinstance(key, int | str) and key in images
            found = f"image {key!r} is declared twice" if known else "image without id or name"
            faults.append(data_error(path, found, "give each image its own id and its file_name"))
        else:
            images[key] = entry
    split = split_of(posixpath.basename(name)) or split_of(posixpath.dirname(name))
    return _File(path, posixpath.dirname(name), split, dict(sorted(categories.items())), images, content["annotations"])


def _classes(file: _File) -> tuple[list[ClassLine], dict[int, int]]:
    """The background and the categories by their ids, and the position of each category."""
    classes = [ClassLine(BACKGROUND, None, "all that no object covers")]
    number_of = dict[int, int]()
    for number, name in file.categories.items():
        if name == BACKGROUND:
            number_of[number] = 0
            classes[0] = ClassLine(BACKGROUND, None, f"category {number}, and all that no object covers")
        else:
            number_of[number] = len(classes)
            classes.append(ClassLine(name, None, f"category {number}"))
    return classes, number_of


def _items(
    files: Sequence[_File], number_of: dict[int, int], overlap: Overlap, finder: PictureFinder, faults: list[UserError]
) -> list[Item]:
    found = list[tuple[_File, Any, Path, str]]()
    for file in files:
        for key, image in file.images.items():
            try:
                found.append((file, key, *finder.find(image["file_name"], file.path, file.folder)))
            except UserError as fault:
                faults.append(fault)
    ids = short_ids([name for *_, name in found])
    shapes = {id(file): _shapes(file, number_of, faults) for file in files}
    items = list[Item]()
    for file, key, picture, name in found:
        image = file.images[key]
        declared = image.get("height"), image.get("width")
        own = shapes[id(file)].get(key)
        where = f"{file.path}: picture '{name}'"
        draw = partial(paint_declared, own, declared, overlap, where) if own is not None else None
        items.append(Item(ids[name], picture, file.path, draw, file.split))
    return items


def _shapes(file: _File, number_of: dict[int, int], faults: list[UserError]) -> dict[Any, list[Shape]]:
    """The shapes of each image in the order of the file."""
    shapes = defaultdict[Any, list[Shape]](list)
    for position, annotation in enumerate(file.annotations):
        what = f"annotation {annotation.get('id', position)!r}"
        image, category = annotation.get("image_id"), annotation.get("category_id")
        if not isinstance(image, int | str) or image not in file.images:
            faults.append(data_error(file.path, f"{what} is of image {image!r}, which is not declared", "declare or remove it"))
            continue
        what += f" of '{file.images[image]['file_name']}'"
        own = shapes[image]  # also of a picture whose only shape is a fault
        if not isinstance(category, int) or category not in number_of:
            faults.append(data_error(file.path, f"{what} has category {category!r}, which is not declared", "declare it"))
            continue
        try:
            own.append(_shape(number_of[category], annotation.get("segmentation"), file.path, what))
        except UserError as fault:
            faults.append(fault)
    return shapes


def _shape(number: int, segmentation: object, path: Path, what: str) -> Shape:
    """A segmentation as a shape. Raises UserError (data) for one of an unknown form."""
    if not segmentation:
        raise data_error(path, f"{what} is a box without a segmentation", "draw its outline, or remove the object")
    if isinstance(segmentation, dict):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if isinstance(size, list) and isinstance(counts, str | list):
            return Shape(number, partial(_runs, counts, size, path, what))
    if isinstance(segmentation, list) and all(isinstance(part, list) for part in segmentation):
        parts = [read_points(part, path, what) for part in segmentation]
        return Shape(number, partial(coco_polygon, parts))
    raise data_error(path, f"{what} has a segmentation of an unknown form", "export polygons or run lengths")


def _runs(counts: str | list[int], declared: list[object], path: Path, what: str, size: Size) -> Patch:
    if declared != list(size):
        raise data_error(path, f"{what} has run lengths for {declared}, its picture is {list(size)}", "export the labels again")
    try:
        return crop(decode_rle(counts, size))
    except ValueError as error:
        raise data_error(path, f"{what} has damaged run lengths ({error})", "export the labels again") from None
