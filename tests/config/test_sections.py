"""The settings: their types and ranges, what does not fit together, and a sentence about each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from config_files import BASE, SAMPLE_CONFIG, data_folder
from helpers import CLASSES, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from segnet.classes import CAMVID, class_set
from segnet.config.data_folder import load_data_folder
from segnet.config.loading import config_schema, load_config, override_config
from segnet.config.sections import Config
from segnet.system.errors import ExitCode, UserError

Usage = ExitCode.CONFIG


def test_class_tables(tiny_config: Config) -> None:
    assert tiny_config.data.class_set == class_set(CLASSES)
    assert override_config(tiny_config, ["data.classes=camvid"]).data.class_set == CAMVID
    colored = override_config(tiny_config, ["data.colors=[[1, 2, 3], [4, 5, 6], [7, 8, 9]]"])
    assert colored.data.class_set.colors == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


@pytest.mark.parametrize(("name", "cure"), [("crack", "[background, crack]"), ("background", "[background, …]")])
def test_a_single_class_is_refused_with_the_way_out(name: str, cure: str, tmp_path: Path) -> None:
    path = data_folder(tmp_path, f"names: [{name}]\n")
    for load in (lambda: load_config(path), lambda: load_data_folder(tmp_path / "leaves")):
        with refused(Usage, f"classes.yaml, line 1: data.classes: '{name}' alone", f"write {cure}", "--map 255=1"):
            load()
    with refused(Usage, f"data.classes=[{name}]: data.classes: '{name}' alone"):
        load_config(BASE, [f"data.classes=[{name}]"])


@pytest.mark.parametrize("key", ["data.root", "data.cache_folder", "model.encoder_weights", "model.weights"])
def test_an_empty_path_is_none(key: str, tmp_path: Path) -> None:
    with refused(Usage, f"{key}='': {key}: found '', should have at least 1 character"):
        load_config(data_folder(tmp_path, "names: [a, b]"), [f"{key}=''"])
    with pytest.raises(UserError) as caught:
        load_config(data_folder(tmp_path, "names: [a, b]"), [f"{key}=''"])
    assert caught.value.also == ()  # not that the classes are missing, too


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
        ("data.classes=vox", "found 'vox', should be 'voc', 'camvid', 'sample' or 'none'"),
        ("data.classes=[a, no]", "data.classes.1: found False, should be a valid string – put it in quotes"),
        ("data.classes=[]", "data.classes: "),
        ("data.colors=[[0, 0, 256]]", "found 256, should be less than or equal to 255"),
        ("augment.crop_size=[32]", "augment.crop_size: found [32], should be a list of 2"),
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
            "decoder stage 1 unpools 8 channels by pooling indices of 4",
        ),
        (
            "model={upsampling: bilinear, skips: add, "
            "encoder: [{widths: [4]}, {widths: [8]}], decoder: [{widths: [8]}, {widths: [4]}]}",
            "decoder stage 1 adds a skip of 4 channels to 8 channels; let what comes before it end with 4",
        ),
        (
            "model={encoder: [{widths: [4]}], decoder: [{widths: [4], pool: false}]}",
            "pool: unknown key – known here: widths, dropout",
        ),
    ],
)
def test_values_that_do_not_fit_each_other(override: str, found: str) -> None:
    with refused(Usage, found):
        load_config(BASE, [override])


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


def test_what_is_of_no_use_without_batch_normalisation_is_refused(tiny_config):
    with refused(Usage, "train.recompute: activations has no effect without model.batch_norm; write stages"):
        override_config(tiny_config, ["model.batch_norm=false", "train.recompute=activations"])


def test_a_batch_that_leaves_batch_normalisation_one_value_is_refused(tiny_config):
    changes = ["augment.crop_size=[16, 16]", "train.batch_size=1", "model.encoder=[{widths: [1]}, {widths: [1]}]"]
    override_config(tiny_config, [*changes, "model.decoder=[{widths: [1]}, {widths: [1]}]"])
    with refused(ExitCode.CONFIG, "batch normalisation"):
        four = "[{widths: [1]}, {widths: [1]}, {widths: [1]}, {widths: [1]}]"
        override_config(tiny_config, [*changes[:2], f"model.encoder={four}", f"model.decoder={four}"])
    override_config(tiny_config, [*changes[:2], f"model.encoder={four}", f"model.decoder={four}", "model.batch_norm=false"])
    unpooled = four.replace("}", ", pool: false}", 1)
    override_config(tiny_config, [*changes[:2], f"model.encoder={unpooled}", f"model.decoder={four}"])
