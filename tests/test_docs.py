"""What the pages tell people to type works as it stands there, on a small copy of the sample data.

A block without a language holds commands that are run, in the order of `RUN`, each once. Blocks marked bash need a network, a
GPU, hours, or files that only the reader has.
"""

import io
import json
import re
import shlex
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, folder_bytes, write_pair
from PIL import Image
from script_server import script_environment, script_server

from segnet.__main__ import COMMANDS
from segnet.classes import class_set
from segnet.commands.import_labels import build_parser as build_import_parser
from segnet.config.key_page import configuration_page
from segnet.config.loading import load_config
from segnet.preparation.sample import generate_sample

README = (ROOT / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}
RUN = ("getting_started", "training", "evaluation", "prediction", "outputs", "export", "models")
SMALL_NETWORK = "model: {encoder: [{widths: [8]}, {widths: [8]}], decoder: [{widths: [8]}, {widths: [8]}]}\n"
DRIVER = """
import runpy, shlex, sys
for command in sys.argv[1:]:
    print("$", command, flush=True)
    sys.argv = shlex.split(command)
    try:
        runpy.run_module("segnet", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""


def code_blocks(page: str, language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [text for name, text in blocks if name == language]


def as_segnet(text: str) -> str:
    """`text` with `python scripts/NAME.py` spelled as `segnet NAME`, which does the same."""
    text = re.sub(r"python scripts/prepare_data\.py (check|convert|split|import)\b", r"segnet \1", text)
    return re.sub(r"python scripts/(\w+)\.py", r"segnet \1", text.replace("python scripts/prepare_data.py", "segnet prepare"))


def commands_of(page: str) -> list[str]:
    """The lines that are run, as `segnet NAME …`."""
    lines = [line for block in code_blocks(as_segnet(page), "") for line in block.splitlines()]
    return [line for line in lines if line.startswith("segnet ")]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a fresh clone after `prepare_data.py sample`, with 10 pictures instead of 300 and a small network."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "configs", folder / "configs")
    generate_sample(folder / "data" / "sample", count=10)
    network = folder / "configs" / "model" / "segnet_small.yaml"
    assert f"model/{network.name}" in (folder / "configs" / "sample.yaml").read_text()
    network.write_text(SMALL_NETWORK)
    shutil.copy(folder / "data" / "sample" / "JPEGImages" / "sample_00004.jpg", folder / "street.jpg")
    return folder


def run(script: str, arguments: list[str], folder: Path) -> None:
    """Run a Python script."""
    path = folder / "script.py"
    path.write_text(script)
    done = script_server().run([str(path), *arguments], folder, script_environment(), timeout=600)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_the_commands_work_in_their_order(clone):
    commands = commands_of(README)
    assert [command.split()[1] for command in commands] == ["train", "evaluate", "predict"]
    for page in RUN:
        commands += [command for command in commands_of(PAGES[page]) if command not in commands]
    drawing = "segnet prepare sample"  # which would draw 300 pictures
    assert drawing in commands
    int8 = " --int8 data/sample/JPEGImages"  # which is refused where it changes much of a network that is hardly trained
    assert any(command.endswith(int8) for command in commands)
    run(DRIVER, [command.removesuffix(int8) for command in commands if command != drawing], clone)
    assert len(list((clone / "masks").glob("sample_*[0-9].png"))) == 10
    assert len(list((clone / "masks").glob("*.overlay.jpg"))) == 10
    assert (clone / "runs" / "mine" / "evaluation" / "val" / "metrics.json").exists()
    examples = [block for page in (README, *(PAGES[name] for name in RUN)) for block in code_blocks(page, "python")]
    for example in examples:
        run(example, [], clone)
    assert len(examples) == 3


def test_an_own_data_set_is_converted_checked_and_configured(clone, monkeypatch):
    page = PAGES["data"]
    classes, recipe = code_blocks(page, "yaml")
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
    commands = commands_of(page)
    assert [command.split()[1] for command in commands] == ["convert", "convert", "split", "check"]
    run(DRIVER, commands, clone)
    assert folder_bytes(leaves / "SegmentationClass").keys() == masks.keys()
    report = json.loads((clone / "leaves.json").read_text())
    assert [split["pictures"] for split in report["splits"]] == [3, 1]
    (clone / "configs" / "leaves.yaml").write_text(recipe)
    monkeypatch.chdir(clone)
    config = load_config(clone / "configs" / "leaves.yaml")
    assert config.data.class_set == class_set(("background", "leaf", "spot"), ((0, 0, 0), (60, 170, 90), (230, 75, 60)))


def write_pedestrians(path: Path, count: int = 10) -> None:
    """An archive with the files of Penn-Fudan: streets of noise with one to three dark people, and masks that number them."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PennFudanPed/readme.txt", "1. Directory structure:\n")
        for number in range(1, count + 1):
            picture, mask = rng.integers(120, 160, (48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)
            for person in range(rng.integers(1, 4)):
                mask[8:44, 20 * person + 4 : 20 * person + 12] = person + 1
            picture[mask > 0] //= 3
            name = f"FudanPed{number:05d}"
            for file, pixels in ((f"PNGImages/{name}.png", picture), (f"PedMasks/{name}_mask.png", mask)):
                content = io.BytesIO()
                Image.fromarray(pixels).save(content, "PNG")
                archive.writestr(f"PennFudanPed/{file}", content.getvalue())
            archive.writestr(f"PennFudanPed/Annotation/{name}.txt", "# Compatible with PASCAL Annotation Version 1.00\n")


def test_the_tutorial_goes_from_the_archive_to_onnx(tmp_path, exported):
    """Its export alone is not run, because that of docs/export.md is: another exported network takes its place."""
    page = PAGES["tutorial"]
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    write_pedestrians(tmp_path / "PennFudanPed.zip")
    (classes,) = code_blocks(page, "text")
    (tmp_path / "pedestrians.txt").write_text(classes)
    training = "segnet train configs/pedestrians.yaml"
    short = f"{training} train.epochs=1 augment.crop_size=[32,32] data.workers=0 device=cpu"
    commands = commands_of(page)
    before = commands[: commands.index("segnet export runs/pedestrians --out pedestrians.onnx")]
    assert training in before
    run(DRIVER, [short if command == training else command for command in before], tmp_path)
    assert len(list((tmp_path / "people").glob("*.overlay.jpg"))) == 10
    assert "pedestrian" in (tmp_path / "runs" / "pedestrians" / "model_card.md").read_text()
    shutil.copy(tmp_path / "data" / "pedestrians" / "JPEGImages" / "FudanPed00001.png", tmp_path / "street.jpg")
    shutil.copy(exported("onnxruntime")[1], tmp_path / "pedestrians.onnx")
    (example,) = code_blocks(page, "python")
    run(f"{example}\nassert mask.shape == (48, 64)\n", [], tmp_path)


def test_the_demo_of_denoising_works_on_a_small_sample(clone):
    commands = code_blocks(PAGES["denoising"], "bash")[0].splitlines()
    assert [command.split()[1] for command in commands] == ["prepare", "train", "evaluate", "show"]
    commands[1] += " train.epochs=0.4 train.batch_size=2 augment.crop_size=[16,16] device=cpu"
    commands[1] += " 'model.encoder=[{widths: [4]}, {widths: [4]}]' 'model.decoder=[{widths: [4]}, {widths: [4]}]'"
    run(DRIVER, [command.replace("sample_00194", "sample_00004") for command in commands[1:]], clone)
    assert (clone / "restored.png").exists()


def test_the_page_of_labels_gives_options_that_the_import_has():
    """The formats have tests of their own; here each command line is parsed, and each value that is proposed is one."""
    page = PAGES["labels"]
    lines = [as_segnet(line) for block in code_blocks(page, "bash") for line in block.splitlines() if " import " in line]
    assert len(lines) == 4
    proposed = re.findall(r"`(--[a-z]+ \w+)`", page)
    assert len(proposed) == 3
    for more in proposed:
        build_import_parser().parse_args(shlex.split(f"{lines[0]} {more}")[2:])
    for line in lines:
        assert build_import_parser().parse_args(shlex.split(line)[2:]).out == Path("data/leaves")


@pytest.mark.parametrize(
    "path", ["README.md", "CONTRIBUTING.md", "data/README.md", *(f"docs/{name}.md" for name in sorted(PAGES))]
)
def test_every_file_that_is_linked_or_named_exists(path):
    page = (ROOT / path).read_text()
    linked = [(ROOT / path).parent / target for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page)]
    named = [ROOT / name for name in re.findall(r"`((?:segnet|configs|scripts|tests)/[\w/.]+)`", page)]
    to_be_written = {ROOT / f"configs/{name}" for name in ("leaves.yaml", "pedestrians.yaml", "schema.json")}  # by the reader
    assert [path for path in [*linked, *named] if not path.exists() and path not in to_be_written] == []


def test_every_architecture_has_a_row():
    names = [path.stem for path in (ROOT / "configs" / "model").glob("*.yaml")]
    assert [name for name in names if f"`{name}`" not in PAGES["models"]] == []


def test_every_command_is_named_on_a_page():
    pages = as_segnet("".join(PAGES.values()))
    assert [name for name in COMMANDS if f"segnet {name}" not in pages] == []


def test_the_readme_is_short_and_links_every_page():
    assert len(README.split()) <= 900
    assert [name for name in PAGES if f"(docs/{name}.md)" not in README] == []


def test_the_page_of_keys_is_that_of_the_sections():
    assert PAGES["configuration"] == configuration_page()
