"""A key of a configuration in words: its range and its default, from the JSON schema of the sections."""

from __future__ import annotations

import math
from typing import Any

import yaml

from segnet.config.yaml_files import Dumper

Schema = dict[str, Any]


def resolve(field: Schema, schema: Schema) -> Schema:
    """The section that a field refers to."""
    section: Schema = schema["$defs"][field["$ref"].removeprefix("#/$defs/")]
    return section


def yaml_text(value: object) -> str:
    """`value` as YAML on one line."""
    return yaml.dump([value], Dumper=Dumper, default_flow_style=True, width=math.inf).strip()[1:-1]


def range_text(field: Schema) -> str:
    """The values that a field takes, in words."""
    if "anyOf" in field:
        return " or ".join(map(range_text, field["anyOf"]))
    if "enum" in field:
        *others, last = map(yaml_text, field["enum"])
        return f"{', '.join(others)} or {last}"
    if field.get("type") == "array":
        return _list_range(field)
    if field.get("type") == "object":
        return f"for each name {range_text(field['additionalProperties'])}"
    if field.get("type") in ("integer", "number"):
        kind = "a whole number" if field["type"] == "integer" else "a number"
        return f"{kind}{_bounds(field)}"
    return {"boolean": "true or false", "string": "text", "null": "null"}[field["type"]]


def _list_range(field: Schema) -> str:
    """The lengths and items that a list may have, in words."""
    items = field["prefixItems"][0] if "prefixItems" in field else field["items"]
    least = field.get("minItems", 0)
    most = field.get("maxItems")
    length = "" if most is None else f" of {most}" if least == most else f" of {least} to {most}"
    return f"a list{length}" + (", each with these keys" if "$ref" in items else f", each {range_text(items)}")


def _bounds(field: Schema) -> str:
    """The bounds of a number in words, with a space before them; empty without bounds."""
    low = f" from {field['minimum']}" if "minimum" in field else ""
    if "exclusiveMinimum" in field:
        low = f" above {field['exclusiveMinimum']}"
    high = f" to {field['maximum']}" if "maximum" in field else ""
    if "exclusiveMaximum" in field:
        high = f" to below {field['exclusiveMaximum']}"
    return low + high
