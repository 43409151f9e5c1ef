"""The commands as a user meets them: help, mistakes, exit codes."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers import ROOT, folder_bytes

from segnet.data.images import open_image

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_opens_with_three_examples(run_script, name):
    found = run_script(name, "--help", fresh=True)
    assert found.returncode == 0
    examples = [line for line in found.stdout.splitlines() if line.strip().startswith(f"python scripts/{name}.py")]
    assert len(examples) == 3


MISTAKES = [
    ("train", ["configs/none.yaml"], 2, "configs/none.yaml: no such file"),
    ("train", ["configs/sample.yaml", "train.epoch=3"], 2, "did you mean 'epochs'?"),
    ("train", ["configs/sample.yaml", "data.root=/nowhere", "--run", "{tmp}/run"], 3, "/nowhere/ImageSets"),
    ("train", ["configs/sample.yaml", "device=cuda", "--run", "{tmp}/run"], 5, "no usable GPU"),
    ("train", ["configs/sample.yaml", "--overfit-one-batch", "0", "--run", "{tmp}/run"], 2, "0: expected 1 to 1000000"),
    ("evaluate", ["{tmp}"], 4, "no best.pt"),
    ("evaluate", ["{tmp}/none.pt"], 4, "no such file"),
    ("compare", ["{tmp}", "{tmp}/none"], 3, "--split val"),
    ("compare", ["{tmp}/none", "{tmp}"], 3, "none: no such folder"),
    ("compare", ["{tmp}", "{tmp}", "--samples", "0"], 2, "expected 1 to 1000000"),
    ("predict", ["{tmp}", "none.jpg", "--out", "{tmp}/masks"], 4, "no best.pt"),
    ("predict", ["{tmp}"], 2, "required"),
    ("predict", ["{tmp}", "device=cpu", "--out", "{tmp}/masks"], 2, "INPUT: no picture is named"),
    ("predict", ["{tmp}", "fps=10/*.jpg", "--out", "{tmp}/masks"], 3, "fps=10/*.jpg: no pictures here"),
    ("predict", ["{tmp}", "x.jpg", "inferense.flip=true", "--out", "{tmp}/masks"], 2, "did you mean inference.flip=…?"),
    ("evaluate", ["{tmp}", ""], 4, "no best.pt"),
    ("predict", ["{tmp}", "none/*.jpg", "--out", "{tmp}/masks"], 3, "no pictures here"),
    ("show", ["config", "README.md"], 2, "README.md"),
    ("prepare_data", ["convert", "{tmp}", "--out", "{tmp}/masks"], 2, "give --classes, --map or --threshold"),
]


@pytest.mark.parametrize(("name", "arguments", "code", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_its_exit_code(run_script, tmp_path, name, arguments, code, message):
    found = run_script(name, *[argument.format(tmp=tmp_path) for argument in arguments])
    assert found.returncode == code, found.stderr
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "masks").exists()
    assert not (tmp_path / "run").exists()


def test_a_bad_picture_among_good_ones_is_exit_7(run_script, tiny_run, tiny_data, tmp_path):
    (tiny_data / "JPEGImages" / "broken.jpg").write_bytes(b"<html>")
    found = run_script("predict", tiny_run, tiny_data / "JPEGImages", "--out", tmp_path / "masks")
    assert found.returncode == 7
    assert "broken.jpg  not a readable picture" in found.stderr
    assert len(list((tmp_path / "masks").glob("*.png"))) == 9


def test_show_prints_a_schema_that_knows_every_section(run_script):
    schema = json.loads(run_script("show", "schema").stdout)
    assert {"base", "model", "data", "augment", "loss", "optim", "train", "inference"} <= schema["properties"].keys()


def test_the_sheet_of_augmented_pictures_has_them_beside_their_masks(run_script, tiny_config_file, tmp_path):
    found = run_script("show", "augment", tiny_config_file, "augment.rotation=9", "--out", tmp_path / "a.png", "--count", 5)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.count("train_") == 5
    assert open_image(tmp_path / "a.png").shape == (3, 2 * 32 + 4, 8 * 32 + 7 * 4)  # four pairs and one
    assert run_script("show", "augment", tiny_config_file, "--out", tmp_path / "a.png", "--count", 0).returncode == 2


def test_the_data_benchmark_ends_with_its_numbers_as_json(run_script, tiny_config_file, tiny_data, tmp_path):
    import json

    before = folder_bytes(tiny_data)
    options = ["data.workers=1", "--rounds", 2, "--gpu-rate", 500, "--json", tmp_path / "data.json"]
    found = run_script("benchmark", "data", tiny_config_file, *options)
    assert (found.returncode, found.stderr) == (0, "")
    document = json.loads(found.stdout.splitlines()[-1])
    assert document == json.loads((tmp_path / "data.json").read_text())
    assert document["per_core"].keys() == {"plain PIL", "from files", "from cache", "from cache for a GPU"}
    assert all(rate["low"] <= rate["median"] <= rate["high"] for rate in document["per_core"].values())
    assert document["workers"]["count"] == 1
    assert document["gpu"]["workers_needed"]["from files"] >= 1
    assert folder_bytes(tiny_data) == before


def test_an_evaluation_outlives_a_terminal_that_lacks_its_signs(run_script, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    found = run_script("evaluate", tiny_run, "--out", tmp_path / "größe")
    assert (found.returncode, "gr\\xf6\\xdfe" in found.stdout) == (0, True), found.stderr
    assert (tmp_path / "größe" / "report.html").exists()


def test_training_and_prediction_take_a_folder_that_is_not_utf_8(run_script, tiny_config_file, tiny_data, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/l\xe9"))
    found = run_script("train", tiny_config_file, "train.epochs=1", "--run", folder / "run")
    assert (found.returncode, len(found.stderr.splitlines())) == (0, 1)
    assert "tensorboard" in found.stderr
    shutil.copy(tiny_data / "JPEGImages" / "val_0.jpg", folder / os.fsdecode(b"p\xe9.jpg"))
    found = run_script("predict", folder / "run", folder / os.fsdecode(b"p\xe9.jpg"), "--out", folder, "--save", "mask,json")
    assert (found.returncode, found.stderr) == (0, "")
    assert (folder / os.fsdecode(b"p\xe9.png")).exists()
    assert json.loads((folder / os.fsdecode(b"p\xe9.json")).read_text())["picture"] == os.fsdecode(b"p\xe9.jpg")
