"""The list of a split: its ids in their order, and its faults by line."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import refused, write_split

from segnet.data.dataset import SegmentationDataset
from segnet.data.layout import split_path
from segnet.data.split_lists import read_split
from segnet.system.errors import ExitCode

Data = ExitCode.DATA


@pytest.mark.parametrize(
    "text",
    [b"b\na\n", b"b\na", b"b\r\na\r\n", b"\xef\xbb\xbfb\na\n", b"\n  \nb\n\n\ta  \n\n"],
    ids=["plain", "no last newline", "CRLF", "BOM", "blank lines and spaces"],
)
def test_ids_come_in_the_order_of_the_file(text: bytes, tmp_path: Path) -> None:
    write_split(tmp_path, "train", [])
    split_path(tmp_path, "train").write_bytes(text)
    assert read_split(tmp_path, "train") == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", "no ids in it"),
        (b"\n \r\n", "no ids in it"),
        (b"a\nb\n\na\n", "line 4: 'a' stands in line 1 already"),
        (b"a\n../../secret\n", "line 2: '../../secret' leaves the data folder"),
        (b"a\n\n/etc/passwd\n", "line 3: '/etc/passwd' leaves the data folder"),
        (b"a\x1b[2J\n", "line 1: 'a\\x1b[2J' holds U+001B, which cannot be seen"),
        (b"a\n\xff\n", "byte 2 is not UTF-8"),
        (b"# training\na\n", "line 1: '# training' is a comment"),
    ],
)
def test_a_spoilt_list_is_refused_by_line(text: bytes, found: str, tmp_path: Path) -> None:
    write_split(tmp_path, "train", [])
    split_path(tmp_path, "train").write_bytes(text)
    with refused(Data, str(split_path(tmp_path, "train")), found):
        read_split(tmp_path, "train")


@pytest.mark.parametrize("split", ["../../../secret", "/secret", "a\0b", ""])
def test_the_name_of_a_split_does_not_leave_the_folder(split: str, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a\n")
    (tmp_path / "data" / "ImageSets" / "Segmentation").mkdir(parents=True)
    with refused(Data, "leaves the data folder"):
        read_split(tmp_path / "data", split)


def test_a_split_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for root, split in ((tmp_path / "nowhere", "train"), (tmp_path / "file", "train"), (tmp_path, "a" * 300)):
        with refused(Data, f"{split}.txt: no such file", "python scripts/prepare_data.py", "data.root"):
            read_split(root, split)


def test_a_missing_split_is_named(tiny_data, tiny_classes):
    with refused(ExitCode.DATA, "holdout.txt", "no such file"):
        SegmentationDataset(tiny_data, "holdout", tiny_classes)
