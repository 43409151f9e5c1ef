"""YAML as it is meant: numbers, names and base files; what a configuration does not need is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from config_files import BASE, SAMPLE_CONFIG, write_config
from helpers import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from segnet.config.loading import config_to_yaml, load_config
from segnet.config.sections import Config
from segnet.config.yaml_files import parse_yaml
from segnet.system.errors import ExitCode

Usage = ExitCode.CONFIG


def test_the_file_wins_over_its_bases_the_later_base_over_the_earlier_and_overrides_over_all(tmp_path: Path) -> None:
    write_config(tmp_path, "seed: 1\ntrain: {epochs: 1, batch_size: 1, log_every_steps: 1, ema_decay: 0.1}\n", "first.yaml")
    write_config(tmp_path, "train: {batch_size: 2, log_every_steps: 2, ema_decay: 0.2}\n", "second.yaml")
    path = write_config(tmp_path, f"base: [{BASE}, first.yaml, second.yaml]\ntrain: {{log_every_steps: 3, ema_decay: 0.3}}\n")
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
    path = write_config(tmp_path, prefix + f"base: {BASE}\r\nseed: 3\r\n".encode())
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
    assert load_config(write_config(tmp_path, config_to_yaml(config))) == config


@pytest.mark.parametrize("override", ["", "=", "=5", "train.epochs", "train..epochs=5", ".=1", "--train.epochs:5"])
def test_an_override_that_is_none(override: str) -> None:
    with refused(Usage, "not KEY=VALUE", "train.epochs=5"):
        load_config(BASE, [override])


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
    path = write_config(tmp_path, text)
    with refused(Usage, str(path), found):
        load_config(path)
    assert os.listdir(tmp_path) == ["try.yaml"]  # nothing was run


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
        load_config(write_config(tmp_path, "base: none.yaml\n"))
    write_config(tmp_path, "base: try.yaml\n", "second.yaml")
    with refused(Usage, "try.yaml", "its own base file"):
        load_config(write_config(tmp_path, "base: second.yaml\n"))
    (tmp_path / "link.yaml").symlink_to("try.yaml")
    with refused(Usage, "link.yaml", "its own base file"):
        load_config(write_config(tmp_path, "base: link.yaml\n"))


@given(st.binary(max_size=60) | st.text("abt:{}[]-*&!|>?#,'\"%@\n\t 15e.", max_size=60).map(str.encode))
def test_no_bytes_end_in_anything_but_a_refusal(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text)
    with refused(Usage, str(tmp_path_factory.getbasetemp())):
        load_config(path)
