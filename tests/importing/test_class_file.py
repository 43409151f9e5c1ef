"""Files of class names in the forms that tools write."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import refused

from segnet.importing.class_file import read_class_file
from segnet.system.errors import ExitCode


@pytest.mark.parametrize(
    ("name", "text", "names", "colors"),
    [
        ("classes.txt", "soil\n\n# a comment\nold leaf\n", ["soil", "old leaf"], None),
        ("labels.txt", "__ignore__\n_background_\nleaf\n", ["background", "leaf"], None),
        ("label_colors.txt", "0 0 0 Sky\n128\t0  7\tBig tree\n", ["Sky", "Big tree"], [(0, 0, 0), (128, 0, 7)]),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\na b:1,2,3::\nc:4,5,6:hand:run\n",
            ["a b", "c"],
            [(1, 2, 3), (4, 5, 6)],
        ),
        ("class_dict.csv", "name,r,g,b\nsoil,0,0,0\nleaf , 1, 2, 3\n", ["soil", "leaf"], [(0, 0, 0), (1, 2, 3)]),
        ("c.yaml", "names: [soil, leaf]\ncolors: [[0, 0, 0], [1, 2, 3]]\n", ["soil", "leaf"], [(0, 0, 0), (1, 2, 3)]),
        ("c.yml", "names:\n  0: soil\n  1: leaf\n", ["soil", "leaf"], None),
        ("bom.txt", "\ufeffsoil\r\nleaf\r\n", ["soil", "leaf"], None),
    ],
)
def test_forms(tmp_path: Path, name: str, text: str, names: list[str], colors: list[tuple[int, int, int]] | None) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    lines = read_class_file(tmp_path / name)
    assert [line.name for line in lines] == names
    assert [line.color for line in lines] == (colors or [None] * len(names))


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("c.txt", "leaf\nleaf\n", "'leaf' stands there twice"),
        ("c.txt", "1 2 3 leaf\n1 2 3 stem\n", "have the same colour (1, 2, 3)"),
        ("c.txt", "1 2 300 leaf\n", "a colour above 255"),
        ("c.txt", "\n# nothing\n", "0 classes"),
        ("c.txt", "".join(f"c{i}\n" for i in range(256)), "256 classes"),
        ("c.yaml", "names: leaf\n", "no list of names"),
        ("c.yaml", "names: [a, b]\ncolors: [[1, 2, 3]]\n", "no list of 2 colours"),
        ("c.yaml", "names: [a, b]\ncolors: [[1, 2, 3], [1, 2, x]]\n", "is no colour"),
    ],
)
def test_files_in_error_are_refused(tmp_path: Path, name: str, text: str, found: str) -> None:
    (tmp_path / name).write_text(text)
    with refused(ExitCode.DATA, name, found):
        read_class_file(tmp_path / name)


def test_a_missing_file_and_other_encodings_are_refused(tmp_path: Path) -> None:
    with refused(ExitCode.DATA, "no such file"):
        read_class_file(tmp_path / "x.txt")
    (tmp_path / "x.txt").write_bytes("blüte\n".encode("latin-1"))
    with refused(ExitCode.DATA, "byte 2 is not UTF-8"):
        read_class_file(tmp_path / "x.txt")
