"""Supervisely's folders: meta.json with the classes, and ann/<picture>.json beside img/<picture>; polygons may have holes."""

from __future__ import annotations

import base64
import posixpath
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segnet.data.images import open_picture
from segnet.data.listing import list_pictures
from segnet.importing.class_file import ClassLine, hex_color
from segnet.importing.files import Tree, load_json
from segnet.importing.painting import Patch, Shape, crop, paint_declared
from segnet.importing.polygons import Points, pillow_polygon, pillow_rectangle, read_points
from segnet.importing.source import BACKGROUND, Choices, Drawn, Item, Overlap, Size, Source, short_ids, split_of
from segnet.system.errors import UserError, data_error

META = "meta.json"
_MOST_BYTES = 200_000_000  # of an unpacked bitmap


def find_supervisely(tree: Tree) -> str:
    """meta.json beside folders called ann; empty: none."""
    return META if META in tree.others and any(_is_annotation(name) for name in tree.others) else ""


def _is_annotation(name: str) -> bool:
    return name.endswith(".json") and "ann" in name.split("/")[:-1]


def read_supervisely(tree: Tree, choices: Choices) -> Source:
    """A set with the classes of meta.json. Raises UserError (data) where that is damaged."""
    faults = list[UserError]()
    classes = _classes(tree.root / META)
    number_of = {line.name: i for i, line in enumerate(classes)}
    annotations = {_without(name.removesuffix(".json"), "ann"): name for name in filter(_is_annotation, tree.others)}
    pictures = {name: tree.root / name for name in tree.pictures if "img" in name.split("/")[:-1]}
    if choices.pictures:
        pictures = {path.relative_to(choices.pictures).as_posix(): path for path in list_pictures(choices.pictures).pictures}
    ids = short_ids([_without(name, "img") for name in pictures])
    overlap = choices.overlap or "last"
    items, used = list[Item](), set[str]()
    for name, picture in pictures.items():
        key = _without(name, "img")
        found = annotations.get(key) or annotations.get(posixpath.splitext(key)[0])
        used.add(found or "")
        draw = _read(tree.root / found, number_of, overlap, faults) if found else None
        items.append(Item(ids[key], picture, tree.root / found if found else picture, draw, split_of(posixpath.dirname(key))))
    for name in sorted(set(annotations.values()) - used):
        faults.append(data_error(tree.root / name, "has no picture", "put it into img, or give --pictures DIR"))
    return Source(classes, items, faults, [], {"shapes": "Pillow's ImageDraw, borders included", "overlap": overlap})


def _without(name: str, folder: str) -> str:
    """A path without the folders of one name."""
    *folders, last = name.split("/")
    return "/".join([*(part for part in folders if part != folder), last])


def _classes(path: Path) -> list[ClassLine]:
    content = load_json(path)
    entries = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("title"), str) for e in entries):
        raise data_error(path, "'classes' is no list of classes with a title", "export again")
    classes = [ClassLine(BACKGROUND, (0, 0, 0), "all that no object covers")]
    for position, entry in enumerate(entries, 1):
        if entry["title"] == BACKGROUND:
            classes[0] = ClassLine(BACKGROUND, hex_color(entry.get("color")), f"{META}, class {position}")
        elif any(line.name == entry["title"] for line in classes):
            raise data_error(path, f"class '{entry['title']}' is declared twice", "rename one of them")
        else:
            classes.append(ClassLine(entry["title"], hex_color(entry.get("color")), f"{META}, class {position}"))
    return classes


def _read(path: Path, number_of: dict[str, int], overlap: Overlap, faults: list[UserError]) -> Callable[[Size], Drawn] | None:
    """The function that draws the mask of a file; None where it has no object."""
    try:
        content = load_json(path)
    except UserError as fault:
        faults.append(fault)
        content = {}
    entries = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        faults.append(data_error(path, "'objects' is no list", "export again"))
        entries = [None]
    shapes = list[Shape]()
    for position, entry in enumerate(entries, 1):
        title = entry.get("classTitle") if isinstance(entry, dict) else None
        what = f"object {position} '{title}'"
        if not isinstance(title, str) or title not in number_of:
            faults.append(data_error(path, f"{what} is no class of {META}", "declare the class there"))
            continue
        try:
            shapes.append(Shape(number_of[title], _rasteriser(entry, path, what)))
        except UserError as fault:
            faults.append(fault)
    size = content.get("size") if isinstance(content, dict) else None
    declared = (size.get("height"), size.get("width")) if isinstance(size, dict) else (None, None)
    return partial(paint_declared, shapes, declared, overlap, path) if entries else None


def _rasteriser(entry: dict[str, Any], path: Path, what: str) -> Callable[[Size], Patch]:
    """The function that draws an object. Raises UserError (data) for unknown ones."""
    kind = entry.get("geometryType") or ("bitmap" if entry.get("bitmap") else "polygon")
    if kind == "bitmap":
        return partial(_bitmap, entry.get("bitmap"), path, what)
    points = entry.get("points")
    if kind not in ("polygon", "rectangle") or not isinstance(points, dict):
        raise data_error(path, f"{what} is a {kind}, which has no exact pixels", "draw it as a polygon or a bitmap")
    exterior = read_points(points.get("exterior"), path, what)
    holes = points.get("interior") or []
    if kind == "rectangle":
        if len(exterior) != 2:
            raise data_error(path, f"{what} is a rectangle of {len(exterior)} points", "draw it again")
        return partial(pillow_rectangle, exterior)
    if not isinstance(holes, list):
        raise data_error(path, f"{what} has holes of an unknown form", "export again")
    return partial(_polygon, exterior, [read_points(hole, path, f"{what}, a hole") for hole in holes])


def _polygon(exterior: Points, holes: list[Points], size: Size) -> Patch:
    """A polygon without the pixels of its holes."""
    outer = pillow_polygon(exterior, size)
    mask = outer.mask.copy()
    for hole in holes:
        inner = pillow_polygon(hole, size)
        whole = np.zeros(size, dtype=bool)
        whole[inner.top : inner.top + inner.mask.shape[0], inner.left : inner.left + inner.mask.shape[1]] = inner.mask
        mask &= ~whole[outer.top : outer.top + mask.shape[0], outer.left : outer.left + mask.shape[1]]
    return outer._replace(mask=mask)


def _bitmap(bitmap: object, path: Path, what: str, size: Size) -> Patch:
    """A zipped PNG at an origin (x, y). Raises UserError (data) where it is damaged or reaches outside of the picture."""
    origin = bitmap.get("origin") if isinstance(bitmap, dict) else None
    data = bitmap.get("data") if isinstance(bitmap, dict) else None
    whole = isinstance(origin, list) and len(origin) == 2 and all(isinstance(v, int) and v >= 0 for v in origin)
    if not whole or not isinstance(origin, list) or not isinstance(data, str):
        raise data_error(path, f"{what} has a bitmap of an unknown form", "export again")
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(data, validate=True), _MOST_BYTES)
        picture = open_picture(path, ("PNG",), content=content).picture
    except (ValueError, zlib.error, UserError):
        raise data_error(path, f"{what} has a damaged bitmap", "export again") from None
    pixels = np.asarray(picture.convert("RGBA"))
    has_alpha = picture.mode in ("LA", "RGBA") or "transparency" in picture.info
    mask = (pixels[..., 3] if has_alpha else pixels[..., :3].max(axis=2)) > 0
    left, top = origin
    if top + mask.shape[0] > size[0] or left + mask.shape[1] > size[1]:
        raise data_error(path, f"{what} has a bitmap that reaches outside of the picture", "export again")
    patch = crop(mask, left=left)
    return patch._replace(top=patch.top + top)
