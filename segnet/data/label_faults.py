"""Splits whose masks give a network nothing to learn or a score nothing to measure."""

from __future__ import annotations

from pathlib import Path

from segnet.classes import IGNORE_INDEX, ClassSet
from segnet.data.layout import mask_path, split_path
from segnet.data.remedies import convert_command
from segnet.system.errors import UserError, data_error


def label_faults(root: Path, split: str, seen: set[int], classes: ClassSet, train: str) -> list[UserError]:
    """The fault of a split by the set `seen` of all values in its masks. `train` is the name of the split to learn from.

    The faults: no scored pixel; nothing but 0 and the ignored id, which usually means that the ignored id stands for
    class 1, since the masks of a whole split without any object have no borders either; a single class in `train`.
    """
    path = split_path(root, split)
    ignore = classes.ignore_index
    scored = seen - {IGNORE_INDEX}
    if seen == {IGNORE_INDEX}:
        return [data_error(path, f"its masks are {ignore} everywhere, which is not scored", "label the pictures")]
    if seen == {0, IGNORE_INDEX}:
        found = f"its masks hold only 0 and {ignore}, and {ignore} is not scored"
        remedy = f"if {ignore} means class 1: {convert_command(mask_path(root, 'ID'))} --map {ignore}=1"
        return [data_error(path, found, remedy)]
    if split == train and len(scored) == 1:
        found = f"its masks show nothing but '{classes.names[scored.pop()]}', which a network learns to answer everywhere"
        return [data_error(path, found, "list pictures that show other classes too, or label them")]
    return []


def label_warnings(root: Path, split: str, seen: set[int], classes: ClassSet, train: str, learnt: set[int]) -> list[UserError]:
    """Warnings about the score on a split: a single class in it, and classes that the split `train` does not show.

    `seen` is the set of all values in the masks of the split, `learnt` that of the masks of `train`; empty: not known.
    """
    path = split_path(root, split)
    scored = sorted(seen - {IGNORE_INDEX})
    warnings = list[UserError]()
    if split != train and len(scored) == 1:
        found = f"its masks show nothing but '{classes.names[scored[0]]}': a network that answers it everywhere scores 100"
        warnings.append(data_error(path, found, "list pictures that show other classes too"))
    unknown = [classes.names[k] for k in scored if learnt and k not in learnt]
    if unknown:
        found = f"its masks show {', '.join(unknown)}, and none of {train} does: no network can learn that"
        warnings.append(data_error(path, found, f"list pictures in {train} that show it"))
    return warnings
