"""A configuration and its classes are read from file, data folder and overrides; a mistake is named by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import BASE, data_folder, write_config
from helpers import CLASSES, ROOT, RunScript, refused

from segnet.classes import CAMVID, class_set
from segnet.config.arguments import split_overrides
from segnet.config.data_folder import class_warnings, load_data_folder
from segnet.config.loading import config_to_yaml, load_config, override_config
from segnet.config.sections import Config
from segnet.data.checking import list_splits
from segnet.data.split_lists import read_split
from segnet.system.errors import ExitCode, UserError

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


def other_folder(folder: Path, text: str) -> str:
    """The override that names a data folder whose classes.yaml holds `text`."""
    folder.mkdir(exist_ok=True)
    (folder / "classes.yaml").write_text(text)
    return f"data.root={folder}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("names: [box, ground, disc]\n", ["class 0 is 'box', not 'ground'", "--map 0=1 --map 1=0"]),
        ("names: [ground, box, ring]\n", ["class 2 is 'ring', not 'disc'", "data.classes="]),
        ("names: [ground, box]\n", ["2 classes (ground, box) in place of 3 (ground, box, disc)", "data.classes="]),
        ("names: [ground, box, disc, ring]\n", ["4 classes (ground, box, disc, ring) in place of 3 (ground, box, disc)"]),
        ("names: 7\n", ["line 1: data.classes: found 7"]),
    ],
)
def test_another_folder_with_other_classes_is_refused(text: str, found: list[str], tiny_config: Config, tmp_path: Path) -> None:
    override = other_folder(tmp_path / "b", text)
    with refused(Usage, f"{tmp_path / 'b' / 'classes.yaml'}", *found):
        override_config(tiny_config, [override])
    with refused(Usage, f"{tmp_path / 'b' / 'classes.yaml'}", *found):
        override_config(tiny_config, [f"data={{root: {tmp_path / 'b'}}}"])


def test_another_folder_says_what_its_masks_ignore(tiny_config: Config, tmp_path: Path) -> None:
    override = other_folder(
        tmp_path / "b", "names: [ground, box, disc]\nignore_index: 9\ncolors: [[1, 1, 1], [2, 2, 2], [3, 3, 3]]\n"
    )
    assert override_config(tiny_config, [override]).data.class_set == class_set(CLASSES, ignore_index=9)
    assert override_config(tiny_config, [override, "data.ignore_index=8"]).data.ignore_index == 8
    other_folder(tmp_path / "b", "names: [earth, box, disc]\nignore_index: 9\n")
    named = override_config(tiny_config, [override, "data.classes=[earth, box, disc]"])
    assert named.data.class_set == class_set(("earth", "box", "disc"), ignore_index=9)
    (tmp_path / "b" / "classes.yaml").unlink()
    assert override_config(tiny_config, [override]).data.class_set == class_set(CLASSES)


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


def test_a_mistake_across_keys_is_said_of_the_override(tiny_config: Config) -> None:
    with refused(Usage, "data.colors=[[0, 0, 0]]: data: 1 colors for 3 classes"):
        override_config(tiny_config, ["data.colors=[[0, 0, 0]]"])


def test_every_mistake_at_once_each_with_file_and_line(tmp_path: Path) -> None:
    base = write_config(tmp_path, "BASE\ntrain:\n  batch_size: 0\n", "below.yaml")
    path = write_config(tmp_path, "base: below.yaml\ntrain:\n  epoch: 5\noptim:\n\n  lr: -1\n  name: adam\nzzz: 1\n")
    with pytest.raises(UserError) as caught:
        load_config(path, ["inference.flip=3", "seed=1.5"])
    lines = str(caught.value).splitlines()
    expected = {
        f"{base}, line 3: train.batch_size: found 0, should be greater than or equal to 1",
        f"{path}, line 3: train.epoch: unknown key – did you mean 'epochs'?",
        f"{path}, line 6: optim.lr: found -1, should be greater than 0",
        f"{path}, line 7: optim.name: found 'adam', should be 'sgd' or 'adamw'",
        f"{path}, line 8: zzz: unknown key – known here: seed, device, model, data, augment, loss, optim, train, inference",
        "inference.flip=3: inference.flip: found 3, should be a valid boolean",
        "seed=1.5: seed: found 1.5, should be a valid integer",
    }
    assert set(lines) == expected
    assert len(lines) == len(expected)


@pytest.mark.parametrize(
    ("key", "close"),
    [
        ("trian", "train"),
        ("train.batchsize", "batch_size"),
        ("model.normalization.means", "mean"),
        ("model.decoder_rlu", "decoder_relu"),
        ("data.class", "classes"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one(key: str, close: str) -> None:
    with refused(Usage, f"{key}: unknown key", f"did you mean '{close}'?"):
        load_config(BASE, [f"{key}=1"])


def test_an_unknown_key_of_a_stage(tmp_path: Path) -> None:
    text = "BASE\nmodel:\n  encoder:\n    - widths: [4]\n      drop: 0.5\n  decoder:\n    - widths: [4]\n"
    with refused(Usage, "line 5: model.encoder.0.drop: unknown key", "did you mean 'dropout'?"):
        load_config(write_config(tmp_path, text))


def test_overrides_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fps=10").mkdir()
    (tmp_path / "seed=3").mkdir()
    (tmp_path / "seed=3" / "a.jpg").touch()
    paths = ["fps=10", "fps=10/*.jpg", "fps=11/*.jpg", "./seed=3/*.jpg", "runs/lr=0.1", "a.jpg", "", "=", "x.seed=3", "Seed"]
    overrides = ["seed=4", "inference.flip=true", "train.epoch=3", "data={root: a=b}", "device="]
    assert split_overrides([*paths, *overrides]) == (paths, overrides)
    for text in ("seed=3", "seed=3/*.jpg", "seed=3/**/a.jpg"):
        with refused(Usage, f"{text}: sets a key, and is the name of files", f"./{text}"):
            split_overrides([text])
    with refused(
        Usage, "inferense.flip=true: no such file, and no key begins with 'inferense'", "did you mean inference.flip=…?"
    ):
        split_overrides(["inferense.flip=true"])


def test_a_long_value_is_not_echoed_in_full(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write_config(tmp_path, f"BASE\nseed: {'a' * 100_000}\n"))
    assert len(str(caught.value)) < 400


def test_sections_that_have_no_default_must_be_there(tmp_path: Path) -> None:
    with refused(Usage, "model: missing", "data: missing"):
        load_config(write_config(tmp_path, "seed: 1\n"))


def test_a_mistake_ends_the_command_with_two_and_one_line_each(run_script: RunScript, tmp_path: Path) -> None:
    path = write_config(tmp_path, "BASE\ntrian: {}\n")
    result = run_script("show", "config", path, "seed=-1")
    assert result.returncode == 2
    assert result.stdout == ""
    assert sorted(result.stderr.splitlines()) == [
        f"error: {path}, line 2: trian: unknown key – did you mean 'train'?",
        "error: seed=-1: seed: found -1, should be greater than or equal to 0",
    ]
