"""Pascal VOC's folders, with masks of ids or of colours."""

from __future__ import annotations

from pathlib import Path

from segnet.classes import VOC
from segnet.config.sections import LISTS
from segnet.data.layout import MASKS, PICTURES
from segnet.data.mask_files import open_palette
from segnet.data.palettes import VOID_COLOR, Rules
from segnet.importing.class_file import ClassLine, find_class_file, read_class_file
from segnet.importing.files import PictureFinder, Tree, read_lines
from segnet.importing.label_masks import MaskValues, choose_rules, mask_drawer, read_values
from segnet.importing.source import Choices, Item, Source, split_of
from segnet.system.errors import UserError, data_error, raise_first
from segnet.system.files import is_safe_name


def find_voc(tree: Tree) -> str:
    """The folder of masks of a set in VOC's layout; empty: none."""
    has_masks = any(name.startswith(f"{MASKS}/") for name in tree.pictures)
    return f"{MASKS}/" if has_masks and any(name.startswith(f"{PICTURES}/") for name in tree.pictures) else ""


def read_voc(tree: Tree, choices: Choices) -> Source:
    """A set whose classes are those of `--classes`, of a file in the folder, or VOC's own 21 where its colours are VOC's.

    Raises UserError (data) where neither the masks nor a file tell the classes.
    """
    path = find_class_file(tree)
    lines = choices.classes or (read_class_file(path) if path else [])
    faults, notes = list[UserError](), list[str]()
    masks = [tree.root / name for name in tree.pictures if name.startswith(f"{MASKS}/")]
    seen = read_values(masks, faults)
    if not lines and _are_vocs(seen, masks):
        lines = [ClassLine(name, color, "VOC's table") for name, color in zip(VOC.names, VOC.colors, strict=True)]
        notes.append("no file names the classes: they are VOC's 21, whose colours the masks have")
    try:
        lines, rules, how = choose_rules(lines, seen, tree.root / MASKS)
    except UserError as error:
        raise_first([*faults, error])
        raise
    unread = {fault.path for fault in faults}
    items, list_faults = paired_by_lists(tree, choices, rules, notes)
    items = [item for item in items if str(item.labels) not in unread]
    return Source(lines, items, [*faults, *list_faults], notes, {"masks": how})


def _are_vocs(seen: MaskValues, masks: list[Path]) -> bool:
    """Whether masks have VOC's colours: as colours, or as the palette of the first one."""
    known = {*VOC.colors, VOID_COLOR}
    if seen.colors:
        grey = all(red == green == blue for red, green, blue in seen.colors)
        return not grey and sum(seen.colors[color] for color in known) > seen.colors.total() / 2
    palette = open_palette(masks[0]) if masks and masks[0].suffix.lower() == ".png" else None
    return palette is not None and palette[: len(VOC)].tolist() == [list(color) for color in VOC.colors]


def paired_by_lists(
    tree: Tree, choices: Choices, rules: Rules, notes: list[str], *, remedy: str = ""
) -> tuple[list[Item], list[UserError]]:
    """The pictures in the lists of a set, or where it has none those with a mask or in JPEGImages, and the faults.

    Adds to `notes` how many pictures are in no list. `remedy` is for values of masks without a rule.
    """
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
        draw = mask_drawer(mask, rules, remedy) if mask else None
        items.append(Item(sample_id, picture, mask or tree.root / LISTS, draw, split))
    if left := len(finder.by_id.keys() - split_by_id.keys()):
        notes.append(f"{left:,} pictures are in no list and are left out")
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
