"""Label Studio's JSON: brushes in its run-length encoding, polygons, rectangles and ellipses in per cent of the picture."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segnet.importing.class_file import ClassLine
from segnet.importing.files import LOOKED_AT, PictureFinder, Tree, load_json
from segnet.importing.painting import Patch, Shape, crop, paint_declared
from segnet.importing.polygons import CIRCLE, coco_polygon, read_points, turned
from segnet.importing.source import BACKGROUND, Choices, Item, Size, Source, short_ids
from segnet.system.errors import UserError, data_error

_DRAWN = {"brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels"}  # types of results that become pixels
_NO_SHAPES = {"choices", "textarea", "rating", "number", "datetime", "taxonomy", "pairwise", "relation"}
_FARTHEST = 1000.0  # per cent of the picture from its corner; farther points are mistakes, and to walk there takes long
_MOST_DEGREES = 36_000
_HEADER = 32 + 5 + 4 * 4  # bits


def find_label_studio(tree: Tree) -> str:
    """The first file with a list of tasks; empty: none."""
    return next((name for name in tree.jsons()[:LOOKED_AT] if _tasks(tree.root / name)), "")


def _tasks(path: Path) -> list[dict[str, Any]]:
    """The tasks in a file; none where it is another JSON."""
    try:
        content = load_json(path)
    except UserError:
        return []
    tasks = content if isinstance(content, list) else [content]
    known = all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks)
    return tasks if known and any("annotations" in task or "completions" in task for task in tasks) else []


def read_label_studio(tree: Tree, choices: Choices) -> Source:
    """A set whose classes are the names of all labels in alphabetical order."""
    faults, notes = list[UserError](), Counter[str]()
    found = list[tuple[dict[str, Any], Path, str, Path, str]]()
    finder = PictureFinder(tree, choices.pictures)
    for name in tree.jsons():
        path = tree.root / name
        for task in _tasks(path):
            what = f"task {task.get('id', '?')}"
            try:
                found.append((task, path, what, *finder.find(_picture_of(task, path, what), path)))
            except UserError as fault:
                faults.append(fault)
    results = [_results(task, path, what, faults, notes) for task, path, what, *_ in found]
    labels = {label for own in results for entry in own for label in [_label_of(entry)] if label}
    names = sorted(labels - {BACKGROUND})
    origin = "labels in alphabetical order"
    classes = [ClassLine(BACKGROUND, None, "all that no region covers"), *(ClassLine(name, None, origin) for name in names)]
    number_of = {line.name: i for i, line in enumerate(classes)}
    ids = short_ids([listed for *_, listed in found])
    overlap = choices.overlap or "last"
    items = list[Item]()
    for (_, path, what, picture, listed), own in zip(found, results, strict=True):
        shapes = _shapes(own, number_of, path, what, faults)
        declared = next(((entry.get("original_height"), entry.get("original_width")) for entry in own), (None, None))
        draw = partial(paint_declared, shapes, declared, overlap, f"{path}: {what}") if own else None
        items.append(Item(ids[listed], picture, path, draw))
    said = [text.format(count) for text, count in notes.items()]
    said += finder.notes(item.picture for item in items)
    rules = {"brushes": "where alpha is above 0", "outlines": "COCO's tools (rleFrPoly)", "overlap": overlap}
    return Source(classes, items, faults, said, rules)


def _picture_of(task: dict[str, Any], path: Path, what: str) -> str:
    """The name of the picture of a task. Raises UserError (data) where none of its fields, or several, name a picture."""
    texts = [text for text in task["data"].values() if isinstance(text, str)]
    named = [text for text in texts if re.search(r"\.(jpe?g|png|bmp|tiff?|webp|gif)($|\?)", text, re.I)]
    if len(set(named)) == 1:
        return named[0]
    found = "names several pictures" if named else "names no picture"
    raise data_error(path, f"{what} {found} in its data", "export tasks with one picture each")


def _results(task: dict[str, Any], path: Path, what: str, faults: list[UserError], notes: Counter[str]) -> list[dict[str, Any]]:
    """The regions of the one annotation of a task that counts."""
    every = task.get("annotations", task.get("completions")) or []
    if not isinstance(every, list):
        faults.append(data_error(path, f"{what} has annotations that are no list", "export as JSON"))
        return []
    annotations = [entry for entry in every if isinstance(entry, dict) and not entry.get("was_cancelled")]
    if len(every) > len(annotations):
        notes["{} annotations were cancelled and are left out"] += len(every) - len(annotations)
    best = [entry for entry in annotations if entry.get("ground_truth")]
    if len(annotations) > 1 and len(best) == 1:
        notes["{} annotations beside one that is marked as ground truth are left out"] += len(annotations) - 1
        annotations = best
    if len(annotations) > 1:
        remedy = "mark one as ground truth in Label Studio, or delete the others"
        faults.append(data_error(path, f"{what} has {len(annotations)} annotations", remedy))
        return []
    results = (annotations[0].get("result") or []) if annotations else []
    if not isinstance(results, list):
        faults.append(data_error(path, f"{what} has a result that is no list", "export as JSON"))
        return []
    regions = list[dict[str, Any]]()
    for entry in results:
        kind = str(entry.get("type")) if isinstance(entry, dict) else ""
        if kind in _NO_SHAPES:
            notes["{} results are no shapes (choices, texts, relations) and are left out"] += 1
        elif kind in _DRAWN:
            regions.append(entry)
        else:
            found = f"{what} has a result of the type '{kind}', which has no exact pixels"
            faults.append(data_error(path, found, "draw it as a brush, a polygon or a rectangle"))
    return regions


def _label_of(entry: dict[str, Any]) -> str:
    """The one label of a region; empty: none, or several."""
    value = entry.get("value")
    labels = value.get(entry["type"], value.get("labels")) if isinstance(value, dict) else None
    one = isinstance(labels, list) and len(labels) == 1 and isinstance(labels[0], str)
    return labels[0] if one and labels else ""


def _shapes(
    results: list[dict[str, Any]], number_of: dict[str, int], path: Path, what: str, faults: list[UserError]
) -> list[Shape]:
    shapes = list[Shape]()
    for entry in results:
        region = f"{what}, region '{entry.get('id', '?')}'"
        label = _label_of(entry)
        if not label:
            faults.append(data_error(path, f"{region} has not exactly one label", "give it one in Label Studio"))
            continue
        if entry.get("image_rotation"):
            faults.append(data_error(path, f"{region} is on a rotated picture", "rotate the picture's file, and label it again"))
            continue
        try:
            shapes.append(_shape(number_of[label], entry, path, region))
        except UserError as fault:
            faults.append(fault)
    return shapes


def _shape(number: int, entry: dict[str, Any], path: Path, region: str) -> Shape:
    """A region as a shape. Raises UserError (data) for values of an unknown form."""
    value = entry["value"]
    if entry["type"] == "brushlabels":
        runs = value.get("rle")
        if value.get("format") != "rle" or not _are_bytes(runs):
            raise data_error(path, f"{region} is no run-length encoding", "export as JSON")
        return Shape(number, partial(_brush, bytes(runs), path, region))
    if entry["type"] == "polygonlabels":
        points = _read_per_cent(value.get("points"), path, region)
        return Shape(number, partial(_percent_polygon, points))
    keys = ("x", "y", "width", "height") if entry["type"] == "rectanglelabels" else ("x", "y", "radiusX", "radiusY")
    numbers = _read_per_cent([value.get(key) for key in keys], path, region)
    turn = value.get("rotation") or 0
    if not isinstance(turn, int | float) or not abs(turn) <= _MOST_DEGREES:
        raise data_error(path, f"{region} has the rotation {turn!r}", "draw it again")
    if entry["type"] == "rectanglelabels":
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * numbers[1]
    else:
        corners = CIRCLE * numbers[1]
    return Shape(number, partial(_percent_outline, numbers[0], corners, turn))


def _read_per_cent(values: object, path: Path, region: str) -> np.ndarray:
    """`read_points` of per cent of the picture. Raises UserError (data) also for those that are far away in pixels."""
    points = read_points(values, path, region)
    if (farthest := float(np.abs(points).max(initial=0))) > _FARTHEST:
        raise data_error(path, f"{region} has a point at {farthest:,.0f} % of the picture", "correct or remove the region")
    return points


def _are_bytes(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, int) and 0 <= value <= 255 for value in values)


def _percent_polygon(points: np.ndarray, size: Size) -> Patch:
    return coco_polygon([points * (size[1] / 100, size[0] / 100)], size)


def _percent_outline(start: np.ndarray, corners: np.ndarray, degrees: float, size: Size) -> Patch:
    """An outline around or from `start`, in per cent, turned clockwise in pixels."""
    scale = np.array([size[1] / 100, size[0] / 100])
    return coco_polygon([start * scale + turned(corners * scale, degrees)], size)


def _brush(runs: bytes, path: Path, region: str, size: Size) -> Patch:
    try:
        values = decode_brush(runs, size[0] * size[1] * 4)
    except ValueError as error:
        raise data_error(path, f"{region} has damaged run lengths ({error})", "export again") from None
    return crop(values.reshape(*size, 4)[..., 3] > 0)


def decode_brush(content: bytes, expected: int) -> np.ndarray:
    """(N,) uint8 values in Label Studio's encoding; for a brush N is H × W × 4, R, G, B and alpha of each pixel.

    32 bits hold N, 5 bits the size of a value less one, four times 4 bits the sizes of lengths less one. Then each run has a
    bit that says whether its value is repeated, 2 bits for the size of its length, the length less one, and its value or values
    (label-studio-sdk, converter/brush.py). Raises ValueError where it ends early, or holds other than `expected` values.
    """
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8))
    total = len(bits)

    def read(start: int, count: int) -> int:
        if start + count > total:
            raise ValueError("they end early")
        first, last = start // 8, (start + count + 7) // 8
        return int.from_bytes(content[first:last], "big") >> (last * 8 - start - count) & ((1 << count) - 1)

    count, word = read(0, 32), read(32, 5) + 1
    sizes = [read(37 + 4 * i, 4) + 1 for i in range(4)]
    if count != expected or word > 8:
        raise ValueError(f"{count:,} values of {word} bits for {expected:,}")
    values = np.zeros(count, dtype=np.uint8)
    weights = 1 << np.arange(word)[::-1]
    place, position = 0, _HEADER
    while place < count:
        repeated, size = read(position, 1), sizes[read(position + 1, 2)]
        length = read(position + 3, size) + 1
        position += 3 + size
        if place + length > count:
            raise ValueError("a run beyond the last pixel")
        if repeated:
            values[place : place + length] = read(position, word)
            position += word
        else:
            end = position + length * word
            if end > total:
                raise ValueError("they end early")
            values[place : place + length] = bits[position:end].reshape(length, word) @ weights
            position = end
        place += length
    return values
