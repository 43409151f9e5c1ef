"""The configuration: what is read, what is refused, and that a mistake is named by file and line."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, cast

import pytest
from helpers import CLASSES, ROOT, RunScript, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from segnet.classes import CAMVID, class_set
from segnet.config.arguments import split_overrides
from segnet.config.data_folder import class_warnings, load_data_folder
from segnet.config.loading import config_schema, config_to_yaml, dump_config, load_config, override_config, read_stored_config
from segnet.config.renamed import NEW_KEYS
from segnet.config.sections import Config, TrainConfig
from segnet.config.template import config_template
from segnet.config.yaml_files import Tree, parse_yaml, read_mapping
from segnet.data.checking import list_splits
from segnet.data.split_lists import read_split
from segnet.system.errors import ExitCode, UserError

BASE = ROOT / "configs" / "sample.yaml"
SAMPLE_CONFIG = load_config(BASE)
RECIPES = sorted({*(ROOT / "configs").glob("*.yaml")} - {ROOT / "configs" / "template.yaml"})
Usage = ExitCode.CONFIG


def write(folder: Path, text: str | bytes, name: str = "try.yaml") -> Path:
    """A configuration file that stands on the sample's, unless it names a base of its own."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.replace("BASE", f"base: {BASE}").encode())
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert load_config(write(tmp_path, config_to_yaml(config))) == config


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "model").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_model_file_is_whole(path: Path, tmp_path: Path) -> None:
    config = load_config(write(tmp_path, f"base: {path}\ndata: {{root: here, classes: voc}}\n"))
    assert len(config.model.encoder) == len(config.model.decoder)


def test_the_file_wins_over_its_bases_the_later_base_over_the_earlier_and_overrides_over_all(tmp_path: Path) -> None:
    write(tmp_path, "seed: 1\ntrain: {epochs: 1, batch_size: 1, log_every_steps: 1, ema_decay: 0.1}\n", "first.yaml")
    write(tmp_path, "train: {batch_size: 2, log_every_steps: 2, ema_decay: 0.2}\n", "second.yaml")
    path = write(tmp_path, f"base: [{BASE}, first.yaml, second.yaml]\ntrain: {{log_every_steps: 3, ema_decay: 0.3}}\n")
    config = load_config(path, ["train.ema_decay=0.4", "train.ema_decay=0.5", "augment={flip: 0}"])
    train = config.train
    assert (config.seed, train.epochs, train.batch_size, train.log_every_steps, train.ema_decay) == (1, 1, 2, 3, 0.5)
    assert config.augment == SAMPLE_CONFIG.augment.model_copy(update={"flip": 0})  # a section is merged, not replaced


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1e3", 1e3), ("1.5E+2", 150.0), (".5", 0.5), ("2.", 2.0), ("1_0.5", 10.5), ("-1e-3", -1e-3), ("7", 7)],
)
def test_numbers_are_numbers(text: str, value: float) -> None:
    assert parse_yaml(text, "here") == (value, {})


@pytest.mark.parametrize("text", ["2020-01-01", "1e", "e3", "1.2.3", "0.5px", "-x", "12:30:45.5"])
def test_what_only_resembles_a_number_is_text(text: str) -> None:
    assert parse_yaml(text, "here") == (text, {})


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b"---\n", b"# comment\r\n"], ids=["BOM", "document start", "CRLF"])
def test_harmless_beginnings(tmp_path: Path, prefix: bytes) -> None:
    path = write(tmp_path, prefix + f"base: {BASE}\r\nseed: 3\r\n".encode())
    assert load_config(path).seed == 3


names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)
numbers = st.one_of(st.integers(1, 10**6), st.floats(1e-30, 1e30))


@settings(max_examples=50)
@given(root=names, classes=st.lists(names, min_size=2, max_size=4, unique=True), lr=numbers, seed=st.integers(0, 2**63 - 1))
def test_any_configuration_survives_yaml(
    tmp_path_factory: pytest.TempPathFactory, root: str, classes: list[str], lr: float, seed: int
) -> None:
    data, model = {"root": root, "classes": tuple(classes)}, {"encoder": ({"widths": (4,)},), "decoder": ({"widths": (4,)},)}
    config = Config.model_validate({"seed": seed, "data": data, "optim": {"lr": lr}, "model": model})
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(config_to_yaml(config), encoding="utf-8")
    assert load_config(path) == config


@pytest.mark.parametrize(
    "name", ["1e3", "1_000", "null", "yes", "~", "=", "<<", "0x10", "2020-01-01", ".inf", "- a", "a: b", "é☃😀"]
)
def test_names_that_yaml_would_take_for_something_else(tiny_config: Config, tmp_path: Path, name: str) -> None:
    data = tiny_config.data.model_copy(update={"root": name, "classes": (name, "other")})
    config = tiny_config.model_copy(update={"data": data})
    assert load_config(write(tmp_path, config_to_yaml(config))) == config


def test_class_tables(tiny_config: Config) -> None:
    assert tiny_config.data.class_set == class_set(CLASSES)
    assert override_config(tiny_config, ["data.classes=camvid"]).data.class_set == CAMVID
    colored = override_config(tiny_config, ["data.colors=[[1, 2, 3], [4, 5, 6], [7, 8, 9]]"])
    assert colored.data.class_set.colors == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


def data_folder(folder: Path, text: str) -> Path:
    """A configuration without classes, of a data folder whose classes.yaml holds `text`."""
    (folder / "leaves").mkdir(exist_ok=True)
    (folder / "leaves" / "classes.yaml").write_text(text)
    data = f"data: {{root: {folder / 'leaves'}}}\n"
    return write(folder, f"base: {ROOT / 'configs' / 'model' / 'segnet_small.yaml'}\n{data}")


def test_classes_come_from_the_data_folder(tmp_path: Path) -> None:
    path = data_folder(tmp_path, "names: [ground, leaf]\ncolors: [[1, 2, 3], [4, 5, 6]]\nignore_index: 9\n")
    config = load_config(path)
    assert config.data.class_set == class_set(("ground", "leaf"), ((1, 2, 3), (4, 5, 6)), ignore_index=9)
    assert load_data_folder(tmp_path / "leaves") == config.data
    (tmp_path / "leaves" / "classes.yaml").unlink()
    assert load_config(write(tmp_path, config_to_yaml(config), "whole.yaml")) == config  # complete without the folder's file


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


@pytest.mark.parametrize(("name", "cure"), [("crack", "[background, crack]"), ("background", "[background, …]")])
def test_a_single_class_is_refused_with_the_way_out(name: str, cure: str, tmp_path: Path) -> None:
    path = data_folder(tmp_path, f"names: [{name}]\n")
    for load in (lambda: load_config(path), lambda: load_data_folder(tmp_path / "leaves")):
        with refused(Usage, f"classes.yaml, line 1: data.classes: '{name}' alone", f"write {cure}", "--map 255=1"):
            load()
    with refused(Usage, f"data.classes=[{name}]: data.classes: '{name}' alone"):
        load_config(BASE, [f"data.classes=[{name}]"])


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
    path = write(tmp_path, f"{model}data: {{root: {root}}}\n")
    with refused(ExitCode.DATA, f"{path}, line 2: data.root: ", found):
        load_config(path)
    with refused(ExitCode.DATA, f"data.root={root}: data.root: ", found):
        load_config(write(tmp_path, f"{model}seed: 1\n"), [f"data.root={root}"])
    with refused(ExitCode.DATA, found):
        load_data_folder(Path(root))
    with refused(ExitCode.DATA, found.split(" – ")[0], "train.txt: no such file"):
        read_split(Path(root), "train")
    with refused(ExitCode.DATA, found):
        list_splits(Path(root))


@pytest.mark.parametrize("key", ["data.root", "data.cache_folder", "model.encoder_weights"])
def test_an_empty_path_is_none(key: str, tmp_path: Path) -> None:
    with refused(Usage, f"{key}='': {key}: found '', should have at least 1 character"):
        load_config(data_folder(tmp_path, "names: [a, b]"), [f"{key}=''"])
    with pytest.raises(UserError) as caught:
        load_config(data_folder(tmp_path, "names: [a, b]"), [f"{key}=''"])
    assert caught.value.also == ()  # not that the classes are missing, too


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


def test_the_ignored_id_is_no_class(tiny_config: Config) -> None:
    assert override_config(tiny_config, ["data.ignore_index=3"]).data.class_set.ignore_index == 3
    with refused(Usage, "ignore_index: 2 is the id of class 'disc'"):
        override_config(tiny_config, ["data.ignore_index=2"])


def test_schema_knows_every_key_and_says_a_sentence_about_each() -> None:
    schema = json.loads(config_schema())
    assert {"base", "seed", "model", "train"} <= schema["properties"].keys()
    fields = [(name, key, field) for name, part in schema["$defs"].items() for key, field in part["properties"].items()]
    assert len(fields) > 40
    assert [(name, key) for name, key, field in fields if not field.get("description", "").endswith(".")] == []


def test_every_mistake_at_once_each_with_file_and_line(tmp_path: Path) -> None:
    base = write(tmp_path, "BASE\ntrain:\n  batch_size: 0\n", "below.yaml")
    path = write(tmp_path, "base: below.yaml\ntrain:\n  epoch: 5\noptim:\n\n  lr: -1\n  name: adam\nzzz: 1\n")
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
        load_config(write(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ('train.batch_size="5"', "found '5', should be a valid integer"),
        ("train.batch_size=true", "found True, should be a valid integer"),
        ("train.batch_size=5.0", "found 5.0, should be a valid integer"),
        ("train.batch_size=-5", "found -5, should be greater than or equal to 1"),
        ("train.batch_size=[5]", "should be a valid integer"),
        ("train.batch_size=", "found None, should be a valid integer"),
        ("train.batch_size=99999999999999999999", "should be less than or equal to 4096"),
        ("train.deterministic=1", "found 1, should be a valid boolean"),
        ("train.deterministic='true'", "found 'true', should be a valid boolean"),
        ("optim.lr=true", "found True, should be a valid number"),
        ('optim.lr="1e-3"', "found '1e-3', should be a valid number"),
        ("optim.lr=.nan", "found nan, should be a finite number"),
        ("optim.lr=.inf", "found inf, should be a finite number"),
        ("optim.lr=1e999", "found inf, should be a finite number"),
        ("optim.lr=0", "found 0, should be greater than 0"),
        ("train={batch_size: 0}", "train.batch_size: found 0, should be greater than or equal to 1"),
        ("train=5", "train: found 5"),
        ("data.root=5", "found 5, should be a valid string – put it in quotes"),
        ("model.kernel_size=[3]", "model.kernel_size: should be 1, 3"),
        ("data.classes={0: a, 1: b}", "data.classes: should be a valid array"),
        ("data.classes=vox", "found 'vox', should be 'voc', 'camvid' or 'sample'"),
        ("data.classes=[a, no]", "data.classes.1: found False, should be a valid string – put it in quotes"),
        ("data.classes=[]", "data.classes: "),
        ("data.colors=[[0, 0, 256]]", "found 256, should be less than or equal to 255"),
        ("augment.crop_size=[32]", "augment.crop_size.1: missing"),
        ("model.encoder=[]", "model.encoder: "),
        ("model.kernel_size=2", "found 2, should be 1, 3, 5, 7, 9 or 11"),
    ],
)
def test_a_value_of_another_type_or_out_of_range(override: str, found: str) -> None:
    with refused(Usage, f"{override}: ", found):
        load_config(BASE, [override])


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("data.classes=[a, a]", "data: two classes have the same name"),
        ("data.colors=[[0, 0, 0]]", "data: 1 colors for "),
        ("augment.scale=[2, 1]", "augment: scale: 2.0 is above 1.0"),
        ("train={compile: true, recompute: activations}", "train: recompute activations has no effect with compile"),
        ("model.encoder=[{widths: [4]}]", "model: 1 encoder stages but "),
        (
            "model={encoder: [{widths: [4]}, {widths: [8]}], decoder: [{widths: [8]}, {widths: [4]}]}",
            "decoder stage 1 unpools 8 channels by winners of 4",
        ),
    ],
)
def test_values_that_do_not_fit_each_other(override: str, found: str) -> None:
    with refused(Usage, found):
        load_config(BASE, [override])


@pytest.mark.parametrize("override", ["", "=", "=5", "train.epochs", "train..epochs=5", ".=1", "--train.epochs:5"])
def test_an_override_that_is_none(override: str) -> None:
    with refused(Usage, "not KEY=VALUE", "train.epochs=5"):
        load_config(BASE, [override])


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


@pytest.mark.parametrize("override", ["seed=[1", "seed={", "seed='1", "seed=&a [*a]", "seed=!!python/name:os.system", "seed=\0"])
def test_an_override_whose_value_is_no_plain_yaml(override: str) -> None:
    with refused(Usage, override.replace("\0", "\\x00")):
        load_config(BASE, [override])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", "not a mapping of sections"),
        (b"# nothing\n", "not a mapping of sections"),
        (b"- train\n- optim\n", "not a mapping of sections"),
        (b"train", "not a mapping of sections"),
        (b"train:\n  epochs: 1\ntrain:\n  epochs: 2\n", "line 3: key 'train' a second time"),
        (b"train: {epochs: 1, epochs: 2}\n", "line 1: key 'epochs' a second time"),
        (b"a: &x [1]\nb: *x\n", "line 2: alias *x"),
        (b"\n\n? [a, b]\n: 1\n", "line 3: a key that is not a word"),
        (b"seed: 1\ntrain: !!python/object:os.system {}\n", "line 2: tag tag:yaml.org,2002:python/object:os.system"),
        (b"seed: !!python/object/apply:os.system ['touch owned']\n", "line 1: tag"),
        (b"seed: !mine 5\n", "line 1: tag !mine"),
        (b"seed: !!binary aGk=\n", "line 1: tag"),
        (b"train:\n\tepochs: 1\n", "line 2: not YAML: found character '\\t'"),
        (b"train: {epochs: 1\n", "not YAML"),
        (b"train: 'open\n", "not YAML"),
        (b"a: 1\n---\nb: 2\n", "line 2: not YAML"),
        (b"seed: 1\0\n", "not YAML: unacceptable character #x0000"),
        (b'data:\n  root: "a\\0b"\n', "line 2: a character that no name can hold"),
        (b'base: "a\\0b"\n', "line 1: a character that no name can hold"),
        (b'seed: 1\n"\\ud800": 1\n', "line 2: a character that no name can hold"),
        (b"seed: \xff\n", "byte 6 is not UTF-8"),
        ("seed: ü\n".encode("utf-16"), "byte 0 is not UTF-8"),
        (b"[" * 5000, "more than 20 levels"),
        (b"- " * 5000, "more than 20 levels"),
        (b"{a: " * 5000, "more than 20 levels"),
        (b"a: [" + b"1," * 30_000 + b"]\n", "20000 entries"),
        (b"#" * 1_000_001, "larger than 1,000,000 bytes"),
        (b"seed: " + b"9" * 5000, "not YAML: Exceeds the limit"),
        (b"base: 5\n", "base: 5 is not a file name"),
        (b"base: [[a.yaml]]\n", "base: ['a.yaml'] is not a file name"),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, bytes) else None,
)
def test_a_file_that_is_no_plain_yaml(tmp_path: Path, text: bytes, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, text)
    with refused(Usage, str(path), found):
        load_config(path)
    assert os.listdir(tmp_path) == ["try.yaml"]  # nothing was run


def test_a_long_value_is_not_echoed_in_full(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, f"BASE\nseed: {'a' * 100_000}\n"))
    assert len(str(caught.value)) < 400


@pytest.mark.timeout(20)
def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for path in (tmp_path, tmp_path / "pipe.yaml", Path("/dev/zero")):
        with refused(Usage, str(path), "not a file"):
            load_config(path)
    for path in (tmp_path / "none.yaml", tmp_path / "loop.yaml"):
        with refused(Usage, str(path), "no such file", "name a YAML file"):
            load_config(path)
    with refused(Usage, "file name too long"):
        load_config(tmp_path / ("a" * 300))


def test_a_base_that_is_missing_or_a_circle_is_named(tmp_path: Path) -> None:
    with refused(Usage, str(tmp_path / "none.yaml"), "no such file"):
        load_config(write(tmp_path, "base: none.yaml\n"))
    write(tmp_path, "base: try.yaml\n", "second.yaml")
    with refused(Usage, "try.yaml", "its own base file"):
        load_config(write(tmp_path, "base: second.yaml\n"))
    (tmp_path / "link.yaml").symlink_to("try.yaml")
    with refused(Usage, "link.yaml", "its own base file"):
        load_config(write(tmp_path, "base: link.yaml\n"))


def test_sections_that_have_no_default_must_be_there(tmp_path: Path) -> None:
    with refused(Usage, "model: missing", "data: missing"):
        load_config(write(tmp_path, "seed: 1\n"))


@given(st.binary(max_size=60) | st.text("abt:{}[]-*&!|>?#,'\"%@\n\t 15e.", max_size=60).map(str.encode))
def test_no_bytes_end_in_anything_but_a_refusal(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text)
    with refused(Usage, str(tmp_path_factory.getbasetemp())):
        load_config(path)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["widths", "mean", "root", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = [
    "seed",
    "model",
    "model.encoder",
    "model.normalization",
    "data",
    "data.classes",
    "augment.crop_size",
    "inference.scales",
]


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(PLACES), plain, min_size=1))
def test_any_value_at_any_place_is_accepted_or_refused(changes: dict[str, object]) -> None:
    try:
        override_config(SAMPLE_CONFIG, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    except UserError as error:
        refusal = error
        assert (refusal.code, ": : " in str(refusal)) == (Usage, False)


def test_a_mistake_ends_the_command_with_two_and_one_line_each(run_script: RunScript, tmp_path: Path) -> None:
    path = write(tmp_path, "BASE\ntrian: {}\n")
    result = run_script("show", "config", path, "seed=-1")
    assert result.returncode == 2
    assert result.stdout == ""
    assert sorted(result.stderr.splitlines()) == [
        f"error: {path}, line 2: trian: unknown key – did you mean 'train'?",
        "error: seed=-1: seed: found -1, should be greater than or equal to 0",
    ]


@pytest.mark.parametrize(("old", "new"), NEW_KEYS.items())
def test_a_renamed_key_is_refused_with_its_new_name(old: tuple[str, str], new: tuple[str, str]) -> None:
    with refused(Usage, f"{'.'.join(old)}: an earlier name – write {'.'.join(new)}"):
        load_config(ROOT / "configs" / "sample.yaml", [f"{'.'.join(old)}=1"])


def test_a_stored_configuration_of_an_earlier_version_is_read(tiny_config: Config, tmp_path: Path) -> None:
    stored = dump_config(tiny_config)
    train, augment, data, loss = (cast(dict[str, Any], stored[name]) for name in ("train", "augment", "data", "loss"))
    train |= {"memory": "lean", "log_every": train.pop("log_every_steps"), "eval_every": train.pop("eval_every_epochs")}
    train["save_every"] = train.pop("save_every_epochs")
    del train["recompute"]
    augment["sizes"] = augment.pop("shrink")
    data["ignore_id"] = data.pop("ignore_index")
    loss["hardest"] = 1.0
    expected = override_config(tiny_config, ["train.recompute=activations"])
    assert read_stored_config(stored, tmp_path) == expected
    loss["hardest"] = 0.5
    with refused(Usage, "loss.hardest: unknown key"):
        read_stored_config(stored, tmp_path)


def test_an_earlier_key_of_classes_yaml_is_refused_with_its_new_name(tmp_path: Path) -> None:
    path = data_folder(tmp_path, "names: [ground, leaf]\nignore: 9\n")
    with refused(Usage, "classes.yaml, line 2: ignore: an earlier name – write ignore_index"):
        load_config(path)


def test_the_template_is_made_from_the_schema_and_loads_with_the_keys_that_have_no_default(tmp_path: Path) -> None:
    template = ROOT / "configs" / "template.yaml"
    assert template.read_text() == config_template()
    model = json.loads(SAMPLE_CONFIG.model.model_dump_json())
    overrides = [f"model.{name}={json.dumps(model[name])}" for name in ("encoder", "decoder")]
    found = load_config(template, [*overrides, f"data.root={tmp_path}", "data.classes=sample"])
    assert found.model == SAMPLE_CONFIG.model
    assert found.train == TrainConfig()


YAML_FILES = sorted({*(ROOT / "configs").rglob("*.yaml")} - {ROOT / "configs" / "template.yaml"})


def keys_of_files(path: Path) -> list[str]:
    """The keys that a file and its base files set, one entry for each time that one is set."""
    tree, _ = read_mapping(path)
    bases = tree.pop("base", [])
    below = [key for base in (bases if isinstance(bases, list) else [bases]) for key in keys_of_files(path.parent / str(base))]
    return below + keys_in(tree)


def keys_in(tree: Tree, path: str = "") -> list[str]:
    return [
        key
        for name, value in tree.items()
        for key in (keys_in(value, f"{path}{name}.") if isinstance(value, dict) else [path + name])
    ]


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_no_file_undoes_what_its_base_files_set(path: Path) -> None:
    keys = keys_of_files(path)
    assert sorted(keys) == sorted(set(keys))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_every_value_has_a_line_of_its_own_and_a_reason(path: Path) -> None:
    free = {"root", "classes", "widths", "width", "kernel_size", "dropout"}  # without a default, or of a published network
    for line in path.read_text().splitlines():
        assert not re.match(r"[^#]*\{", line), line
        value = re.match(r"[ -]+(\w+): *([^#]*)(#.+)?$", line)
        assert not value or not value[2] or value[3] or value[1] in free, line


def test_a_batch_that_leaves_batch_normalisation_one_value_is_refused(tiny_config):
    changes = ["augment.crop_size=[16, 16]", "train.batch_size=1", "model.encoder=[{widths: [1]}, {widths: [1]}]"]
    override_config(tiny_config, [*changes, "model.decoder=[{widths: [1]}, {widths: [1]}]"])
    with refused(ExitCode.CONFIG, "batch normalisation"):
        four = "[{widths: [1]}, {widths: [1]}, {widths: [1]}, {widths: [1]}]"
        override_config(tiny_config, [*changes[:2], f"model.encoder={four}", f"model.decoder={four}"])
