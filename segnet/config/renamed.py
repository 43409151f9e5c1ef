"""Keys with other names in earlier versions. Files that use one are refused with its new name; stored configurations are read."""

from __future__ import annotations

import copy

from segnet.config.yaml_files import Tree, Value

NEW_KEYS = {
    ("train", "memory"): ("train", "recompute"),
    ("train", "log_every"): ("train", "log_every_steps"),
    ("train", "eval_every"): ("train", "eval_every_epochs"),
    ("train", "save_every"): ("train", "save_every_epochs"),
    ("augment", "sizes"): ("augment", "shrink"),
    ("data", "ignore_id"): ("data", "ignore_index"),
}
_NEW_VALUES: dict[tuple[str, str], dict[str | bool, Value]] = {
    ("train", "recompute"): {"plain": "nothing", "lean": "activations", "checkpoint": "stages"},
    ("inference", "flip"): {False: "none", True: "horizontal"},
}


def upgrade(tree: Tree) -> Tree:
    """A copy of a stored configuration of this or an earlier version, with the keys of this version.

    The earlier key `loss.hardest` is dropped where it is 1, every pixel, as the loss now computes; another value stays and is
    refused.
    """
    tree = copy.deepcopy(tree)
    for (section, old_key), (_, key) in NEW_KEYS.items():
        values = tree.get(section)
        if isinstance(values, dict) and old_key in values:
            values[key] = values.pop(old_key)
    for (section, key), known in _NEW_VALUES.items():
        values = tree.get(section)
        if isinstance(values, dict) and isinstance(value := values.get(key), str | bool):
            values[key] = known.get(value, value)
    loss = tree.get("loss")
    if isinstance(loss, dict) and loss.get("hardest") == 1:
        del loss["hardest"]
    return tree
