"""YAML files read as trees of plain values, with the line of each key; files may name base files, overrides set single keys.

Aliases, tags, repeated keys, deep nesting and large files are refused: a configuration needs none of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from segnet.config.named import find_config
from segnet.system.errors import config_error, first_line

_MAX_BYTES = 1_000_000
_MAX_DEPTH = 20
_MAX_EVENTS = 20_000
_MAX_BASES = 4  # base files that one file names, and levels of base files

Value = dict[str, "Value"] | list["Value"] | str | int | float | bool | None  # what a YAML file may hold
Tree = dict[str, Value]
Origins = dict[tuple[str, ...], str]  # from the path of a key to "FILE, line N", or to the override that sets it

_FLOAT = re.compile(
    r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$|[-+]?(\d[\d_]*\.\d*|\.\d+)$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_FLOAT_STARTS = "-+.0123456789"


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's patterns of untagged scalars by first character, with `_FLOAT` for floats and without dates."""
    resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":float", ":timestamp"))]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for first in _FLOAT_STARTS:
        resolvers.setdefault(first, []).append(("tag:yaml.org,2002:float", _FLOAT))
    return resolvers


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number and a date as text."""

    yaml_implicit_resolvers = _resolvers()


class Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text, such as 1e3, that `_Loader` would read as a number."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


_SCALARS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null"))


def parse_yaml(text: str, where: Path | str) -> tuple[Value, Origins]:
    """The plain values of a YAML text, and the line of each key. `where` is the file or override, for error messages.

    Raises UserError (config) for what is not YAML, and for aliases, tags and repeated keys.
    """
    try:
        _require_small(text, where)
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return None, {}
        return _plain(node, where), _origins(node, where)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise config_error(where, f"{line}not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise config_error(where, f"not YAML: {first_line(error)}") from None


def _require_small(text: str, where: Path | str) -> None:
    """Raises UserError (config) for aliases and for too much nesting, before any value is built."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            line = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
            raise config_error(where, f"{line}alias *{event.anchor}", "write the value out")
        if depth > _MAX_DEPTH or count > _MAX_EVENTS:
            raise config_error(where, f"more than {_MAX_DEPTH} levels or {_MAX_EVENTS} entries", "keep it within this limit")


def _plain(node: yaml.Node, where: Path | str) -> Value:
    """The value of a node. Raises UserError (config) for tags, repeated keys and keys that are no scalars."""
    if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
        _require_printable(node, where)
        return _Loader("").construct_object(node)
    if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
        return [_plain(item, where) for item in node.value]
    if not isinstance(node, yaml.MappingNode) or not node.tag.endswith(":map"):
        raise config_error(where, f"{_line(node)}: tag {node.tag}", "write plain values")
    mapping: Tree = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise config_error(where, f"{_line(key_node)}: a key that is not a word", "write KEY: VALUE")
        _require_printable(key_node, where)
        key = key_node.value
        if key in mapping:
            raise config_error(where, f"{_line(key_node)}: key '{key}' a second time", "keep one of them")
        mapping[key] = _plain(value_node, where)
    return mapping


def _origins(node: yaml.Node, where: Path | str, path: tuple[str, ...] = ()) -> Origins:
    """The lines of all keys in a node that `_plain` accepts; `path` leads to the node."""
    origins: Origins = {}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            origins |= _origins(item, where, (*path, str(index)))
    elif isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            inside = (*path, key_node.value)
            origins[inside] = f"{where}, {_line(key_node)}"
            origins |= _origins(value_node, where, inside)
    return origins


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def _require_printable(node: yaml.ScalarNode, where: Path | str) -> None:
    """Raises UserError (config) for NUL and for half of a surrogate pair, which an escape such as "\\0" can write."""
    if re.search("[\0\ud800-\udfff]", node.value):
        raise config_error(where, f"{_line(node)}: a character that no name can hold", "write plain text")


def read_tree(path: Path, children: tuple[Path, ...] = ()) -> tuple[Tree, Origins]:
    """The tree of a file over those of its `base` files, later ones over earlier ones; and the origin of each key.

    `children` are the files that lead to this one as their base. Raises UserError (config).
    """
    own, own_origins = read_mapping(path, children)
    bases = own.pop("base", [])
    bases = bases if isinstance(bases, list) else [bases]
    if len(bases) > _MAX_BASES:
        raise config_error(path, f"{len(bases)} base files", f"name {_MAX_BASES} at most")
    tree: Tree = {}
    origins: Origins = {}
    for base in bases:
        if not isinstance(base, str):
            raise config_error(path, f"base: {base!r} is not a file name", "list file names relative to this file")
        below_path = find_config(base, path.parent)
        if not os.path.lexists(below_path):
            remedy = "a base file is named relative to the file that names it, or by its name alone, e.g. segnet_small"
            raise config_error(below_path, f"no such file, a base of {path}", remedy)
        below, below_origins = read_tree(below_path, (*children, path.resolve()))
        tree = merge(tree, below)
        origins |= below_origins
    return merge(tree, own), origins | own_origins


def read_mapping(path: Path, children: tuple[Path, ...] = ()) -> tuple[Tree, Origins]:
    """The tree of one file without its base files, and the line of each key; `children` as in `read_tree`.

    Raises UserError (config).
    """
    remedy = "name a YAML file, or a configuration of the program, e.g. sample"
    try:
        if not path.is_file():  # a pipe or a device might never end
            raise config_error(path, "not a file" if path.exists() else "no such file", remedy)
        resolved = path.resolve()
        if resolved in children or len(children) > _MAX_BASES:
            found = "is its own base file" if resolved in children else f"more than {_MAX_BASES} levels of base files"
            raise config_error(path, found, "break the circle of 'base' entries")
        if path.stat().st_size > _MAX_BYTES:
            raise config_error(path, f"larger than {_MAX_BYTES:,} bytes", "keep it within this limit")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise config_error(path, f"byte {error.start} is not UTF-8", "save the file as UTF-8") from None
    except OSError as error:
        raise config_error(path, (error.strerror or "cannot be read").lower(), remedy) from None
    tree, origins = parse_yaml(text, path)
    if not isinstance(tree, dict):
        raise config_error(path, "not a mapping of sections", "write 'train:' and its keys below it")
    return tree, origins


def merge(below: Tree, above: Tree) -> Tree:
    """`above` over `below`: mappings are merged key by key, every other value is replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def require_utf8(text: str, where: Path | str) -> None:
    """Raises UserError (config) for a text from the command line with bytes that are not UTF-8: no YAML file could hold it."""
    if re.search("[\udc80-\udcff]", text):
        remedy = "rename it, or work in the folder that is called so and give a path relative to it"
        raise config_error(where, "a name that is not UTF-8", remedy)


def override_tree(tree: Tree, overrides: Sequence[str]) -> tuple[Tree, Origins]:
    """`tree` with the values of overrides such as "train.epochs=5", in their order; and the override that sets each key.

    Raises UserError (config) for an override that is not KEY=VALUE.
    """
    origins: Origins = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        path = tuple(key.strip().split("."))
        if not separator or not all(path) or len(path) > _MAX_DEPTH:
            raise config_error(override, "not KEY=VALUE", "write e.g. train.epochs=5")
        require_utf8(text, override)
        value, keys_inside = parse_yaml(text, override)
        for part in reversed(path):
            value = {part: value}
        assert isinstance(value, dict)
        tree = merge(tree, value)
        origins |= {(*path, *inside): override for inside in [(), *keys_inside]}
    return tree, origins
