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
_NEW_VALUES: dict[tuple[str, str], dict[Value, Value]] = {
    ("train", "recompute"): {"plain": "nothing", "lean": "activations", "checkpoint": "stages"}
}


def upgrade(tree: Tree) -> Tree:
    """A copy of a stored configuration of this or an earlier version, with the keys of this version.

    The earlier key `loss.hardest` is dropped where it is 1, every pixel, as the loss now computes; another value stays and is
    refused.
    """
    tree = copy.deepcopy(tree)
    for (old_section, old_key), (section, key) in NEW_KEYS.items():
        values = tree.get(old_section)
        if isinstance(values, dict) and old_key in values:
            value = values.pop(old_key)
            known = _NEW_VALUES.get((section, key), {})
            values[key] = known.get(value, value) if isinstance(value, str) else value
    loss = tree.get("loss")
    if isinstance(loss, dict) and loss.get("hardest") == 1:
        del loss["hardest"]
    return tree
