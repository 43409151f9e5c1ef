"""Classes come from the data folder; what is wrong with it or its classes.yaml is named by line."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import BASE, data_folder, write_config
from helpers import ROOT, refused

from segnet.classes import CAMVID, class_set
from segnet.config.data_folder import class_warnings, load_data_folder
from segnet.config.loading import config_to_yaml, load_config
from segnet.data.checking import list_splits
from segnet.data.split_lists import read_split
from segnet.system.errors import ExitCode

Usage = ExitCode.CONFIG


def test_classes_come_from_the_data_folder(tmp_path: Path) -> None:
    path = data_folder(tmp_path, "names: [ground, leaf]\ncolors: [[1, 2, 3], [4, 5, 6]]\nignore_index: 9\n")
    config = load_config(path)
    assert config.data.class_set == class_set(("ground", "leaf"), ((1, 2, 3), (4, 5, 6)), ignore_index=9)
    assert load_data_folder(tmp_path / "leaves") == config.data
    (tmp_path / "leaves" / "classes.yaml").unlink()
    assert (
        load_config(write_config(tmp_path, config_to_yaml(config), "whole.yaml")) == config
    )  # complete without the folder's file


def test_what_the_configuration_says_wins_over_the_data_folder(tmp_path: Path) -> None:
    path = data_folder(tmp_path, "names: [ground, leaf]\ncolors: [[1, 2, 3], [4, 5, 6]]\nignore_index: 9\n")
    found = load_config(path, ["data.ignore_index=7", "data.colors=[[7, 7, 7], [8, 8, 8]]"]).data.class_set
    assert found == class_set(("ground", "leaf"), ((7, 7, 7), (8, 8, 8)), ignore_index=7)
    assert load_config(path, ["data.classes=[a, b, c]"]).data.class_set == class_set(("a", "b", "c"))
    assert load_config(path, ["data={root: elsewhere, classes: camvid}"]).data.class_set == CAMVID


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("names: [a, b]\ncolours: []\n", "classes.yaml, line 2: colours: unknown key – did you mean 'colors'?"),
        ("ignore_index: 9\n", "classes.yaml: names: missing"),
        ("names: [a, b]\nignore_index: 1\n", "ignore_index: 1 is the id of class 'b'"),
        ("names: [a, b]\nignore_index: 300\n", "classes.yaml, line 2: data.ignore_index: found 300"),
        ("names: [a, b]\ncolors: [[1, 2, 3]]\n", "1 colors for 2 classes"),
        ("names: [a, a]\n", "two classes have the same name"),
        ("names: 7\n", "classes.yaml, line 1: data.classes: found 7"),
        ("names: [a, &x b, *x]\n", "classes.yaml: line 1: alias *x"),
        ("[a, b]\n", "classes.yaml: not a mapping"),
        ("base: ../../secret.yaml\nnames: [a]\n", "classes.yaml, line 1: base: unknown key"),
    ],
)
def test_a_mistake_in_the_classes_of_a_folder_is_named_by_line(text: str, found: str, tmp_path: Path) -> None:
    path = data_folder(tmp_path, text)
    with refused(Usage, found):
        load_config(path)
    with refused(Usage, found):
        load_data_folder(tmp_path / "leaves")


def test_classes_that_are_nowhere_or_elsewhere(tmp_path: Path) -> None:
    path = data_folder(tmp_path, "names: [a]\n")
    (tmp_path / "leaves" / "classes.yaml").rename(tmp_path / "secret.yaml")
    with refused(ExitCode.DATA, "leaves: no ImageSets/Segmentation/ in it", "prepare the data"):  # what is wrong first
        load_config(path)
    (tmp_path / "leaves" / "ImageSets/Segmentation").mkdir(parents=True)
    with refused(Usage, "data.classes: missing – give it in this file, or write classes.yaml into the data folder"):
        load_config(path)
    with refused(Usage, "leaves/classes.yaml: no such file", "give a CONFIG"):
        load_data_folder(tmp_path / "leaves")
    (tmp_path / "leaves" / "classes.yaml").symlink_to(tmp_path / "secret.yaml")
    for load in (lambda: load_config(path), lambda: load_data_folder(tmp_path / "leaves")):
        with refused(Usage, "leaves/classes.yaml: is a link out of the data folder"):
            load()


def test_a_data_folder_whose_name_is_not_utf8_is_refused_with_a_way_out(tmp_path: Path) -> None:
    root = tmp_path / "caf\udce9"
    for load in (lambda: load_config(BASE, [f"data.root={root}"]), lambda: load_data_folder(root)):
        with refused(Usage, "caf\\udce9: a name that is not UTF-8", "give a path relative to it"):
            load()


@pytest.mark.parametrize(
    ("root", "found"),
    [
        ("TMP/leavs", "TMP/leavs: no such folder – did you mean TMP/leaves?"),
        ("TMP/kit", "TMP/kit: no ImageSets/Segmentation/ in it – did you mean TMP/kit/leaves?"),
        ("TMP", "TMP: no ImageSets/Segmentation/ in it – did you mean TMP/kit/leaves?"),
        ("TMP/kit/leaves/JPEGImages", "no ImageSets/Segmentation/ in it – did you mean TMP/kit/leaves?"),
        ("TMP/leaves.txt", "TMP/leaves.txt: a file, not a folder – name the folder that holds ImageSets/Segmentation/"),
        ("nowhere", "nowhere: no such folder in the working folder TMP – prepare the data"),
        ("my\\leaves", "my\\leaves: no such folder: folders are divided by /, write my/leaves"),
        ("~/leaves", "~/leaves: no such folder: ~ and $NAME are not expanded, write /home/me/leaves"),
        ("$HOME/leaves", "$HOME/leaves: no such folder: ~ and $NAME are not expanded, write /home/me/leaves"),
    ],
)
def test_a_wrong_data_folder_is_named_itself(root: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for folder in ("kit/leaves/ImageSets/Segmentation", "kit/leaves/JPEGImages", "leaves"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "leaves.txt").write_text("")
    root, found = root.replace("TMP", str(tmp_path)), found.replace("TMP", str(tmp_path))
    model = f"base: {ROOT / 'configs' / 'model' / 'segnet_small.yaml'}\n"
    path = write_config(tmp_path, f"{model}data: {{root: {root}}}\n")
    with refused(ExitCode.DATA, f"{path}, line 2: data.root: ", found):
        load_config(path)
    with refused(ExitCode.DATA, f"data.root={root}: data.root: ", found):
        load_config(write_config(tmp_path, f"{model}seed: 1\n"), [f"data.root={root}"])
    with refused(ExitCode.DATA, found):
        load_data_folder(Path(root))
    with refused(ExitCode.DATA, found.split(" – ")[0], "train.txt: no such file"):
        read_split(Path(root), "train")
    with refused(ExitCode.DATA, found):
        list_splits(Path(root))


def test_a_table_beside_the_data_that_does_not_count_is_told(tmp_path: Path) -> None:
    path = data_folder(tmp_path, "names: [ground, leaf]\nignore_index: 9\n")
    assert class_warnings(load_config(path).data) == []
    told = class_warnings(load_config(path, ["data.classes=[leaf, ground]"]).data)
    assert [warning.found for warning in told] == [
        "class 0 is 'ground', not 'leaf' as in the configuration",
        "ignore_index is 9, not 255 as in the configuration",
    ]
    (tmp_path / "leaves" / "classes.yaml").write_text("names: 7\n")
    assert "data.classes: found 7" in class_warnings(load_config(path, ["data.classes=[leaf, ground]"]).data)[0].found
