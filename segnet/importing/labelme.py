"""LabelMe's JSON files: one beside each picture, shapes drawn as the program draws them, later ones over earlier ones."""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segnet.classes import IGNORE_INDEX
from segnet.data.images import open_picture
from segnet.importing.class_file import IGNORED, ClassLine, read_class_file
from segnet.importing.files import LOOKED_AT, PictureFinder, Tree, load_json
from segnet.importing.painting import Patch, Shape, crop, paint_declared
from segnet.importing.polygons import (
    Points,
    distance,
    pillow_circle,
    pillow_line,
    pillow_polygon,
    pillow_rectangle,
    reaches_outside,
    read_points,
)
from segnet.importing.source import (
    BACKGROUND,
    Choices,
    Item,
    Size,
    Source,
    short_ids,
    split_of,
)
from segnet.system.errors import UserError, data_error

_LINE_WIDTH, _POINT_RADIUS = 10, 5  # pixels (labelme, utils/shape.py)
_LABELS = "labels.txt"
_POINTS = {"rectangle": 2, "circle": 2, "line": 2, "mask": 2, "point": 1, "oriented_rectangle": 4}  # of a shape


def find_labelme(tree: Tree) -> str:
    """The first file in LabelMe's form; empty: none."""
    return next((name for name in tree.jsons()[:LOOKED_AT] if _content(tree.root / name) is not None), "")


def _content(path: Path) -> dict[str, Any] | None:
    try:
        content = load_json(path)
    except UserError:
        return None
    return content if isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys() else None


def read_labelme(tree: Tree, choices: Choices) -> Source:
    """A set with the classes of labels.txt where there is one, else the names of all labels in alphabetical order."""
    faults, notes = list[UserError](), list[str]()
    files = dict[str, dict[str, Any]]()
    for name in tree.jsons():
        content = _content(tree.root / name)
        if content is not None:
            files[name] = content
        elif (fault := _unreadable(tree.root / name)) is not None:
            faults.append(fault)
    classes = _classes(tree, files)
    number_of = {line.name: i for i, line in enumerate(classes)} | {IGNORED: IGNORE_INDEX, "_background_": 0}
    finder = PictureFinder(tree, choices.pictures)
    overlap = choices.overlap or "last"
    found = list[tuple[str, Path | bytes, str]]()
    for name, content in files.items():
        try:
            found.append((name, *_picture(tree, name, content, finder)))
        except UserError as fault:
            faults.append(fault)
    used = {picture for _, picture, _ in found}
    bare = {name: path for name, path in finder.listed.items() if path not in used}
    ids = short_ids([*(listed for *_, listed in found), *bare])
    items = [Item(ids[name], path, path, None, split_of(posixpath.dirname(name))) for name, path in bare.items()]
    for name, picture, listed in found:
        path = tree.root / name
        shapes = _shapes(files[name], number_of, path, faults)
        declared = files[name].get("imageHeight"), files[name].get("imageWidth")
        draw = partial(paint_declared, shapes, declared, overlap, path) if files[name]["shapes"] else None
        items.append(Item(ids[listed], picture, path, draw, split_of(posixpath.dirname(listed))))
    notes += finder.notes(item.picture for item in items)
    rules = {"shapes": "Pillow's ImageDraw, as labelme draws them", "overlap": overlap}
    return Source(classes, items, faults, notes, rules)


def _unreadable(path: Path) -> UserError | None:
    """The fault of a file that is no JSON at all; other JSON files are not labels."""
    try:
        load_json(path)
    except UserError as fault:
        return fault
    return None


def _classes(tree: Tree, files: dict[str, dict[str, Any]]) -> list[ClassLine]:
    background = ClassLine(BACKGROUND, None, "all that no shape covers")
    if _LABELS in tree.others:
        return [background, *(line for line in read_class_file(tree.root / _LABELS) if line.name != BACKGROUND)]
    shapes = [shape for content in files.values() if isinstance(content["shapes"], list) for shape in content["shapes"]]
    labels = {shape["label"] for shape in shapes if isinstance(shape, dict) and isinstance(shape.get("label"), str)}
    names = sorted(labels - {BACKGROUND, "_background_", IGNORED, ""})
    return [background, *(ClassLine(name, None, "labels in alphabetical order") for name in names)]


def _picture(tree: Tree, name: str, content: dict[str, Any], finder: PictureFinder) -> tuple[Path | bytes, str]:
    """The picture of a file, or where that is missing the copy inside of the file; and its path in its folder."""
    path, listed = tree.root / name, content["imagePath"]
    if not isinstance(listed, str) or not listed:
        raise data_error(path, "has no imagePath", "export it again")
    try:
        return finder.find(listed, path, posixpath.dirname(name))
    except UserError:
        if not isinstance(content.get("imageData"), str):
            raise
    try:
        data = base64.b64decode(content["imageData"], validate=True)
    except ValueError:
        raise data_error(path, "has damaged imageData, and its picture is missing", "give --pictures DIR") from None
    return data, name


def _shapes(content: dict[str, Any], number_of: dict[str, int], path: Path, faults: list[UserError]) -> list[Shape]:
    shapes = list[Shape]()
    entries = content["shapes"]
    if not isinstance(entries, list):
        faults.append(data_error(path, "'shapes' is no list", "export it again"))
        return []
    for position, entry in enumerate(entries, 1):
        label = entry.get("label") if isinstance(entry, dict) else None
        what = f"shape {position} '{label}'"
        if not isinstance(label, str) or label not in number_of:
            declared = isinstance(label, str) and label
            found = f"{what} is no class of {_LABELS}" if declared else f"shape {position} has no label"
            faults.append(data_error(path, found, "add it there" if declared else "name it in LabelMe"))
            continue
        try:
            shapes.append(Shape(number_of[label], _rasteriser(entry, path, what)))
        except UserError as fault:
            faults.append(fault)
    return shapes


def _rasteriser(entry: dict[str, Any], path: Path, what: str) -> Callable[[Size], Patch]:
    """The function that draws a shape (labelme, utils/shape.py: shape_to_mask). Raises UserError (data) for unknown ones."""
    kind = entry.get("shape_type") or "polygon"
    points = read_points(entry.get("points"), path, what)
    if len(points) != _POINTS.get(kind, len(points)) or not len(points):
        raise data_error(path, f"{what} is a {kind} of {len(points)} points", "draw it again")
    match kind:
        case "polygon" | "oriented_rectangle":
            return partial(pillow_polygon, points)
        case "rectangle":
            return partial(pillow_rectangle, points)
        case "circle":
            return partial(pillow_circle, points[0], distance(points[0], points[1]))
        case "point":
            return partial(pillow_circle, points[0], _POINT_RADIUS)
        case "line" | "linestrip":
            return partial(pillow_line, points, width=_LINE_WIDTH)
        case "mask":
            return partial(_mask_patch, points, _stored_mask(entry.get("mask"), path, what), path, what)
    raise data_error(path, f"{what} has the unknown shape_type '{kind}'", "draw it as a polygon")


def _stored_mask(text: object, path: Path, what: str) -> np.ndarray:
    """(h, w) bool of a mask shape. Raises UserError (data) where it cannot be decoded."""
    try:
        content = base64.b64decode(text if isinstance(text, str) else "", validate=True)
        return np.asarray(open_picture(path, ("PNG",), content=content).picture.convert("L")) > 0
    except (ValueError, UserError):
        raise data_error(path, f"{what} has a damaged mask", "draw it again") from None


def _mask_patch(points: Points, mask: np.ndarray, path: Path, what: str, size: Size) -> Patch:
    """A mask shape, whose corners are both inside of it, cut at the border of the picture."""
    left, top = np.rint(points[0]).astype(int).tolist()
    right, bottom = np.rint(points[1]).astype(int).tolist()
    if mask.shape != (bottom - top + 1, right - left + 1):
        found = f"{what} has a mask of {mask.shape[1]}×{mask.shape[0]} for {right - left + 1}×{bottom - top + 1} pixels"
        raise data_error(path, found, "draw it again")
    inside = mask[max(0, -top) : max(0, size[0] - top), max(0, -left) : max(0, size[1] - left)]
    outside = inside.shape != mask.shape or reaches_outside(points, size)
    patch = crop(inside, left=max(0, left), outside=outside)
    return patch._replace(top=patch.top + max(0, top))
