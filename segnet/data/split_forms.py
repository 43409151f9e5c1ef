"""Lists of ids as other programs write them, with columns, folders, suffixes or quotes, and the commands that mend them."""

from __future__ import annotations

import csv
import os
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from segnet.data.images import SUFFIXES
from segnet.data.layout import MASKS, PICTURES

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_QUOTES = "\"'`“”‘’«»"
_LONGEST = 1000  # characters of a line; a longer one is prose
_UNLIKE = "another Unicode form than the file's name, "
_SEVERAL = "several ids in a line"
_SPACING = re.compile(r"[\s,;|]+")
_ORDINARY = re.compile(r"[\w+=@#-]*", re.ASCII)  # a line that matches is a plain id
_HEADER = re.compile(r"\W*(image|file|id|name|path|img|picture|photo|mask|label|split|unnamed|index)", re.IGNORECASE)
_FOLDERS = {PICTURES.lower(), MASKS.lower(), "images", "image", "img", "imgs", "pictures", "photos", "masks", "labels"}

Exists = Callable[[str], bool]  # id -> whether it has a picture


class Reading(NamedTuple):
    """An interpretation of a line as an id and additions to it."""

    id: str
    beside: tuple[str, ...]  # descriptions of the additions
    sure: bool  # False for one of several: 'photo (1)' may be a name, or 'photo' and a column; 'b/1' may be another folder's 1


class Form(NamedTuple):
    """The form of a list whose lines are not plain ids."""

    ids: dict[int, str]  # line number -> the id that it means
    others: frozenset[int]  # numbers of lines of the same form without a picture: the header, or ids of missing pictures
    beside: tuple[str, ...]  # descriptions of the additions to the ids, the most frequent first


def invisible(text: str) -> str:
    """The invisible characters of `text` as "U+200B, U+00A0"; empty when there are none."""
    return ", ".join(dict.fromkeys(f"U+{ord(c):04X}" for c in text if not c.isprintable()))


def without_invisible(text: str) -> str:
    """`text` with every kind of space replaced by a plain one, and without other invisible characters."""
    spaced = "".join(" " if unicodedata.category(c).startswith("Z") or c == "\t" else c for c in text)
    return "".join(c for c in spaced if c.isprintable()).strip()


def find_form(lines: Mapping[int, str], exists: Exists) -> Form | None:
    """The form of the lines (number -> text) that name a picture only when they are not read as plain ids; None without any.

    Readings that are not sure count when more than half of all lines have one.
    """
    odd = {number: line for number, line in lines.items() if not _ORDINARY.fullmatch(line) and not exists(line)}
    readings = {number: reading for number, line in odd.items() if (reading := read_id(line, exists))}
    if 2 * sum(not reading.sure for reading in readings.values()) <= len(lines):
        readings = {number: reading for number, reading in readings.items() if reading.sure}
    if not readings:
        return None
    counts = Counter(addition for reading in readings.values() for addition in reading.beside)
    beside = tuple(addition for addition, _ in counts.most_common())
    others = {number for number in odd.keys() - readings.keys() if _has_additions(lines[number], beside)}
    first = next(iter(lines))
    if first not in readings and _HEADER.match(lines[first]) and not exists(lines[first]):
        others.add(first)
        beside = ("a header", *beside)
    return Form({number: reading.id for number, reading in readings.items()}, frozenset(others), beside)


def _has_additions(line: str, beside: tuple[str, ...]) -> bool:
    """Whether `line` shows one of the additions `beside`."""
    marks = {f"columns between {word}": mark for mark, word in _SEPARATORS.items()}
    marks |= {"columns between spaces": " ", "quotes": '"', "backslashes": "\\"}
    suffix = "a suffix" in beside and os.path.splitext(line)[1].lower() in SUFFIXES
    return suffix or any(marks[what] in line for what in beside if what in marks)


def read_id(line: str, exists: Exists) -> Reading | None:
    """The most likely reading of `line` whose id has a picture; None when there is none."""
    if len(line) > _LONGEST:
        return None
    found = next((found for found in _readings(line) if found.id and found.id.isprintable() and exists(found.id)), None)
    if found and not found.sure and len(_ids_among(_SPACING.split(line), exists)) > 1:
        return Reading(found.id, (_SEVERAL,), sure=False)
    return found


def _ids_among(fields: Sequence[str], exists: Exists) -> set[str]:
    """The ids of different pictures among the fields of a line; the flags -1, 0 and 1 of VOC's lists are not ids."""
    columns = [_ids_of(field) for field in fields if field not in ("-1", "0", "1")]
    found = [next((reading.id for reading in column if reading.id and exists(reading.id)), "") for column in columns]
    return {name for name in found if name}


def _readings(line: str) -> Iterator[Reading]:
    """The readings of a line, the most likely first."""
    whole = list(_ids_of(line))
    yield from (reading for reading in whole if reading.sure)
    for separator, word in _SEPARATORS.items():
        if separator in line:
            for field in next(csv.reader([line.replace("\0", "")], delimiter=separator, skipinitialspace=True), []):
                yield from _in_column(field, word, ("quotes",) if '"' in line else ())
    spaced, hidden = without_invisible(line), _hidden(line)
    for space in list(re.finditer(" +", spaced))[:20]:  # names may have spaces themselves
        yield from _in_column(spaced[: space.start()], "spaces", hidden)
    yield from whole
    for field in spaced.split(" ")[1:20]:
        yield from _in_column(field, "spaces", hidden)


def _hidden(text: str) -> tuple[str, ...]:
    """The description of the invisible characters in `text`, if it has any."""
    found = invisible(text.strip().replace("\t", " "))
    return (f"invisible characters ({found})",) if found else ()


def _in_column(field: str, separators: str, more: tuple[str, ...] = ()) -> Iterator[Reading]:
    """The readings of a field between columns, which are never sure."""
    for reading in _ids_of(field):
        yield Reading(reading.id, (f"columns between {separators}", *more, *reading.beside), sure=False)


def _ids_of(field: str) -> Iterator[Reading]:
    """The readings of a field, the nearest to its text first."""
    text = without_invisible(field)
    beside = [*_hidden(field)]
    if text.strip(_QUOTES + " ,") != text:
        text = text.strip(_QUOTES + " ,")
        beside.append("quotes")
    if "\\" in text:
        text = text.replace("\\", "/")
        beside.append("backslashes")
    parts = text.split("/")
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        folder = ("a folder",) if start else ()
        sure = not start or parts[start - 1].lower() in _FOLDERS
        stem, suffix = os.path.splitext(name)
        candidates: list[tuple[str, tuple[str, ...]]] = [(name, ())]
        if suffix.lower() in SUFFIXES:
            candidates.append((stem.strip(), ("a suffix",)))
        for candidate, more in candidates:
            yield Reading(candidate, (*beside, *folder, *more), sure)
            for form in ("NFC", "NFD"):
                other = unicodedata.normalize(form, candidate)
                if other != candidate:
                    yield Reading(other, (*beside, *folder, *more, f"{_UNLIKE}{form}"), sure)


def mending_command(path: Path, lines: Mapping[int, str], form: Form) -> str:
    """A command that turns the lines of `form` into plain ids; empty when no simple one does so for every line.

    It is a Python program, since sed differs between systems.
    """
    normal = form.beside[0][-3:]
    if form.beside == (f"{_UNLIKE}{normal}",):
        return _command(path, f't = unicodedata.normalize("{normal}", t)')
    if form.beside == (_SEVERAL,):
        plain = all(_ORDINARY.fullmatch(field) for line in lines.values() for field in _SPACING.split(line))
        return _command(path, r't = re.sub(r"[ ,;|\t]+", r"\n", t)') if plain else ""
    steps = list[tuple[str, str]]()
    for what in ("invisible", "quotes", "columns", "backslashes", "a folder", "a suffix"):
        steps += next((_step(found, list(lines.values())) for found in form.beside if found.startswith(what)), [])
    for number, expected in form.ids.items():
        text = lines[number]
        for pattern, replacement in steps:
            text = re.sub(pattern, replacement, text)
        if text.strip() != expected:
            return ""
    header = ['t = t.partition("\\n")[2]'] if "a header" in form.beside and 1 in form.others else []
    replaced = [f't = re.sub(r"(?m){pattern}", "{replacement}", t)' for pattern, replacement in steps]
    return _command(path, *header, *replaced) if header or replaced else ""


def _command(path: Path, *steps: str) -> str:
    """The shell command that applies `steps` to the text `t` of a file; the steps hold no single quote."""
    opened = ["import pathlib, re, sys, unicodedata", "p = pathlib.Path(sys.argv[1])", 't = p.read_text("utf-8-sig")']
    program = "; ".join([*opened, *steps, 'p.write_text(t, "utf-8")'])
    return f"python -c {shlex.quote(program)} {shlex.quote(str(path))}"


def _step(what: str, lines: list[str]) -> list[tuple[str, str]]:
    """(pattern, replacement), each of which removes the addition `what` from a line; in ASCII."""
    if what.startswith("invisible"):
        found = dict.fromkeys(c for line in lines for c in line if not c.isprintable() and c != "\t")
        return [(rf"\U{ord(c):08x}", " " if unicodedata.category(c) == "Zs" else "") for c in found]
    if what.startswith("columns"):
        separator = next((mark for mark, word in _SEPARATORS.items() if what.endswith(word)), "")
        mark = {"": r"[ \t]", "\t": r"\t", "|": "[|]"}.get(separator, separator)
        return [(f"{mark}.*", "")]
    inside = any(PICTURES in line for line in lines)
    return {
        "quotes": [(r"\x22", "")],
        "backslashes": [(r"\\", "/")],
        "a folder": [(f".*{PICTURES}/" if inside else ".*/", "")],
        "a suffix": [(r"\.[A-Za-z]+[^\S\n]*$", "")],
    }.get(what, [])
