"""Lists of ids as other programs write them – with columns, folders, suffixes, quotes – and what mends them."""

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

from segnet.images import SUFFIXES

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_QUOTES = "\"'`“”‘’«»"
_LONGEST = 1000  # characters; a longer line is prose
_UNLIKE = "another Unicode form than the file's name, "
_SEVERAL = "several ids in a line"
_SPACING = re.compile(r"[\s,;|]+")
_ORDINARY = re.compile(r"[\w+=@#-]*", re.ASCII)  # such a line holds nothing but an id
_HEADER = re.compile(r"\W*(image|file|id|name|path|img|picture|photo|mask|label|split|unnamed|index)", re.IGNORECASE)
_FOLDERS = {"jpegimages", "segmentationclass", "images", "image", "img", "imgs", "pictures", "photos", "masks", "labels"}

Exists = Callable[[str], bool]  # whether there is a picture of this id


class Reading(NamedTuple):
    """The id that a line may mean, and what stands there beside it."""

    id: str
    beside: tuple[str, ...]
    sure: bool  # otherwise 'photo (1)' may be a name as well as 'photo' and a column, 'b/1' the picture 1 of another folder


class Form(NamedTuple):
    """How a list is written that does not hold plain ids."""

    ids: dict[int, str]  # line -> the id that it means
    others: frozenset[int]  # lines that are written so, too, without a picture: the header, or what is missing
    beside: tuple[str, ...]


def invisible(text: str) -> str:
    """The characters of `text` that nobody sees, as "U+200B, U+00A0"; empty when there are none."""
    return ", ".join(dict.fromkeys(f"U+{ord(c):04X}" for c in text if not c.isprintable()))


def without_invisible(text: str) -> str:
    """`text` with plain spaces for other ones, and without what has no width."""
    spaced = "".join(" " if unicodedata.category(c).startswith("Z") or c == "\t" else c for c in text)
    return "".join(c for c in spaced if c.isprintable()).strip()


def find_form(lines: Mapping[int, str], exists: Exists) -> Form | None:
    """How the lines of a list (number -> text) are written whose pictures a plain reading does not find and another does.

    A reading that is not sure counts where it holds for more than half of the list.
    """
    odd = {number: line for number, line in lines.items() if not _ORDINARY.fullmatch(line) and not exists(line)}
    readings = {number: reading for number, line in odd.items() if (reading := read_id(line, exists))}
    if 2 * sum(not reading.sure for reading in readings.values()) <= len(lines):
        readings = {number: reading for number, reading in readings.items() if reading.sure}
    if not readings:
        return None
    beside = tuple(what for what, _ in Counter(what for reading in readings.values() for what in reading.beside).most_common())
    others = {number for number in odd.keys() - readings.keys() if _is_written_so(lines[number], beside)}
    first = next(iter(lines))
    if first not in readings and _HEADER.match(lines[first]) and not exists(lines[first]):
        others.add(first)
        beside = ("a header", *beside)
    return Form({number: reading.id for number, reading in readings.items()}, frozenset(others), beside)


def _is_written_so(line: str, beside: tuple[str, ...]) -> bool:
    marks = {f"columns between {word}": mark for mark, word in _SEPARATORS.items()}
    marks |= {"columns between spaces": " ", "quotes": '"', "backslashes": "\\"}
    suffix = "a suffix" in beside and os.path.splitext(line)[1].lower() in SUFFIXES
    return suffix or any(marks[what] in line for what in beside if what in marks)


def read_id(line: str, exists: Exists) -> Reading | None:
    """The first id with a picture that `line` may mean, in the order of likelihood; None when it means none."""
    if len(line) > _LONGEST:
        return None
    found = next((found for found in _readings(line) if found.id and found.id.isprintable() and exists(found.id)), None)
    if found and not found.sure and len(_ids_among(_SPACING.split(line), exists)) > 1:
        return Reading(found.id, (_SEVERAL,), sure=False)
    return found


def _ids_among(fields: Sequence[str], exists: Exists) -> set[str]:
    """The ids of different pictures that a line names; a flag of VOC's lists is none."""
    columns = [_ids_of(field) for field in fields if field not in ("-1", "0", "1")]
    found = [next((reading.id for reading in column if reading.id and exists(reading.id)), "") for column in columns]
    return {name for name in found if name}


def _readings(line: str) -> Iterator[Reading]:
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
    found = invisible(text.strip().replace("\t", " "))
    return (f"invisible characters ({found})",) if found else ()


def _in_column(field: str, separators: str, more: tuple[str, ...] = ()) -> Iterator[Reading]:
    for reading in _ids_of(field):
        yield Reading(reading.id, (f"columns between {separators}", *more, *reading.beside), sure=False)


def _ids_of(field: str) -> Iterator[Reading]:
    """The ids that a field may mean, the nearest to its text first."""
    text, beside = without_invisible(field), [*_hidden(field)]
    if text.strip(_QUOTES + " ,") != text:
        text = text.strip(_QUOTES + " ,")
        beside.append("quotes")
    if "\\" in text:
        text = text.replace("\\", "/")
        beside.append("backslashes")
    parts = text.split("/")
    for start in range(len(parts)):
        name, folder = "/".join(parts[start:]), ("a folder",) if start else ()
        sure = not start or parts[start - 1].lower() in _FOLDERS
        stem, suffix = os.path.splitext(name)
        for candidate, more in ((name, ()), (stem.strip(), ("a suffix",))) if suffix.lower() in SUFFIXES else ((name, ()),):
            yield Reading(candidate, (*beside, *folder, *more), sure)
            for form in ("NFC", "NFD"):
                other = unicodedata.normalize(form, candidate)
                if other != candidate:
                    yield Reading(other, (*beside, *folder, *more, f"{_UNLIKE}{form}"), sure)


def mending_command(path: Path, lines: Mapping[int, str], form: Form) -> str:
    """The command that makes `form`'s lines plain ids; empty where there is no simple one. It was tried on each line.

    In Python, since sed differs from one system to the next.
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
    """What a shell runs to change the text `t` of a file; `steps` hold no single quote."""
    opened = ["import pathlib, re, sys, unicodedata", "p = pathlib.Path(sys.argv[1])", 't = p.read_text("utf-8-sig")']
    program = "; ".join([*opened, *steps, 'p.write_text(t, "utf-8")'])
    return f"python -c {shlex.quote(program)} {shlex.quote(str(path))}"


def _step(what: str, lines: list[str]) -> list[tuple[str, str]]:
    """The patterns in a line, and their replacements, of what removes one thing that stands beside ids; in ASCII."""
    if what.startswith("invisible"):
        found = dict.fromkeys(c for line in lines for c in line if not c.isprintable() and c != "\t")
        return [(rf"\U{ord(c):08x}", " " if unicodedata.category(c) == "Zs" else "") for c in found]
    if what.startswith("columns"):
        separator = next((mark for mark, word in _SEPARATORS.items() if what.endswith(word)), "")
        mark = {"": r"[ \t]", "\t": r"\t", "|": "[|]"}.get(separator, separator)
        return [(f"{mark}.*", "")]
    inside = any("JPEGImages" in line for line in lines)
    return {
        "quotes": [(r"\x22", "")],
        "backslashes": [(r"\\", "/")],
        "a folder": [(".*JPEGImages/" if inside else ".*/", "")],
        "a suffix": [(r"\.[A-Za-z]+[^\S\n]*$", "")],
    }.get(what, [])
