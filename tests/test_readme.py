"""What the README tells people to type works as it stands there, on a small copy of the sample data."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, folder_bytes, write_pair
from PIL import Image

from segnet.classes import class_set
from segnet.config.loading import load_config
from segnet.preparation.sample import generate_sample

README = (ROOT / "README.md").read_text()


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a fresh clone after `prepare_data.py sample`, with 20 pictures instead of 300."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    generate_sample(folder / "data" / "sample", count=20)
    return folder


def run(command: str, folder: Path) -> None:
    executable = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_the_commands_work_in_their_order(clone):
    block = next(block for block in code_blocks("") if "scripts/train.py" in block)
    commands = [line for line in block.splitlines() if line.startswith("python ")]
    assert [command.split()[1] for command in commands] == ["scripts/train.py", "scripts/evaluate.py", "scripts/predict.py"]
    for command in commands:
        run(command, clone)
    assert len(list((clone / "masks").glob("*.png"))) == 20
    assert len(list((clone / "masks").glob("*.overlay.jpg"))) == 20
    assert (clone / "runs" / "mine" / "evaluation" / "val" / "metrics.json").exists()
    (python,) = code_blocks("python")
    (clone / "example.py").write_text(python)
    run("python example.py", clone)


def test_an_own_data_set_is_converted_checked_and_configured(clone, monkeypatch):
    classes, recipe = code_blocks("yaml")
    leaves = clone / "data" / "leaves"
    for index in range(4):
        mask = (np.arange(64 * 64).reshape(64, 64) // (300 + index) % 3).astype(np.uint8)
        write_pair(leaves, str(index), mask, class_set(("background", "leaf", "spot")))
        (clone / "colored").mkdir(exist_ok=True)
        (clone / "binary").mkdir(exist_ok=True)
        colors = np.array([[0, 0, 0], [60, 170, 90], [230, 75, 60]], np.uint8)
        Image.fromarray(colors[mask]).save(clone / "colored" / f"{index}.png")
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(clone / "binary" / f"{index}.png")
    masks = folder_bytes(leaves / "SegmentationClass")
    shutil.rmtree(leaves / "SegmentationClass")
    (leaves / "classes.yaml").write_text(classes)
    mine = re.compile(r"python scripts/prepare_data.py (convert|split|check) ")
    commands = [line for line in README.splitlines() if mine.match(line)]
    assert [command.split()[2] for command in commands] == ["convert", "convert", "split", "check"]
    for command in commands:
        run(command, clone)
    assert folder_bytes(leaves / "SegmentationClass").keys() == masks.keys()
    report = json.loads((clone / "leaves.json").read_text())
    assert [split["pictures"] for split in report["splits"]] == [3, 1]
    (clone / "configs" / "leaves.yaml").write_text(recipe)
    monkeypatch.chdir(clone)
    config = load_config(clone / "configs" / "leaves.yaml")
    assert config.data.class_set == class_set(("background", "leaf", "spot"), ((0, 0, 0), (60, 170, 90), (230, 75, 60)))


def test_every_file_that_is_linked_or_named_exists():
    linked = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"`((?:segnet|configs|scripts)/[\w/.]+)`", README)
    to_be_written = {"configs/leaves.yaml"}  # by the reader
    assert [path for path in linked if not (ROOT / path).exists() and path not in to_be_written] == []


def test_every_script_and_architecture_is_mentioned():
    names = [path.name for path in [*(ROOT / "scripts").glob("*.py"), *(ROOT / "configs" / "model").glob("*.yaml")]]
    assert [name for name in names if name.removesuffix(".yaml") not in README] == []
