"""CVAT's export "CVAT for images 1.1": annotations.xml with polygons, boxes, ellipses and brush masks of each picture."""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from segnet.data.rle import decode_rle
from segnet.importing.class_file import ClassLine, hex_color
from segnet.importing.files import PictureFinder, Tree
from segnet.importing.painting import Patch, Shape, crop, paint_declared
from segnet.importing.polygons import CIRCLE, Points, coco_polygon, read_points, turned
from segnet.importing.source import BACKGROUND, Choices, Item, Size, Source, split_of
from segnet.system.errors import UserError, data_error, first_line

XML = "annotations.xml"
_DRAWN = ("polygon", "box", "ellipse", "mask")
_AGAIN = "export again from CVAT"


class _File(NamedTuple):
    """An annotations.xml."""

    path: Path
    folder: str  # in the source
    classes: list[ClassLine]
    images: list[ElementTree.Element]


def find_cvat_images(tree: Tree) -> str:
    """The first annotations.xml, or the XML file that was named; empty: none."""
    return next(iter(_xml_files(tree)), "")


def _xml_files(tree: Tree) -> list[str]:
    if tree.only:
        return [tree.only] if tree.only.lower().endswith(".xml") else []
    return [name for name in tree.others if posixpath.basename(name) == XML]


def read_cvat_images(tree: Tree, choices: Choices) -> Source:
    """A set in one annotations.xml, or in one for each task; then the ids begin with its folder, as those of `read_cvat`.

    Raises UserError (data) where the labels of the tasks differ.
    """
    faults, left_out = list[UserError](), Counter[str]()
    files = [_open(tree, name) for name in _xml_files(tree)]
    classes = files[0].classes
    for file in files[1:]:
        if [line.name for line in file.classes] != [line.name for line in classes]:
            found = f"has other labels than {files[0].path}, or another order"
            raise data_error(file.path, found, "import the tasks into folders of their own")
    number_of = {line.name: i for i, line in enumerate(classes)}
    finder = PictureFinder(tree, choices.pictures)
    overlap = choices.overlap or "last"
    found_in = list[tuple[_File, ElementTree.Element, Path, str]]()
    for file in files:
        for image in file.images:
            try:
                found_in.append((file, image, *_find(image, file, finder)))
            except UserError as fault:
                faults.append(fault)
    items = list[Item]()
    for file, image, picture, listed in found_in:
        left_out["tags"] += sum(entry.tag == "tag" for entry in image)
        drawn = [entry for entry in image if entry.tag != "tag"]
        what = f"picture '{image.get('name')}'"
        shapes = _shapes(drawn, number_of, file.path, what, faults)
        stated = (_side(image, "height"), _side(image, "width"))
        draw = partial(paint_declared, shapes, stated, overlap, f"{file.path}: {what}")
        name = posixpath.splitext(listed)[0]
        own_id = posixpath.join(file.folder, name) if len(files) > 1 else name
        items.append(Item(own_id, picture, file.path, draw if drawn else None, split_of(image.get("subset", ""))))
    notes = [f"{count:,} {kind} of whole pictures are left out" for kind, count in left_out.items() if count]
    notes += finder.notes(item.picture for item in items)
    rules = {"outlines": "COCO's tools (rleFrPoly)", "ellipses": f"polygons of {len(CIRCLE)} corners", "overlap": overlap}
    return Source(classes, items, faults, notes, rules)


def _open(tree: Tree, name: str) -> _File:
    """A file. Raises UserError (data) where it is damaged, or holds the tracks of a video."""
    path = tree.root / name
    try:
        root = ElementTree.parse(path).getroot()  # expat itself bounds what entities may expand to
    except (ElementTree.ParseError, ValueError) as error:
        raise data_error(path, f"is no XML ({first_line(error, 100)})", _AGAIN) from None
    if root.tag != "annotations":
        raise data_error(path, f"begins with <{root.tag}>, an XML of CVAT with <annotations>", _AGAIN)
    if root.find("track") is not None:
        remedy = f'{_AGAIN} as "CVAT for images 1.1" or "Segmentation mask 1.1", which hold the frames'
        raise data_error(path, 'holds the tracks of "CVAT for video 1.1", which are not read', remedy)
    classes = _classes(root, path)
    if len(classes) < 2:
        raise data_error(path, "declares no labels in its <meta>", _AGAIN)
    return _File(path, posixpath.dirname(name), classes, root.findall("image"))


def _classes(root: ElementTree.Element, path: Path) -> list[ClassLine]:
    """The background, and the labels in the order of the task or project; the parts of skeletons are left out."""
    classes = [ClassLine(BACKGROUND, (0, 0, 0), "all that no shape covers")]
    for label in root.iterfind("meta//labels/label"):
        name, origin = label.findtext("name", "").strip(), f"label of {path.name}"
        if name == BACKGROUND:
            classes[0] = ClassLine(name, hex_color(label.findtext("color")), f"{origin}, and all that no shape covers")
        elif name and label.find("parent") is None and all(line.name != name for line in classes):
            classes.append(ClassLine(name, hex_color(label.findtext("color")), origin))
    return classes


def _find(image: ElementTree.Element, file: _File, finder: PictureFinder) -> tuple[Path, str]:
    """The picture of an image, and its path in the folder images/, or where it was found. Raises UserError (data) for none."""
    name = image.get("name", "")
    folders = [posixpath.join(file.folder, own) for own in (f"images/{image.get('subset', '')}", "images")]
    near = next((own for own in folders if posixpath.normpath(posixpath.join(own, name)) in finder.by_path), file.folder)
    picture, listed = finder.find(name, file.path, near)
    return picture, listed.removeprefix(posixpath.join(file.folder, "images/"))


def _shapes(
    entries: list[ElementTree.Element], number_of: Mapping[str, int], path: Path, what: str, faults: list[UserError]
) -> list[Shape]:
    """The shapes of a picture, that of the lowest z_order first, those of one in the order of the file."""
    shapes = list[tuple[float, Shape]]()
    for entry in entries:
        label = entry.get("label", "")
        where = f"{what}, {entry.tag} '{label}'"
        if label not in number_of:
            faults.append(data_error(path, f"{where} has a label that <meta> does not declare", _AGAIN))
            continue
        try:
            if entry.tag not in _DRAWN:
                raise data_error(path, f"{where} has no exact pixels", "draw it as a polygon or a mask, or remove it")
            (order,) = _numbers([entry.get("z_order", "0")], path, where)
            shapes.append((order, Shape(number_of[label], _rasteriser(entry, path, where))))
        except UserError as fault:
            faults.append(fault)
    return [shape for _, shape in sorted(shapes, key=lambda pair: pair[0])]


def _rasteriser(entry: ElementTree.Element, path: Path, where: str) -> Callable[[Size], Patch]:
    """The function that draws a shape. Raises UserError (data) for numbers of another form."""

    def numbers(*keys: str) -> list[float]:
        return _numbers([entry.get(key, "") for key in keys], path, where)

    if entry.tag == "mask":
        left, top, width, height = map(int, numbers("left", "top", "width", "height"))
        runs = [int(value) for value in _numbers(entry.get("rle", "").split(","), path, where)]
        return partial(_mask, runs, (top, left), (height, width), path, where)
    if entry.tag == "polygon":
        points = [_numbers(pair.split(","), path, where) for pair in entry.get("points", "").split(";")]
        return partial(_outline, read_points(points, path, where))
    if entry.tag == "box":
        left_, top_, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        corners = read_points([left_, top_, right, top_, right, bottom, left_, bottom], path, where)
    else:
        x, y, across, down = numbers("cx", "cy", "rx", "ry")
        corners = read_points((CIRCLE * (across, down) + (x, y)).tolist(), path, where)
    center = corners.min(axis=0) + (corners.max(axis=0) - corners.min(axis=0)) / 2
    (degrees,) = _numbers([entry.get("rotation", "0")], path, where)
    return partial(_outline, turned(corners - center, degrees) + center if degrees else corners)


def _numbers(texts: list[str], path: Path, where: str) -> list[float]:
    """Finite numbers. Raises UserError (data) where one is none."""
    try:
        values = [float(text) for text in texts]
        if all(math.isfinite(value) for value in values):
            return values
    except ValueError:
        pass
    raise data_error(path, f"{where} lacks a number, or has one of another form", _AGAIN)


def _outline(points: Points, size: Size) -> Patch:
    return coco_polygon([points], size)


def _mask(runs: list[int], corner: tuple[int, int], part: Size, path: Path, where: str, size: Size) -> Patch:
    """Runs along the rows of a part (height, width) of the picture, from `corner` (top, left); the first run is of zeros."""
    top, left = corner
    height, width = part
    inside = min(top, left) >= 0 and min(part) > 0 and top + height <= size[0] and left + width <= size[1]
    if not inside:
        raise data_error(path, f"{where} reaches outside of the picture", _AGAIN)
    try:
        mask = decode_rle(runs, (width, height)).T
    except ValueError as error:
        raise data_error(path, f"{where} has damaged run lengths ({error})", _AGAIN) from None
    patch = crop(mask, left=left)
    return patch._replace(top=patch.top + top)


def _side(image: ElementTree.Element, name: str) -> int | None:
    """The height or width of a picture that the file states; None: none."""
    text = image.get(name, "")
    return int(text) if text.isdecimal() else None
