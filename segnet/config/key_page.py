"""docs/configuration.md, made from the sections: a table of the keys of each."""

from __future__ import annotations

from segnet.config.key_text import Schema, range_text, resolve, yaml_text
from segnet.config.sections import Config

_HEADER = """\
# Configuration

<!-- Written by `segnet show keys > docs/configuration.md`. -->

A configuration is a YAML file. It names the files that it builds on under `base`, and changes some of their values:

```yaml
base:
  - model/segnet.yaml  # an architecture
  - data/camvid.yaml  # a data set
train:
  epochs: 50
```

- Later files of `base` win over earlier ones, and the file's own values win over all.
- Two rules for paths. A path under `base` is relative to the file that names it, so that the files of a folder can be moved
  together. All other paths, such as `data.root`, start in the folder in which the command is given. `~` and `$NAME` are not
  expanded.
- The files of `configs/` and of `configs/model/` also go by their names alone, wherever the command is given:
  `segnet train sample`, or `base: segnet_small`. A file or base file that is called so wins.
- On the command line, `KEY=VALUE` wins over the file: `segnet train configs/sample.yaml train.epochs=5`.
- `segnet show config configs/sample.yaml` prints every key with its value.
- [configs/template.yaml](../configs/template.yaml) holds every key, to copy lines from.
- Unknown keys, wrong types and values out of range are reported together, each with its line. For completion in an editor, write
  `segnet show schema > configs/schema.json`, and begin a configuration with the line
  `# yaml-language-server: $schema=schema.json`.
- Off is 0 for a number, `none` for a choice, `null` for a path. `auto` lets the program choose.
"""


def configuration_page() -> str:
    """The text of docs/configuration.md."""
    schema = Config.model_json_schema()
    parts = [_HEADER]
    single = [(key, field) for key, field in schema["properties"].items() if "$ref" not in field]
    parts.append(_table("General", "", single, required=()))
    for key, field in schema["properties"].items():
        if "$ref" in field:
            parts += _section(f"{key}.", resolve(field, schema), schema)
    return "\n".join(parts)


def _section(prefix: str, section: Schema, schema: Schema) -> list[str]:
    """The table of a section, then those of the sections and list items inside it."""
    fields = list(section["properties"].items())
    own = [(key, field) for key, field in fields if "$ref" not in field]
    parts = [_table(f"`{prefix[:-1]}`", section["description"], own, required=section.get("required", ()))]
    for key, field in fields:
        if "$ref" in field:
            parts += _section(f"{prefix}{key}.", resolve(field, schema), schema)
        elif "$ref" in field.get("items", {}):
            parts += _section(f"{prefix}{key}[].", resolve(field["items"], schema), schema)
    return parts


def _table(title: str, description: str, fields: list[tuple[str, Schema]], *, required: tuple[str, ...] | list[str]) -> str:
    """A heading, a sentence and a row for each key: its name, default, values and meaning."""
    lines = [f"## {title}", ""]
    if description:
        lines += [_one_line(description), ""]
    lines += ["| key | default | values | meaning |", "|---|---|---|---|"]
    for key, field in fields:
        default = "required" if key in required else f"`{yaml_text(field['default'])}`"
        lines.append(f"| `{key}` | {default} | {_cell(range_text(field))} | {_cell(field['description'])} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text as a cell of a table."""
    return _one_line(text).replace("|", "\\|")


def _one_line(text: str) -> str:
    return " ".join(text.split())
