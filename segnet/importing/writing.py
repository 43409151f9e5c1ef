"""A labelled set of another tool in Pascal VOC's layout: pictures byte for byte, exact masks, classes, lists, a record."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from segnet.classes import IGNORE_INDEX, ClassSet, Color, class_set
from segnet.data.images import SUFFIXES, open_image
from segnet.data.layout import ALL, mask_path, picture_path, split_path, write_classes, write_missing_lists
from segnet.data.mask_files import encode_mask
from segnet.importing.class_file import ClassLine
from segnet.importing.files import Tree, open_tree
from segnet.importing.recognition import Format, recognise, require_used
from segnet.importing.source import BACKGROUND, Choices, Counts, Drawn, Item, Size, Source
from segnet.system.digests import sha256_of
from segnet.system.errors import UserError, config_error, data_error, raise_first
from segnet.system.files import (
    atomic_write,
    full_disk_named,
    is_inside,
    is_safe_name,
    lock_folder,
    make_folder,
    remove_stale_temporaries,
    require_space,
    write_text,
)
from segnet.system.processes import stopping_pool

Unlabelled = Literal["background", "ignore", "skip"]
RECORD = "import.json"  # in the data folder
_SCRATCH = ".import"  # in the data folder while a set is imported
_WRITERS = 8  # threads; each waits until its file is on disk


class ClassRow(NamedTuple):
    """A line of the table of classes."""

    name: str
    color: Color
    pictures: int
    pixels: int
    origin: str


class Imported(NamedTuple):
    """The result of an import."""

    title: str  # of the format
    marker: str  # the file by which it was recognised
    classes: list[ClassRow]
    lists: dict[str, int]  # pictures in each list
    ignored: int  # pixels
    counts: Counts
    sizes: list[Size]  # of all pictures
    skipped: int  # pictures without a label that were left out
    notes: list[str]
    written: int  # files that were not there before


class _Done(NamedTuple):
    """A picture whose mask is drawn."""

    item: Item
    size: Size
    suffix: str
    counts: Counts
    pixels: list[int]  # of each final id 0..255
    undeclared: list[int]  # positions of classes in the mask that have no final id
    digest: str  # of the picture
    bytes: int  # of the picture


def import_set(
    source: Path, out: Path, choices: Choices, *, unlabelled: Unlabelled | None = None, name: str | None = None
) -> Imported:
    """Write the set at `source` into `out`. A second call with the same arguments writes the files that are missing.

    `name` is the format, where the files alone do not tell; `unlabelled` says what pictures without a label become.
    Raises UserError: (data) naming all faults of the set at once, before any file of it is written, and where `out` holds
    something else; (config) for choices that do not fit; (environment) where the disk is full.
    """
    if source.is_dir() and (is_inside(out, source) or is_inside(source, out)):
        raise config_error(out, f"lies in {source} or around it", "choose another --out")
    with _data_folder(out) as scratch:
        unpacked = scratch / "unpacked"
        unpacked.mkdir()
        with _named_as_given(unpacked, source):
            tree = open_tree(source, unpacked)
            known, marker = recognise(tree, choices, source, name=name)
            require_used(known, choices)
            found = known.read(tree, choices)
            if len(found.classes) < 2:
                raise_first(found.faults)
            classes, final_ids = _order(found.classes, choices.classes)
            items, skipped, faults = _with_labels(found, unlabelled)
            faults = [*found.faults, *faults, *_id_faults(items)]
            safe = [item for item in items if is_safe_name(item.id)]
            done, drawing_faults = _draw_all(safe, classes, final_ids, scratch / "masks")
            faults += [*drawing_faults, *_undeclared(done, found.classes)]
            if not items and not faults:
                faults.append(data_error(source, "no picture in it", "name a folder with pictures and labels"))
            raise_first(faults)
        rows = _rows(done, classes, found.classes, choices)
        result = _result(known, marker, rows, done, found, skipped, tree)
        written = _write(out, scratch, _record(result, choices, unlabelled, found, done, source), classes, done)
        return result._replace(written=written)


@contextmanager
def _data_folder(out: Path) -> Iterator[Path]:
    """A folder for temporary files in `out`, which this process has locked. An `out` made for nothing is removed again."""
    there = out.exists()
    if there and not out.is_dir():
        raise config_error(out, "is no folder", "choose another --out")
    foreign = there and not any((out / own).exists() for own in (RECORD, _SCRATCH))
    if foreign and any(path.is_file() and path.name != ".lock" for path in out.rglob("*")):
        raise data_error(out, f"holds files that no import made (no {RECORD})", "choose another --out")
    make_folder(out)
    with lock_folder(out):
        scratch = out / _SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            if not there and not (out / RECORD).exists():
                shutil.rmtree(out)


@contextmanager
def _named_as_given(unpacked: Path, source: Path) -> Iterator[None]:
    """Name files of an unpacked archive by the archive in errors."""

    def renamed(error: UserError) -> UserError:
        path = error.path.replace(str(unpacked), str(source), 1)
        return UserError(error.code, path, error.found, error.remedy, also=tuple(map(renamed, error.also)))

    try:
        yield
    except UserError as error:
        raise renamed(error) from None


def _order(found: Sequence[ClassLine], wanted: Sequence[ClassLine] | None) -> tuple[ClassSet, list[int | None]]:
    """The classes of the data folder, and the id of each class of the set; None for a class that was not declared."""
    lines = list(found)
    if wanted is not None:
        by_name = {line.name: line for line in found}
        background = [by_name[BACKGROUND]] if BACKGROUND in by_name and all(line.name != BACKGROUND for line in wanted) else []
        lines = [*background, *(line if line.color else by_name.get(line.name, line) for line in wanted)]
    names = [line.name for line in lines]
    if odd := next((line for line in lines if not line.name.isprintable() or not line.name.strip()), None):
        remedy = "give it a name of letters, digits and signs"
        raise data_error(odd.origin, f"{odd.name!r} is no name that can be printed", remedy)
    if not 2 <= len(names) <= IGNORE_INDEX:
        listed = ", ".join(names[:3])
        raise data_error("--classes" if wanted else "classes", f"{len(names)} in the set ({listed})", "2 to 255 are needed")
    colors = tuple(line.color for line in lines if line.color)
    distinct = len(set(colors)) == len(lines)
    ids = [names.index(line.name) if line.name in names else None for line in found]
    return class_set(tuple(names), colors if distinct else ()), ids


def _with_labels(found: Source, unlabelled: Unlabelled | None) -> tuple[list[Item], int, list[UserError]]:
    """The pictures to write, each with a function that draws its mask; the number of those left out; the faults."""
    bare = [item for item in found.items if item.draw is None]
    if not bare:
        return found.items, 0, []
    if unlabelled is None:
        named = ", ".join(item.id for item in bare[:3]) + (", …" if len(bare) > 3 else "")
        text = f"{len(bare):,} of {len(found.items):,} pictures have no label: {named}"
        remedy = "say what they are: --unlabelled background, ignore (not scored) or skip (left out)"
        return [item for item in found.items if item.draw], 0, [data_error(bare[0].labels, text, remedy)]
    if unlabelled == "skip":
        return [item for item in found.items if item.draw], len(bare), []
    value = IGNORE_INDEX
    if unlabelled == "background":
        value = next((i for i, line in enumerate(found.classes) if line.name in (BACKGROUND, "unlabelled")), -1)
        if value < 0:
            raise config_error("--unlabelled background", "no class is called background", "say ignore or skip")
    return [item if item.draw else item._replace(draw=partial(_blank, value)) for item in found.items], 0, []


def _blank(value: int, size: Size) -> Drawn:
    """A mask of one value."""
    return Drawn(np.full(size, value, dtype=np.uint8))


def _id_faults(items: Sequence[Item]) -> list[UserError]:
    """Pictures of one id, and names that no list can hold."""
    faults, owner = list[UserError](), dict[str, Item]()
    for item in items:
        where = item.picture if isinstance(item.picture, Path) else item.labels
        if item.id in owner:
            other = owner[item.id].picture
            text = f"has the id '{item.id}' of {other if isinstance(other, Path) else owner[item.id].labels} too"
            faults.append(data_error(where, text, "rename or remove one of them"))
        owner[item.id] = item
        if not is_safe_name(item.id) or item.id != item.id.strip() or item.id.startswith("#"):
            faults.append(data_error(where, f"'{item.id}' is a name that no list can hold", "rename the picture"))
    return faults


def _draw_all(
    items: Sequence[Item], classes: ClassSet, final_ids: Sequence[int | None], folder: Path
) -> tuple[list[_Done], list[UserError]]:
    """Draw every mask into `folder`, decode every picture, and count; faults do not stop the others."""
    table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    for position, number in enumerate(final_ids):
        table[position] = IGNORE_INDEX if number is None else number
    unknown = [position for position, number in enumerate(final_ids) if number is None]

    def draw(item: Item) -> _Done | UserError:
        try:
            assert item.draw is not None
            content = item.picture if isinstance(item.picture, bytes) else item.picture.read_bytes()
            path = item.labels if isinstance(item.picture, bytes) else item.picture
            image = open_image(path, content)  # (3, H, W), turned upright
            size = image.shape[1], image.shape[2]
            drawn = item.draw(size)
            values = np.bincount(drawn.mask.reshape(-1), minlength=256)
            mask = table[drawn.mask]
            target = mask_path(folder, item.id)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(encode_mask(mask, classes))
            pixels = np.bincount(mask.reshape(-1), minlength=256).tolist()
            digest = hashlib.sha256(content).hexdigest()
            undeclared = [position for position in unknown if values[position]]
            return _Done(item, size, _suffix(item, content), drawn.counts, pixels, undeclared, digest, len(content))
        except UserError as error:
            return error
        except OSError as error:
            return data_error(error.filename or item.labels, (error.strerror or "cannot be read").lower(), "make it readable")

    with stopping_pool(ThreadPoolExecutor(os.cpu_count())) as pool:
        results = list(tqdm(pool.map(draw, items), "import", len(items), unit="picture", leave=False, disable=None))
    done = [result for result in results if isinstance(result, _Done)]
    return done, [result for result in results if isinstance(result, UserError)]


def _suffix(item: Item, content: bytes) -> str:
    """The suffix of the picture in the data folder."""
    if isinstance(item.picture, Path) and item.picture.suffix.lower() in SUFFIXES:
        return item.picture.suffix
    return ".png" if content.startswith(b"\x89PNG") else ".jpg"


def _undeclared(done: Sequence[_Done], found: Sequence[ClassLine]) -> list[UserError]:
    """Classes that occur in masks and are not in the file of --classes."""
    seen = Counter(position for one in done for position in one.undeclared)
    return [
        data_error("--classes", f"has no class '{found[position].name}', which {count:,} pictures hold", "add it")
        for position, count in sorted(seen.items())
    ]


def _rows(done: Sequence[_Done], classes: ClassSet, found: Sequence[ClassLine], choices: Choices) -> list[ClassRow]:
    pixels = np.array([one.pixels for one in done], dtype=np.int64).reshape(-1, 256)
    origin = {line.name: line.origin for line in [*(choices.classes or []), *found]}
    return [
        ClassRow(name, color, int((pixels[:, i] > 0).sum()), int(pixels[:, i].sum()), origin[name])
        for i, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))
    ]


def _result(
    known: Format, marker: str, rows: list[ClassRow], done: Sequence[_Done], found: Source, skipped: int, tree: Tree
) -> Imported:
    lists = {split: len(ids) for split, ids in _lists(done).items()}
    counts = Counts(*map(sum, zip(*(one.counts for one in done), strict=True)))
    ignored = sum(one.pixels[IGNORE_INDEX] for one in done)
    notes = list(found.notes)
    if tree.unread:
        named = ", ".join(f"{left.path.name}: {left.why}" for left in tree.unread[:3])
        notes.append(f"{len(tree.unread)} files are not read ({named})")
    return Imported(known.title, marker, rows, lists, ignored, counts, [one.size for one in done], skipped, notes, 0)


def _lists(done: Sequence[_Done]) -> dict[str, list[str]]:
    """The lists of ids: those of the source, else one with all; pictures in no list of a set with lists are in `unlisted`."""
    lists = dict[str, list[str]]()
    other = "unlisted" if any(one.item.split for one in done) else ALL
    for one in done:
        lists.setdefault(one.item.split or other, []).append(one.item.id)
    return {split: sorted(ids) for split, ids in sorted(lists.items())}


def _record(
    result: Imported, choices: Choices, unlabelled: str | None, found: Source, done: Sequence[_Done], source: Path
) -> str:
    """The text of import.json: the digest of what was read, the rules, the counts. It holds no path and no time."""
    digest = hashlib.sha256()
    for one in sorted(done, key=lambda one: one.item.id):
        digest.update(f"{one.item.id}\0{one.digest}\n".encode("utf-8", "surrogateescape"))
    for labels in sorted({one.item.labels for one in done if one.item.labels.is_file()}):
        digest.update(f"{labels.name}\0{sha256_of(labels)}\n".encode("utf-8", "surrogateescape"))
    options = {"overlap": choices.overlap, "unlabelled": unlabelled, "foreground": choices.foreground, "masks": choices.masks}
    record = {
        "format": result.title,
        "source": source.name,
        "digest": digest.hexdigest(),
        "options": {key: value for key, value in options.items() if value},
        "rules": found.rules,
        "pictures": len(done),
        "left_out": result.skipped,
        "lists": result.lists,
        "classes": [{"id": i, **row._asdict()} for i, row in enumerate(result.classes)],
        "ignored_pixels": result.ignored,
        "shapes": result.counts._asdict(),
        "notes": result.notes,
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _write(out: Path, scratch: Path, record: str, classes: ClassSet, done: Sequence[_Done]) -> int:
    """Write what is missing, the lists last; the number of files written."""
    if (out / RECORD).exists() and (out / RECORD).read_text(encoding="utf-8") != record:
        remedy = "choose another --out, or delete this folder"
        raise data_error(out / RECORD, "is of another source, or of other choices", remedy)
    require_space(out, sum(one.bytes for one in done if not picture_path(out, one.item.id, one.suffix).exists()))
    write_text(out / RECORD, record)
    write_classes(out, classes)
    for folder in sorted({path.parent for one in done for path in _targets(out, one)}):
        make_folder(folder)
        remove_stale_temporaries(folder)

    def write(one: _Done) -> int | UserError:
        picture = one.item.picture if isinstance(one.item.picture, bytes) else one.item.picture.read_bytes()
        contents = picture, mask_path(scratch / "masks", one.item.id).read_bytes()
        written = 0
        for path, content in zip(_targets(out, one), contents, strict=True):
            if not path.exists():
                with full_disk_named(path), atomic_write(path) as file:
                    file.write(content)
                written += 1
            elif path.read_bytes() != content:
                return data_error(path, "is there and is different", "delete it, or choose another --out")
        return written

    with stopping_pool(ThreadPoolExecutor(_WRITERS)) as pool:
        results = list(tqdm(pool.map(write, done), "write", len(done), unit="picture", leave=False, disable=None))
    raise_first([result for result in results if isinstance(result, UserError)])
    written = sum(result for result in results if isinstance(result, int))
    make_folder(split_path(out, ALL).parent)
    return written + write_missing_lists(out, _lists(done))


def _targets(out: Path, one: _Done) -> tuple[Path, Path]:
    """The files of a picture and of its mask."""
    return picture_path(out, one.item.id, one.suffix), mask_path(out, one.item.id)
