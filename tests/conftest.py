"""Shared fixtures: a tiny network, a tiny data set, a tiny checkpoint, and the scripts as a user runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_networks import Exporter
from helpers import CLASSES, ROOT, RunScript, tiny_config_for, tiny_mask, write_pair, write_split
from hypothesis import settings
from script_server import script_environment, script_server

from segnet.classes import ClassSet, class_set
from segnet.config.loading import config_to_yaml
from segnet.config.sections import Config
from segnet.layers.native import find_kernel
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import Checkpoint, save_checkpoint

# What an earlier run compiled may be for other instruction sets than this one uses, which inductor's cache does not ask.
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"

if find_kernel().kernel is None:  # then each command would print a note
    os.environ["SEGNET_NATIVE"] = "0"

settings.register_profile("segnet", deadline=None, derandomize=True, database=None)  # the same examples every time
settings.load_profile("segnet")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Bits must not depend on the number of cores, and tiny tensors are not worth a second thread."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny_classes() -> ClassSet:
    """The three classes of `tiny_data`."""
    return class_set(CLASSES)


@pytest.fixture(scope="session")
def _tiny_data_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny") / "data"
    for split, count in (("train", 6), ("val", 3)):
        names = [f"{split}_{index}" for index in range(count)]
        for index, name in enumerate(names):
            write_pair(root, name, tiny_mask(seed=index + 10 * (split == "val")), class_set(CLASSES))
        write_split(root, split, names)
    return root


@pytest.fixture
def tiny_data(_tiny_data_once: Path, tmp_path: Path) -> Path:
    """A data folder in VOC's layout: 6 train and 3 val pictures of 32×32, 3 classes told apart by colour, a 255 border.

    It is the test's own: change it as you like.
    """
    return Path(shutil.copytree(_tiny_data_once, tmp_path / "data"))


@pytest.fixture
def tiny_config(tiny_data: Path) -> Config:
    """Two stages of widths 4 and 8 on `tiny_data`: 2 epochs of 3 steps, on the CPU, in float32, without workers."""
    return tiny_config_for(tiny_data)


@pytest.fixture
def tiny_config_file(tiny_config: Config, tmp_path: Path) -> Path:
    """`tiny_config` as a YAML file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(config_to_yaml(tiny_config))
    return path


@pytest.fixture
def tiny_run(tiny_config: Config, tmp_path: Path) -> Path:
    """A run folder whose best.pt holds an untrained network."""
    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    weights = build_model(tiny_config.model, len(CLASSES)).state_dict()
    save_checkpoint(folder / "best.pt", Checkpoint(tiny_config, step=0, score=None, weights=dict(weights)))
    return folder


@pytest.fixture
def run_script() -> RunScript:
    """run_script("train", config, "--run", folder): scripts/train.py in a process of its own, from the repository's root.

    The result has .returncode, .stdout and .stderr; nothing is raised for an exit code. The GPU is hidden. With `fresh`, and
    where the test has changed a variable that matters at the start, the process is not a fork.
    """

    server = script_server()

    def run(
        name: str, *arguments: object, cwd: Path = ROOT, timeout: float = 120, fresh: bool = False
    ) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
        environment = script_environment()
        if fresh or not server.fits(environment):
            command = [sys.executable, *command]
            return subprocess.run(command, cwd=cwd, env=environment, timeout=timeout, capture_output=True, text=True)
        return server.run(command, cwd, environment, timeout)

    return run


@pytest.fixture
def model(tiny_config: Config) -> EncoderDecoder:
    """The untrained network of `tiny_config`."""
    torch.manual_seed(0)
    return build_model(tiny_config.model, len(CLASSES))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """exported(package, name): the network, and the file of it for onnxruntime or openvino, made once."""
    return Exporter(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, headless."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium here: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install -r requirements-dev.txt")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium)
        yield running
        running.close()
