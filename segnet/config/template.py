"""configs/template.yaml, made from the sections: every key with its meaning, range and default."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import yaml

from segnet.config.sections import Config
from segnet.config.yaml_files import Dumper

_HEADER = """\
# Every key of a configuration: its meaning above it, its default as its value, its range behind it.
# Written by `python scripts/show.py template > configs/template.yaml`.
#
# To use a key, copy its line and the line of its section into your file. Do not name this file as a base file: its values would
# replace those of the base files before it. Lines that are commented out have no default.
# Off is 0 for a number, none for a choice, null for a path; auto and null for a number let the program choose.

# Files whose values this file changes, later ones over earlier ones; their paths are relative to this file.
# base:  # a list of up to 4 texts
#   - model/segnet.yaml
"""
_WIDTH = 120  # columns

_Schema = dict[str, Any]


def config_template() -> str:
    """The text of a configuration file with every key."""
    schema = Config.model_json_schema()
    lines = _HEADER.splitlines()
    for key, field in schema["properties"].items():
        lines.append("")
        if "$ref" in field:
            section = _resolve(field, schema)
            lines += [*_comment(section["description"]), f"{key}:"]
            lines += textwrap.indent("\n".join(_keys(section, schema)), "  ").splitlines()
        else:
            lines += _key(key, field, schema, required=False)
    return "\n".join(lines) + "\n"


def _keys(section: _Schema, schema: _Schema) -> list[str]:
    """The lines of all keys of a section, without indentation."""
    lines: list[str] = []
    for key, field in section["properties"].items():
        lines += _key(key, field, schema, required=key in section.get("required", ()))
    return lines


def _key(key: str, field: _Schema, schema: _Schema, *, required: bool) -> list[str]:
    """The lines of one key: its meaning, then its default and range. A required key is commented out."""
    if "$ref" in field:  # a section inside a section
        section = _resolve(field, schema)
        inside = textwrap.indent("\n".join(_keys(section, schema)), "  ").splitlines()
        return [*_comment(str(field.get("description") or section["description"])), f"{key}:", *inside]
    meaning = _comment(field["description"])
    items = field.get("items", {})
    line = f"# {key}:  # required; {_range(field)}" if required else f"{key}: {_yaml(field['default'])}  # {_range(field)}"
    value = [line]
    if "$ref" in items:
        value += _list_item(_resolve(items, schema), schema)
    return [*meaning, *value]


def _list_item(section: _Schema, schema: _Schema) -> list[str]:
    """The keys of one item of a list of sections, commented out."""
    lines: list[str] = []
    for key, field in section["properties"].items():
        required = key in section.get("required", ())
        default = "required" if required else f"default {_yaml(field['default'])}"
        meaning = " ".join(field["description"].split())
        lines += [*_comment(meaning, "#     # "), f"#   {'-' if not lines else ' '} {key}:  # {default}; {_range(field)}"]
    return lines


def _resolve(field: _Schema, schema: _Schema) -> _Schema:
    """The section that a field refers to."""
    section: _Schema = schema["$defs"][field["$ref"].removeprefix("#/$defs/")]
    return section


def _comment(text: str, prefix: str = "# ") -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _WIDTH, initial_indent=prefix, subsequent_indent=prefix)


def _yaml(value: object) -> str:
    """`value` as YAML on one line."""
    return yaml.dump([value], Dumper=Dumper, default_flow_style=True, width=math.inf).strip()[1:-1]


def _range(field: _Schema) -> str:
    """The values that a field takes, in words."""
    if "anyOf" in field:
        return " or ".join(map(_range, field["anyOf"]))
    if "enum" in field:
        *others, last = map(_yaml, field["enum"])
        return f"{', '.join(others)} or {last}"
    if field.get("type") == "array":
        return _list_range(field)
    if field.get("type") == "object":
        return f"for each name {_range(field['additionalProperties'])}"
    if field.get("type") in ("integer", "number"):
        kind = "a whole number" if field["type"] == "integer" else "a number"
        return f"{kind}{_bounds(field)}"
    return {"boolean": "true or false", "string": "text", "null": "null"}[field["type"]]


def _list_range(field: _Schema) -> str:
    """The lengths and items that a list may have, in words."""
    items = field["prefixItems"][0] if "prefixItems" in field else field["items"]
    least = field.get("minItems", 0)
    most = field.get("maxItems")
    length = "" if most is None else f" of {most}" if least == most else f" of {least} to {most}"
    return f"a list{length}" + (", each with these keys" if "$ref" in items else f", each {_range(items)}")


def _bounds(field: _Schema) -> str:
    """The bounds of a number in words, with a space before them; empty without bounds."""
    low = f" from {field['minimum']}" if "minimum" in field else ""
    if "exclusiveMinimum" in field:
        low = f" above {field['exclusiveMinimum']}"
    high = f" to {field['maximum']}" if "maximum" in field else ""
    if "exclusiveMaximum" in field:
        high = f" to below {field['exclusiveMaximum']}"
    return low + high
