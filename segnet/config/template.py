"""configs/template.yaml, made from the sections: every key with its meaning, range and default."""

from __future__ import annotations

import textwrap

from segnet.config.key_text import Schema, range_text, resolve, yaml_text
from segnet.config.sections import Config

_HEADER = """\
# Every key of a configuration: its meaning above it, its default as its value, its range behind it.
# Written by `segnet show template > configs/template.yaml`.
#
# To use a key, copy its line and the line of its section into your file. Do not name this file as a base file: its values would
# replace those of the base files before it. Lines that are commented out have no default.
# Off is 0 for a number, none for a choice, null for a path; auto and null for a number let the program choose.

# Files whose values this file changes, later ones over earlier ones; their paths are relative to this file.
# base:  # a list of up to 4 texts
#   - model/segnet.yaml
"""
_WIDTH = 120  # columns


def config_template() -> str:
    """The text of a configuration file with every key."""
    schema = Config.model_json_schema()
    lines = _HEADER.splitlines()
    for key, field in schema["properties"].items():
        lines.append("")
        if "$ref" in field:
            section = resolve(field, schema)
            lines += [*_comment(section["description"]), f"{key}:"]
            lines += textwrap.indent("\n".join(_keys(section, schema)), "  ").splitlines()
        else:
            lines += _key(key, field, schema, required=False)
    return "\n".join(lines) + "\n"


def _keys(section: Schema, schema: Schema) -> list[str]:
    """The lines of all keys of a section, without indentation."""
    lines: list[str] = []
    for key, field in section["properties"].items():
        lines += _key(key, field, schema, required=key in section.get("required", ()))
    return lines


def _key(key: str, field: Schema, schema: Schema, *, required: bool) -> list[str]:
    """The lines of one key: its meaning, then its default and range. A required key is commented out."""
    if "$ref" in field:  # a section inside a section
        section = resolve(field, schema)
        inside = textwrap.indent("\n".join(_keys(section, schema)), "  ").splitlines()
        return [*_comment(str(field.get("description") or section["description"])), f"{key}:", *inside]
    meaning = _comment(field["description"])
    items = field.get("items", {})
    line = (
        f"# {key}:  # required; {range_text(field)}"
        if required
        else f"{key}: {yaml_text(field['default'])}  # {range_text(field)}"
    )
    value = [line]
    if "$ref" in items:
        value += _list_item(resolve(items, schema), schema)
    return [*meaning, *value]


def _list_item(section: Schema, schema: Schema) -> list[str]:
    """The keys of one item of a list of sections, commented out."""
    lines: list[str] = []
    for key, field in section["properties"].items():
        required = key in section.get("required", ())
        default = "required" if required else f"default {yaml_text(field['default'])}"
        meaning = " ".join(field["description"].split())
        lines += [*_comment(meaning, "#     # "), f"#   {'-' if not lines else ' '} {key}:  # {default}; {range_text(field)}"]
    return lines


def _comment(text: str, prefix: str = "# ") -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _WIDTH, initial_indent=prefix, subsequent_indent=prefix)
