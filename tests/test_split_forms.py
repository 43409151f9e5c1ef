"""Lists as VOC, PaddleSeg, spreadsheets and Windows write them: one line says what they hold, and a command that mends them."""

from __future__ import annotations

import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import refused, tiny_mask, write_pair, write_split

from segnet.classes import ClassSet
from segnet.datasets import SegmentationDataset, parse_split, split_path
from segnet.errors import ExitCode

NAMES = [f"train_{index}" for index in range(6)]

FORMS: dict[str, tuple[Callable[[str], str], str]] = {  # how a line is written, and what the message says
    "VOC's lists of a class": ("{0}  1".format, "columns between spaces"),
    "VOC's absent class": ("{0} -1".format, "columns between spaces"),
    "tab": ("{0}\t0".format, "columns between tabs"),
    "pairs": ("JPEGImages/{0}.jpg SegmentationClass/{0}.png".format, "columns between spaces, a folder, a suffix"),
    "CSV": ("{0},{0}".format, "columns between commas"),
    "CSV of paths": ("images/{0}.JPG;masks/{0}.png".format, "columns between semicolons, a folder, a suffix"),
    "quoted CSV": ('"{0}","{0}"'.format, "columns between commas, quotes"),
    "quoted paths": ('"images/{0}.png", 1'.format, "columns between commas, quotes, a folder, a suffix"),
    "Windows": ("JPEGImages\\{0}.jpg".format, "backslashes, a folder, a suffix"),
    "Windows, whole path": ("C:\\My data\\JPEGImages\\{0}.jpg".format, "backslashes, a folder, a suffix"),
    "whole path": ("/home/me/set/JPEGImages/{0}.jpg".format, "a folder, a suffix"),
    "masks": ("SegmentationClass/{0}.png".format, "a folder, a suffix"),
    "suffix": ("{0}.jpg".format, "a suffix"),
    "quoted": ('"{0}"'.format, "quotes"),
    "JSON": ('"{0}",'.format, "quotes"),
    "zero width": ("{0}\u200b".format, "invisible characters (U+200B)"),
    "left to right": ("\u200e{0}.jpg".format, "invisible characters (U+200E), a suffix"),
    "columns after no-break spaces": ("{0}\u00a01".format, "columns between spaces, invisible characters (U+00A0)"),
    "no-break space": ("{0}\u00a0.jpg".format, "invisible characters (U+00A0), a suffix"),
}


def mend(command: str) -> None:
    """Run a command of a message with this interpreter, in a plain shell."""
    assert command.startswith("python -c '")
    subprocess.run(command.replace("python", shlex.quote(sys.executable), 1), shell=True, check=True)


def list_of(root: Path, lines: list[str], newline: str = "\n") -> Path:
    path = split_path(root, "train")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline=newline)
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("name", FORMS)
def test_a_list_of_another_form_is_one_fault_whose_command_mends_it(
    name: str, newline: str, tiny_data: Path, tiny_classes: ClassSet
) -> None:
    write, beside = FORMS[name]
    path = list_of(tiny_data, [write(picture) for picture in NAMES], newline)
    ids, (fault,) = parse_split(tiny_data, "train")
    assert ids == []
    assert fault.found.startswith(f"6 of 6 lines are no plain ids ({beside}), as line 1: '")
    remedy, _, command = fault.remedy.partition(": ")
    assert remedy == "write one id a line, without folder and suffix, here 'train_0'"
    with refused(ExitCode.DATA, f"{path}: 6 of 6 lines"):
        SegmentationDataset(tiny_data, "train", tiny_classes)
    if name == "JSON":
        assert command == ""
        return
    mend(command)
    assert parse_split(tiny_data, "train") == (NAMES, [])


def test_a_header_and_what_is_missing_do_not_add_lines(tiny_data: Path) -> None:
    list_of(tiny_data, ["image,mask", *(f"{name}.jpg,{name}.png" for name in NAMES), "gone.jpg,gone.png"])
    ids, (fault,) = parse_split(tiny_data, "train")
    assert ids == []
    assert fault.found.startswith("8 of 8 lines are no plain ids (a header, columns between commas, a suffix), as line 2: ")
    mend(fault.remedy.partition(": ")[2])
    assert parse_split(tiny_data, "train") == ([*NAMES, "gone"], [])
    list_of(tiny_data, ["number,name", *(f"{index},{name}" for index, name in enumerate(NAMES))])
    ids, (fault,) = parse_split(tiny_data, "train")
    assert fault.remedy.endswith("here 'train_0'")  # no command: the second column


def test_a_few_lines_of_another_form_leave_the_others(tiny_data: Path) -> None:
    list_of(tiny_data, ["train_0", "train_1.jpg", "gone", "train_2"])
    ids, (fault,) = parse_split(tiny_data, "train")
    assert ids == ["train_0", "gone", "train_2"]
    assert fault.found.startswith("1 of 4 lines are no plain ids (a suffix), as line 2: 'train_1.jpg'")


@pytest.mark.parametrize("separator", [" ", ", ", "\t", ";"])
def test_several_ids_in_a_line_are_not_columns(separator: str, tiny_data: Path) -> None:
    list_of(tiny_data, [separator.join(NAMES[:4]), separator.join(NAMES[4:])])
    _, (fault,) = parse_split(tiny_data, "train")
    assert fault.found.startswith("2 of 2 lines are no plain ids (several ids in a line), as line 1: 'train_0")
    mend(fault.remedy.partition(": ")[2])
    assert parse_split(tiny_data, "train") == (NAMES, [])


def test_a_flag_is_no_id(tiny_data: Path, tiny_classes: ClassSet) -> None:
    for number in range(3):
        write_pair(tiny_data, str(number), tiny_mask(seed=number), tiny_classes)
    list_of(tiny_data, ["0 1", "1 0", "2 1"])
    _, (fault,) = parse_split(tiny_data, "train")
    assert "(columns between spaces)" in fault.found


STRANGE = [
    "with space",
    "a 1",
    "a,b",
    "it's",
    "x.y.jpg",
    "a;b|c",
    "3.04\u202fPM",
    "می\u200cخواهم",
    "e\u0301",
    "back\\slash",
    "dot.",
]


@pytest.mark.parametrize("name", STRANGE)
def test_an_id_whose_picture_exists_is_an_id(name: str, tiny_data: Path, tiny_classes: ClassSet) -> None:
    for other in ("a", "b", "x", "x.y", "slash", "with"):
        write_pair(tiny_data, other, tiny_mask(seed=1), tiny_classes)
    write_pair(tiny_data, name, tiny_mask(seed=2), tiny_classes)
    write_split(tiny_data, "train", [name])
    assert SegmentationDataset(tiny_data, "train", tiny_classes).read(0).id == name


def test_what_may_be_a_name_is_missing_and_no_form(tiny_data: Path, tiny_classes: ClassSet) -> None:
    write_pair(tiny_data, "photo", tiny_mask(seed=1), tiny_classes)
    lines = [*NAMES, "photo (1)", "city/photo", "photo,copy"]
    list_of(tiny_data, lines)
    assert parse_split(tiny_data, "train") == (lines, [])


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_another_unicode_form_is_one_fault(listed: str, stored: str, tiny_data: Path, tiny_classes: ClassSet) -> None:
    names = ["größe", "über", "año"]
    for name in names:
        write_pair(tiny_data, unicodedata.normalize(stored, name), tiny_mask(seed=1), tiny_classes)
    list_of(tiny_data, [unicodedata.normalize(listed, name) for name in names])
    ids, (fault,) = parse_split(tiny_data, "train")
    assert ids == []
    expected = f"3 of 3 lines are no plain ids (another Unicode form than the file's name, {stored}), as line 1: '"
    assert fault.found.startswith(expected)
    mend(fault.remedy.partition(": ")[2])
    assert parse_split(tiny_data, "train") == ([unicodedata.normalize(stored, name) for name in names], [])


def test_invisible_characters_without_a_picture_are_named(tiny_data: Path) -> None:
    list_of(tiny_data, ["go\u200bne", "a\x1b[2J"])
    ids, faults = parse_split(tiny_data, "train")
    assert ids == []
    assert [(fault.found, fault.remedy) for fault in faults] == [
        ("line 1: 'go\u200bne' holds U+200B, which cannot be seen", "write 'gone'"),
        ("line 2: 'a\x1b[2J' holds U+001B, which cannot be seen", "write 'a[2J'"),
    ]
    assert "line 1: 'go\\u200bne' holds" in str(faults[0])
