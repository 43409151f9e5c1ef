"""YAML files as trees of plain values, read with suspicion: each key knows its line, files may name base files.

Aliases, tags, repeated keys, deep nesting and large files are refused: a configuration needs none of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from segnet.errors import ExitCode, UserError

_MAX_BYTES, _MAX_DEPTH, _MAX_EVENTS, _MAX_BASES = 1_000_000, 20, 20_000, 4

Value = dict[str, "Value"] | list["Value"] | str | int | float | bool | None  # what a YAML file may hold
Tree = dict[str, Value]
Origins = dict[tuple[str, ...], str]  # key path -> "file, line n"


class _Loader(yaml.SafeLoader):
    """SafeLoader in which 1e-3 is a number and a date is a string."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$|[-+]?(\d[\d_]*\.\d*|\.\d+)$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"),
    list("-+.0123456789"),
)


class Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text which `_Loader` would take for something else, such as 1e3."""


Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
_SCALARS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null"))


def refuse(where: Path | str, found: str, remedy: str = "") -> UserError:
    """The error (config) for a mistake at `where`."""
    return UserError(ExitCode.CONFIG, where, found, remedy)


def parse_yaml(text: str, where: Path | str) -> tuple[Value, Origins]:
    """The plain values of a YAML text and the line of each key. Aliases, tags and repeated keys are refused."""
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                line = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
                raise refuse(where, f"{line}alias *{event.anchor}", "write the value out")
            if depth > _MAX_DEPTH or count > _MAX_EVENTS:
                raise refuse(where, f"more than {_MAX_DEPTH} levels or {_MAX_EVENTS} entries", "a configuration is small")
        origins: Origins = {}
        node = yaml.compose(text, Loader=_Loader)
        return (None if node is None else _plain(node, where, (), origins)), origins
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise refuse(where, f"{line}not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise refuse(where, f"not YAML: {str(error).splitlines()[0]}") from None


def _plain(node: yaml.Node, where: Path | str, path: tuple[str, ...], origins: Origins) -> Value:
    line = f"line {node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
        _check_text(node, where)
        return _Loader("").construct_object(node)
    if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
        return [_plain(item, where, (*path, str(i)), origins) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode) or not node.tag.endswith(":map"):
        raise refuse(where, f"{line}: tag {node.tag}", "write plain values")
    mapping: Tree = {}
    for key_node, value_node in node.value:
        line = f"line {key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise refuse(where, f"{line}: a key that is not a word", "write KEY: VALUE")
        _check_text(key_node, where)
        key = key_node.value
        if key in mapping:
            raise refuse(where, f"{line}: key '{key}' a second time", "keep one of them")
        origins[(*path, key)] = f"{where}, {line}"
        mapping[key] = _plain(value_node, where, (*path, key), origins)
    return mapping


def _check_text(node: yaml.ScalarNode, where: Path | str) -> None:
    """Refuse what an escape such as "\\0" can make and no name can hold: NUL and half of a surrogate pair."""
    if re.search("[\0\ud800-\udfff]", node.value):
        raise refuse(where, f"line {node.start_mark.line + 1}: a character that no name can hold", "write plain text")


def read_tree(path: Path, origins: Origins, children: tuple[Path, ...] = ()) -> Tree:
    """The tree of a file merged over those of its `base` files."""
    tree, own_origins = read_mapping(path, children)
    bases = tree.pop("base", [])
    merged: Tree = {}
    bases = bases if isinstance(bases, list) else [bases]
    if len(bases) > _MAX_BASES:
        raise refuse(path, f"{len(bases)} base files", f"name {_MAX_BASES} at most")
    for base in bases:
        if not isinstance(base, str):
            raise refuse(path, f"base: {base!r} is not a file name", "list file names relative to this file")
        merged = merge(merged, read_tree(path.parent / base, origins, (*children, path.resolve())))
    origins.update(own_origins)
    return merge(merged, tree)


def read_mapping(path: Path, children: tuple[Path, ...] = ()) -> tuple[Tree, Origins]:
    """The tree of one file and the line of each key; `children` are the files that name it as their base."""
    remedy = "name a YAML file, e.g. configs/sample.yaml"
    try:
        if not path.is_file():  # a pipe or a device might never end
            raise refuse(path, "not a file" if path.exists() else "no such file", remedy)
        resolved = path.resolve()
        if resolved in children or len(children) > _MAX_BASES:
            found = "is its own base file" if resolved in children else f"more than {_MAX_BASES} levels of base files"
            raise refuse(path, found, "break the circle of 'base' entries")
        if path.stat().st_size > _MAX_BYTES:
            raise refuse(path, f"larger than {_MAX_BYTES:,} bytes", "a configuration is small")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(path, f"byte {error.start} is not UTF-8", "save the file as UTF-8") from None
    except OSError as error:
        raise refuse(path, (error.strerror or "cannot be read").lower(), remedy) from None
    tree, own_origins = parse_yaml(text, path)
    if not isinstance(tree, dict):
        raise refuse(path, "not a mapping of sections", "write 'train:' and its keys below it")
    return tree, own_origins


def merge(below: Tree, above: Tree) -> Tree:
    """`above` over `below`: mappings key by key, everything else replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def refuse_undecodable(text: str, where: Path | str) -> None:
    """Refuse a name from the command line whose bytes are not UTF-8: no YAML and no checkpoint could hold it."""
    if re.search("[\udc80-\udcff]", text):
        remedy = "rename it, or work in the folder that is called so and give a path relative to it"
        raise refuse(where, "a name that is not UTF-8", remedy)


def override_tree(override: str, origins: Origins) -> Tree:
    """'train.epochs=5' -> {'train': {'epochs': 5}}; what it sets is noted in `origins`."""
    key, separator, text = override.partition("=")
    parts = tuple(key.strip().split("."))
    if not separator or not all(parts) or len(parts) > _MAX_DEPTH:
        raise refuse(override, "not KEY=VALUE", "write e.g. train.epochs=5")
    refuse_undecodable(text, override)
    value, keys_inside = parse_yaml(text, override)
    origins.update({(*parts, *path): override for path in [(), *keys_inside]})
    for part in reversed(parts):
        value = {part: value}
    assert isinstance(value, dict)
    return value
