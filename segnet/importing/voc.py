"""Pascal VOC's folders, with masks of ids or of colours."""

from __future__ import annotations

from pathlib import Path

from segnet.classes import VOC
from segnet.config.sections import LISTS
from segnet.data.layout import MASKS, PICTURES
from segnet.data.mask_files import open_labels
from segnet.data.palettes import Rules
from segnet.importing.class_file import ClassLine, find_class_file, read_class_file
from segnet.importing.files import PictureFinder, Tree, read_lines
from segnet.importing.label_masks import color_rules, id_rules, mask_drawer
from segnet.importing.source import Choices, Item, Source, split_of
from segnet.system.errors import UserError, data_error
from segnet.system.files import is_safe_name


def find_voc(tree: Tree) -> str:
    """The folder of masks of a set in VOC's layout; empty: none."""
    has_masks = any(name.startswith(f"{MASKS}/") for name in tree.pictures)
    return f"{MASKS}/" if has_masks and any(name.startswith(f"{PICTURES}/") for name in tree.pictures) else ""


def read_voc(tree: Tree, choices: Choices) -> Source:
    """A set whose classes are those of `--classes`, of a file in the folder, or VOC's own 21 where its colours are VOC's."""
    path = find_class_file(tree)
    lines = choices.classes or (read_class_file(path) if path else [])
    notes = list[str]()
    colored = _holds_colors(tree)
    if not lines:
        lines = [ClassLine(name, color, "VOC's table") for name, color in zip(VOC.names, VOC.colors, strict=True)]
        notes.append("no file names the classes: they are VOC's 21, and values of other classes are refused")
    if colored and not all(line.color for line in lines):
        found = "its masks are colours, and not every class has a colour"
        raise data_error(tree.root / MASKS, found, "give --classes FILE with lines R G B NAME")
    rules = color_rules(lines) if colored else id_rules(len(lines), {i: i for i in range(len(lines))})
    items, faults = paired_by_lists(tree, choices, rules)
    return Source(lines, items, faults, notes, {"masks": "colours" if colored else "ids"})


def _holds_colors(tree: Tree) -> bool:
    """Whether the first mask that can be read stores colours."""
    for name in tree.pictures:
        if name.startswith(f"{MASKS}/"):
            try:
                return open_labels(tree.root / name).values.ndim == 3
            except UserError:
                continue
    return False


def paired_by_lists(tree: Tree, choices: Choices, rules: Rules) -> tuple[list[Item], list[UserError]]:
    """The pictures in the lists of a set, or where it has none those with a mask or in JPEGImages, and the faults."""
    masks = {_id_in(name, MASKS): tree.root / name for name in tree.pictures if name.startswith(f"{MASKS}/")}
    faults = list[UserError]()
    split_by_id = dict[str, str | None]()
    for name in tree.others:
        if not (name.startswith(f"{LISTS}/") and name.endswith(".txt")):
            continue
        path = tree.root / name
        for line, text in enumerate(read_lines(path), 1):
            if not text:
                continue
            sample_id = text.removeprefix("/")
            split = split_of(path.stem) or (None if path.stem.lower() in ("default", "all", "trainval") else path.stem)
            if not is_safe_name(sample_id):
                faults.append(data_error(path, f"line {line}: '{text}' leaves the folder", "list plain ids"))
            elif split and split_by_id.get(sample_id) not in (None, split):
                found = f"'{sample_id}' is in the lists {split_by_id[sample_id]} and {split}"
                faults.append(data_error(path, found, "list it once"))
            else:
                split_by_id[sample_id] = split or split_by_id.get(sample_id)
    if not split_by_id:
        pictures = {_id_in(name, PICTURES) for name in tree.pictures if name.startswith(f"{PICTURES}/")}
        split_by_id = dict.fromkeys(sorted(pictures | masks.keys()))
    for sample_id in masks.keys() - split_by_id.keys():
        faults.append(data_error(masks[sample_id], "is a mask of a picture in no list", "list it, or remove the mask"))
    finder = _IdFinder(tree, choices)
    items = list[Item]()
    for sample_id, split in split_by_id.items():
        try:
            picture = finder.find(sample_id)
        except UserError as fault:
            faults.append(fault)
            continue
        mask = masks.get(sample_id)
        items.append(Item(sample_id, picture, mask or tree.root / LISTS, mask_drawer(mask, rules) if mask else None, split))
    return items, faults


def _id_in(name: str, folder: str) -> str:
    """The id of a file in a folder."""
    return str(Path(name).relative_to(folder).with_suffix(""))


class _IdFinder:
    """A search for the picture of an id, whatever its suffix."""

    def __init__(self, tree: Tree, choices: Choices) -> None:
        self.finder = PictureFinder(tree, choices.pictures)
        listed = (
            self.finder.extra if choices.pictures else {k: v for k, v in self.finder.by_path.items() if k.startswith(PICTURES)}
        )
        folder = "." if choices.pictures else PICTURES
        self.by_id = dict[str, list[Path]]()
        for name, path in listed.items():
            self.by_id.setdefault(_id_in(name, folder), []).append(path)
        self.where = choices.pictures or tree.root / PICTURES
        self.asked = choices.pictures is not None

    def find(self, sample_id: str) -> Path:
        """The picture of an id. Raises UserError (data) where there is none, or several."""
        found = self.by_id.get(sample_id, [])
        if len(found) == 1:
            return found[0]
        if found:
            raise data_error(found[1], f"has the id of {found[0].name} too", "remove or rename one of them")
        remedy = "put it there" if self.asked else "give --pictures DIR, the folder of the pictures"
        raise data_error(self.where, f"picture '{sample_id}' is missing", remedy)
