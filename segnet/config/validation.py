"""From a tree of values to a checked section: every mistake with its file and line, and the key that was probably meant."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from segnet.config.key_text import range_text, resolve, yaml_text
from segnet.config.renamed import NEW_KEYS
from segnet.config.sections import CLASSES_FILE, Config, EncoderStageConfig, NeckLayerConfig, StageConfig
from segnet.config.yaml_files import Origins, Tree
from segnet.system.errors import UserError, config_error

_SectionType = TypeVar("_SectionType", bound=BaseModel)

_IN_LISTS: dict[str, type[BaseModel]] = {"encoder": EncoderStageConfig, "neck": NeckLayerConfig, "decoder": StageConfig}  # by key


class Source(NamedTuple):
    """Where the values of a tree come from."""

    file: Path
    origins: Origins

    def of(self, path: tuple[str, ...]) -> str:
        """The origin of the value at `path`: of itself, else of the section around it, else of the first key inside it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        inside = (origin for key, origin in self.origins.items() if key[: len(path)] == path)
        return next(inside, str(self.file))


def validate(kind: type[_SectionType], tree: Tree, source: Source, path: tuple[str, ...] = ()) -> _SectionType:
    """`tree`, which stands at `path` in a configuration, as a section. Raises UserError (config) with all its mistakes."""
    try:
        return kind.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        # A list with an invalid item is also reported as too short: the item's own report says more.
        details = [detail for detail in error.errors() if detail["type"] != "too_short" or detail["input"] == []]
        details = [detail for detail in details if not _is_of_another_branch(detail)]
        if any(detail["loc"] == ("data", "root") and detail["type"] != "missing" for detail in details):
            # The classes may stand in that folder.
            details = [detail for detail in details if detail["loc"] != ("data", "classes") or detail["type"] != "missing"]
        first, *others = [_validation_error({**detail, "loc": (*path, *detail["loc"])}, source) for detail in details]
        raise UserError(first.code, first.path, first.found, first.remedy, also=tuple(others)) from None


def _is_of_another_branch(error: ErrorDetails) -> bool:
    """True for an error that does not help, where a key takes a list or, in its place, a word or a number.

    pydantic compares a value with both forms. A list or mapping is not meant as a word or a number, a number not as a list.
    """
    branch = str(error["loc"][-1]) if error["loc"] else ""
    if isinstance(error["input"], list | dict):
        return branch.startswith(("literal[", "constrained-"))
    return type(error["input"]) in (int, float) and branch.startswith("tuple[")


def _known_keys(path: tuple[str, ...]) -> list[str]:
    """The keys of the section at `path`."""
    section: type[BaseModel] = Config
    for part in path:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
        elif part in section.model_fields:
            section = _IN_LISTS.get(part, section)
    return list(section.model_fields)


def unknown_key_error(where: str, key: str, word: str, known: list[str]) -> UserError:
    """The mistake of an unknown `key` in the line `where`, with the nearest of the `known` ones to `word`, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    remedy = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"
    return config_error(where, f"{key}: unknown key", remedy)


def _meant(path: tuple[str, ...]) -> str | None:
    """The key that an unknown one at `path` probably means, with its section where that is another one; None: nothing is near.

    One that is spelled nearly so, or has this name in another section, or is described by these words: learning_rate is lr.
    """
    word, own = path[-1], ".".join(path[:-1])
    near = difflib.get_close_matches(word, _known_keys(path[:-1]), n=1, cutoff=0.65)
    keys = [
        (key if name == own else f"{name}.{key}", key, (field.description or "").lower())
        for name, section in Config.model_fields.items()
        if len(path) <= 2 and isinstance(section.annotation, type) and issubclass(section.annotation, BaseModel)
        for key, field in section.annotation.model_fields.items()
    ]
    above = [word] if path[:-1] and word in Config.model_fields else []
    elsewhere = [*above, *(full for full, key, _ in keys if key == word)]
    described = [(len(text), full) for full, _, text in keys if word.replace("_", " ") in text]  # the shortest is of it alone
    far = difflib.get_close_matches(word, _known_keys(path[:-1]), n=1, cutoff=0.5)
    return next(iter([*near, *elsewhere, *(full for _, full in sorted(described)), *far]), None)


def _list_error(where: str, path: tuple[str, ...], found: object) -> UserError | None:
    """The mistake that `found` is no list, or a list of another length; None where the key at `path` takes other values too."""
    schema = Config.model_json_schema()
    field = schema
    for part in path:
        field = field.get("items", {}) if part.isdecimal() else field.get("properties", {}).get(part, {})
        field = resolve(field, schema) if "$ref" in field else field
    if field.get("type") != "array":
        return None
    length = max(1, field.get("minItems", 1))
    example = [found] * length if isinstance(found, int | float) else field.get("default", [])
    expected = f"should be {range_text(field)}, such as {yaml_text(example)}"
    meaning = (field.get("description") or "").partition(". ")[0].removesuffix(".")
    return config_error(where, f"{'.'.join(path)}: found {yaml_text(found):.100}, {expected}", meaning[:1].lower() + meaning[1:])


def _validation_error(detail: ErrorDetails, source: Source) -> UserError:
    """One mistake that pydantic found, with the file and line of its value."""
    path = tuple(str(part) for part in detail["loc"] if not str(part).startswith(("tuple[", "literal[", "constrained-")))
    where = source.of(path)
    key = ".".join(path)
    if detail["type"] == "extra_forbidden" and path in NEW_KEYS:
        return config_error(where, f"{key}: an earlier name", f"write {'.'.join(NEW_KEYS[path])}")
    if detail["type"] == "extra_forbidden":
        meant = _meant(path)
        remedy = f"did you mean '{meant}'?" if meant else f"known here: {', '.join(_known_keys(path[:-1]))}"
        return config_error(where, f"{key}: unknown key", remedy)
    in_list = detail["type"] == "missing" and path[-1].isdecimal()
    if in_list or detail["type"] in ("tuple_type", "list_type", "too_long"):
        odd = _list_error(where, path[:-1] if in_list else path, detail["input"])
        if odd:
            return odd
    if detail["type"] == "missing" and path == ("data", "classes"):
        return config_error(where, f"{key}: missing", f"give it in this file, or write {CLASSES_FILE} into the data folder")
    if detail["type"] == "missing":
        return config_error(where, f"{key}: missing", "give it in this file or name a base file that does")
    expected = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    if isinstance(detail["input"], dict | list):
        return config_error(where, f"{key}: {expected}" if key else expected)
    is_text = detail["type"] == "string_type" and detail["input"] is not None  # in YAML no is false, and 2024 is a number
    return config_error(where, f"{key}: found {detail['input']!r:.100}, {expected}", "put it in quotes" if is_text else "")
