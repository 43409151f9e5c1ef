"""The class table beside the data is written once, and what is not opened is named."""

from pathlib import Path

import pytest

from segnet.classes import ClassSet, class_set
from segnet.config.data_folder import load_data_folder
from segnet.data.layout import file_fault, write_classes


def test_written_classes_are_read_again_and_an_own_table_stays(tmp_path: Path, tiny_classes: ClassSet) -> None:
    odd = class_set(("no", 'a "b": c', "größe # 1"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    write_classes(tmp_path, odd)
    assert load_data_folder(tmp_path).class_set == odd
    write_classes(tmp_path, tiny_classes)
    assert load_data_folder(tmp_path).class_set == odd


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("whole", None),
        ("missing", None),  # which is another fault
        ("folder", "not a file but a folder"),
        ("dangling", "is a link to nothing"),
        ("outside", "is a link out of the data folder"),
    ],
)
def test_what_is_not_opened_is_named(name: str, found: str | None, tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "folder").mkdir(parents=True)
    (root / "whole").touch()
    (tmp_path / "secret").touch()
    (root / "dangling").symlink_to("gone")
    (root / "outside").symlink_to("../secret")
    fault = file_fault(root / name, root)
    assert fault is None if found is None else fault is not None and fault.found.startswith(found)
