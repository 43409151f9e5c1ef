"""Pictures and masks in folders: of the same name, of the same name with a suffix, or by a pattern."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from segnet.data.listing import list_pictures
from segnet.importing.class_file import find_class_file, read_class_file
from segnet.importing.files import Tree
from segnet.importing.label_masks import choose_rules, foreground_drawer, mask_drawer, read_values, two_classes
from segnet.importing.source import Choices, Item, Source, short_ids, split_of
from segnet.system.errors import UserError, config_error, data_error, raise_first

_MASKS = re.compile(r".*(masks?|labels?|annot(ation)?s?|gt|ground_?truths?|seg|segmentations?|segmentationclass|targets?)", re.I)
_PICTURES = re.compile(r".*(images?|imgs?|pictures?|photos?|frames?|rgb|inputs?)", re.I)
_SUFFIX = re.compile(r"[_.-](masks?|labels?|seg|segmentation|gt|groundtruth|annotation|l)$", re.I)
_INSTANCES = "SegmentationObject"
_NAME = "{name}"


def find_pairs(tree: Tree, choices: Choices) -> str:
    """The first mask, or what the user said of them; empty: no picture looks like a mask."""
    if choices.masks or choices.pictures:
        return choices.masks or str(choices.pictures)
    return next(iter(_split_pictures(tree)[1]), "")


def read_pairs(tree: Tree, choices: Choices) -> Source:
    """A set of pictures and masks. Raises UserError (data) where neither the masks nor a file tell the classes."""
    faults = list[UserError]()
    tree, notes = _without_instances(tree)
    pictures, masks = _match(tree, choices, faults)
    seen = read_values(masks.values(), faults)
    if choices.foreground:
        lines = choices.classes or two_classes("--foreground")
        if len(lines) != 2:
            raise config_error("--classes", f"{len(lines)} classes with --foreground", "name two: the background and the other")
        how = "every value above 0 is class 1"
        draw = {name: foreground_drawer(mask) for name, mask in masks.items()}
    else:
        path = find_class_file(tree)
        declared = choices.classes or (read_class_file(path) if path else [])
        try:
            lines, rules, how = choose_rules(declared, seen, tree.root)
        except UserError as error:
            raise_first([*faults, error] if any(seen) or not faults else faults)
            raise
        draw = {name: mask_drawer(mask, rules) for name, mask in masks.items()}
    unread = {fault.path for fault in faults}
    ids = short_ids(list(pictures))
    items = [
        Item(ids[name], picture, masks.get(name, picture), draw.get(name), split_of(str(PurePosixPath(name).parent)))
        for name, picture in pictures.items()
        if str(masks.get(name)) not in unread
    ]
    return Source(lines, items, faults, notes, {"masks": how})


def _without_instances(tree: Tree) -> tuple[Tree, list[str]]:
    """The set without VOC's masks that number objects, which are neither pictures nor masks of classes, and a note on them."""
    kept = [name for name in tree.pictures if _INSTANCES not in name.split("/")[:-1]]
    left = len(tree.pictures) - len(kept)
    return tree._replace(pictures=kept), [f"{left:,} files in {_INSTANCES} number objects and are left out"] if left else []


def _match(tree: Tree, choices: Choices, faults: list[UserError]) -> tuple[dict[str, Path], dict[str, Path]]:
    """All pictures, and the masks of those that have one, by the path of the picture in its folder."""
    if choices.masks and choices.masks.count(_NAME) != 1:
        remedy = "write e.g. --masks 'labels/{name}_mask.png'"
        raise config_error("--masks", f"'{choices.masks}' holds {_NAME} {choices.masks.count(_NAME)} times", remedy)
    names, mask_names = _split_pictures(tree)
    if choices.masks:
        before, after = map(re.escape, choices.masks.split(_NAME))
        pattern = re.compile(f"{before}(?P<name>.+){after}")
        mask_names = {name: [match["name"]] for name in tree.pictures if (match := pattern.fullmatch(name))}
        names = [name for name in tree.pictures if name not in mask_names]
        if not mask_names:
            found = f"'{choices.masks}' matches no file in {tree.root}"
            raise config_error("--masks", found, "write the path of the masks from the folder, with their suffix")
    pictures = {name: tree.root / name for name in names}
    if choices.pictures:
        pictures = {path.relative_to(choices.pictures).as_posix(): path for path in list_pictures(choices.pictures).pictures}
        if not choices.masks:
            mask_names = {name: _mask_keys(name) for name in tree.pictures}
    by_key, by_stem = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for name in pictures:
        stem = str(PurePosixPath(name).with_suffix(""))
        for key in {_key(stem), stem, *(_tails(stem) if choices.masks else ())}:
            by_key[key].append(name)
        by_stem[PurePosixPath(stem).name].append(name)
    masks_of = defaultdict[str, list[str]](list)
    for mask, keys in mask_names.items():
        owners = next((by_key[key] for key in keys if key in by_key), [])
        owners = owners or next((by_stem[stem] for key in keys if (stem := PurePosixPath(key).name) in by_stem), [])
        if len(owners) == 1:
            masks_of[owners[0]].append(mask)
        else:
            text = f"may be the mask of {' and '.join(owners[:2])}" if owners else "is a mask without a picture"
            faults.append(data_error(tree.root / mask, text, "give --masks PATTERN, or remove it"))
    for name, own in masks_of.items():
        if len(own) > 1:
            faults.append(data_error(pictures[name], f"has the masks {own[0]} and {own[1]}", "keep one, or give --masks PATTERN"))
    return pictures, {name: tree.root / own[0] for name, own in masks_of.items() if len(own) == 1}


def _split_pictures(tree: Tree) -> tuple[list[str], dict[str, list[str]]]:
    """The pictures, and the masks with the keys by which their pictures are looked for."""
    stems = {str(PurePosixPath(name).with_suffix("")) for name in tree.pictures}
    masks = dict[str, list[str]]()
    for name in tree.pictures:
        path = PurePosixPath(name).with_suffix("")
        in_folder = any(_MASKS.fullmatch(part) for part in path.parts[:-1])
        partner = _SUFFIX.sub("", path.name)
        if in_folder or (partner != path.name and str(path.with_name(partner or path.name)) in stems):
            masks[name] = _mask_keys(name)
    return [name for name in tree.pictures if name not in masks], masks


def _mask_keys(name: str) -> list[str]:
    """The keys that the picture of a mask may have: with the suffix of its stem, then without it."""
    stem = str(PurePosixPath(name).with_suffix(""))
    return [_key(stem), _key(_SUFFIX.sub("", stem))]


def _key(stem: str) -> str:
    """A path without the folders that only say picture or mask; train, val and test in their names stay."""
    *folders, name = stem.split("/")
    kept = list[str]()
    for folder in folders:
        split = split_of(folder)
        if split or not (_MASKS.fullmatch(folder) or _PICTURES.fullmatch(folder)):
            kept.append(split or folder)
    return "/".join([*kept, name])


def _tails(stem: str) -> list[str]:
    """The ends of a path, which a pattern may name."""
    parts = stem.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]
