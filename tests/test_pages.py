"""Every command and every Python example of every page, and every command in the head of a recipe, is run as it stands there.

Each page has a folder like a fresh clone with the files that its reader has (`FILES`), and networks of few channels. Its lines
go to bash in their order. `SMALLER` has words that are added behind a command to make it small, `REPLACED` what stands for an
address, a number of a picture or an option. After a command, every file that it was told to write is there.

A command that is added to a page is run without a change here. Those that cannot be run are in `NOT_RUN`, each kind with its
reason, those that take long in `SLOW`: they are run with SEGNET_EXHAUSTIVE=1.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import page_files as make
import pytest
from exported_networks import Exporter
from helpers import ROOT
from page_shell import Shell
from pages import PAGES, RECIPES, blocks, commands_of

EXHAUSTIVE = bool(os.environ.get("SEGNET_EXHAUSTIVE"))
ADDRESS = "http://127.0.0.1:8000"  # of `segnet serve` on its page
TRAINING = "device=cpu data.workers=0 train.epochs=0.5 train.batch_size=2 augment.crop_size=[32,32]"
SMALLER = {
    "prepare sample": "--count 10",
    "train": TRAINING,
    "train CONFIG --overfit-one-batch": "",
    "results": f"--out runs/results {TRAINING}",
    "benchmark inference": "--size 64 64 --rounds 1",
    "benchmark train": "--size 64 64 --rounds 1",
    "benchmark gpu": "--rounds 1 --steps 4 --megapixels 0.01",
    "serve": "--port 0",
}
REPLACED = {
    "https://www.cis.upenn.edu/~jshi/ped_html": "file://$PWD/web",
    "sample_00194": "sample_00004",
    "sample_00149 sample_00184": "sample_00004 sample_00009",
    " --int8 data/sample/JPEGImages": "",  # is refused where it changes much of a network that is hardly trained
    "tensorboard --logdir runs": "tensorboard --logdir runs --port 0",
}
ONCE = {"make demo"}  # on the first page that has it
SERVERS = {"segnet serve runs/mine", "tensorboard --logdir runs"}  # run until the end of their page
SLOW = {
    "segnet plan data/sample --hours 0.1 > planned.yaml",
    "segnet train planned.yaml --run runs/planned",
    "segnet plan --check runs/planned",
    "segnet plan planned.yaml --check runs/planned",
    "segnet plan data/leaves > configs/leaves.yaml",
    "segnet results configs/camvid_segnet_cpu.yaml --splits val test --tta",
    "segnet results configs/camvid_segnet_cpu.yaml model.encoder_weights=FILE --splits val test --tta",
    "segnet results configs/camvid_segnet.yaml configs/camvid_segnet_plain.yaml --seeds 0 1 2 --splits val test --tta"
    " --minutes 9",
    "segnet results CONFIG --seeds 0 1 2",
    "segnet results CONFIG --folds 5",
    "segnet export runs/pedestrians --out pedestrians.onnx",
    "segnet export runs/mine --out page/ --runtime onnxruntime-web-1.30.0.tgz",
    "segnet benchmark gpu configs/camvid_segnet.yaml --json gpu.json",
    "segnet results configs/camvid_segnet_plain.yaml model.encoder_weights=FILE train.epochs=1.8 --splits val test",
    "segnet export runs/mine --out mine.onnx",
    "segnet export runs/mine --out mine.xml --int8 data/sample/JPEGImages",
    "segnet evaluate runs/mine --tune-cleanup",
    "python docs/screenshots.py runs/sample",
    "tensorboard --logdir runs",
}
INSTEAD = {  # of a slow command that makes a file: the package for which a test has an exported file
    "segnet export runs/pedestrians --out pedestrians.onnx": "onnxruntime",
    "segnet export runs/mine --out mine.onnx": "onnxruntime",
    "segnet export runs/mine --out mine.xml --int8 data/sample/JPEGImages": "openvino",
}
NOT_RUN = {
    r"(pip install|npm pack) .*": "fetches a package",
    r"python3 -m venv .*|source \S+/activate": "makes the reader's own environment",
    r"git clone .*": "the reader knows the address; all other commands are run in what it makes",
    r"docker .*": "needs docker: tests/test_docker.py builds the image, where there is one, and runs its command",
    r"make (test|check|crash-test)": "runs these tests and the linters; a test below looks at what make would do",
    r"segnet prepare (voc|sbd|camvid)": "fetches gigabytes; tests/preparation has small archives of the same form",
    r"#!.*": "needs Slurm: tests/test_slurm.py runs the script with stand-ins for Slurm's commands",
    r"torchrun .*": "needs several GPUs: tests/test_torchrun_examples.py reads it, tests/test_distributed.py trains two ranks",
    r"ogr2ogr .*": "needs GDAL",
    r"register-python-argcomplete --shell fish .*": "needs the shell fish",
    r"segnet show (config|model)": "names a command, without its arguments",
}
NEEDED = {  # by a part of a command or an example: the package or program without which it is not run
    "import onnxruntime": "onnxruntime",
    "drive.mp4": "imageio_ffmpeg",
    ".onnx": "onnxruntime",
    "page/": "onnxruntime",
    ".xml": "openvino",
    "--save tiff": "tifffile",
    "register-python-argcomplete": "register-python-argcomplete",
    "curl": "curl",
    "make": "make",
    "tensorboard": "tensorboard",
    "screenshots.py": "playwright",
    "docs/screenshots": "chromium",
}


def without_run(folder: Path) -> None:
    """The page trains runs/mine itself."""
    shutil.rmtree(folder / "runs")


def readers_of_readme(folder: Path) -> None:
    without_run(folder)
    make.make_public_sets(folder)
    make.make_cvat_export(folder, "export.zip")


def readers_of_data(folder: Path) -> None:
    make.make_cvat_export(folder, "export.zip")
    shutil.copytree(folder / "data" / "sample", folder / "OTHER")


def folds_for_config(folder: Path) -> None:
    make.make_folds(folder / "data" / "tiny")


def labels_before_their_export(folder: Path) -> None:
    """The page first tells what follows each of its imports."""
    make.make_leaves_by_hand(folder)
    make.make_leaf_masks(folder)


def no_leaves(folder: Path) -> None:
    shutil.rmtree(folder / "data" / "leaves", ignore_errors=True)  # an import that failed is a fault already
    (folder / "configs" / "leaves.yaml").unlink(missing_ok=True)


def next_export(maker: Callable[[Path], None]) -> Callable[[Path], None]:
    """The export of another tool, in place of the set before."""

    def begin(folder: Path) -> None:
        no_leaves(folder)
        maker(folder)

    return begin


def copies(source: str, *targets: str) -> Callable[[Path], None]:
    """The same folder under other names."""

    def copy(folder: Path) -> None:
        for target in targets:
            shutil.rmtree(folder / target, ignore_errors=True)
            shutil.copytree(folder / source, folder / target)

    return copy


def readers_of_outputs(folder: Path) -> None:
    copies("runs/mine", "runs/fold0", "runs/fold1", "runs/fold2")(folder)
    copies("data/sample/JPEGImages", "photos")(folder)
    shutil.copy(folder / "data/sample/ImageSets/Segmentation/val.txt", folder / "data/sample/ImageSets/Segmentation/test.txt")
    if importlib.util.find_spec("imageio_ffmpeg"):
        make.make_video(folder / "drive.mp4")


def readers_of_evaluation(folder: Path) -> None:
    make.make_voc_pictures(folder)
    copies("runs/mine", "runs/a", "runs/b")(folder)
    copies("data/tiny", "DIR")(folder)
    make.make_folds(folder / "data" / "tiny")


def readers_of_slurm(folder: Path) -> None:
    (script,) = [block for block in blocks(PAGES["docs/slurm.md"], "bash") if block.startswith("#!")]
    (folder / "train.sbatch").write_text(script)


def readers_of_small_sets(folder: Path) -> None:
    copies("runs/mine", "runs/first")(folder)
    shutil.copy(folder / "configs" / "sample.yaml", folder / "configs" / "mine.yaml")


def readers_of_the_tutorial(folder: Path) -> None:
    make.make_pedestrians(folder / "web" / "PennFudanPed.zip")
    (classes,) = blocks(PAGES["docs/tutorial.md"], "text")
    (folder / "pedestrians.txt").write_text(classes)


def readers_of_results(folder: Path) -> None:
    make.make_public_sets(folder)
    shutil.copy(folder / "torch" / "hub" / "checkpoints" / "vgg16-397923af.pth", folder / "FILE")


def readers_of_recipes(folder: Path) -> None:
    make.make_public_sets(folder)
    make.make_clean_pictures(folder)


FILES: dict[str, dict[str, Callable[[Path], None]]] = {  # of a page: what is made at its start, and before a command
    "README.md": {"": readers_of_readme},
    "CONTRIBUTING.md": {"": copies("runs/mine", "runs/sample")},
    "data/README.md": {"": lambda folder: make.make_cvat_export(folder, "SOURCE.zip")},
    "docs/bands.md": {"": make.make_tiles, "segnet predict runs/fields": copies("runs/mine", "runs/fields")},
    "docs/configuration.md": {"segnet train configs/sample.yaml": without_run},
    "docs/data.md": {
        "": readers_of_data,
        "segnet convert colored": make.make_leaves_by_hand,
        "segnet results CONFIG": folds_for_config,
    },
    "docs/denoising.md": {
        "": make.make_clean_pictures,
        "segnet predict runs/fields": copies("runs/denoise_bsd_cpu", "runs/fields"),
        "segnet compare A B": copies("runs/sample_denoise", "A", "B"),
        "segnet predict RUN PICTURES": copies("runs/denoise_bsd_cpu", "RUN"),
    },
    "docs/evaluation.md": {"": readers_of_evaluation},
    "docs/export.md": {"": make.make_public_sets, "segnet export runs/mine --out page/": make.make_onnxruntime_web},
    "docs/getting_started.md": {"": without_run, "segnet train sample": without_run},
    "docs/labels.md": {
        "": labels_before_their_export,
        "segnet import cvat.zip": next_export(lambda folder: make.make_cvat_export(folder, "cvat.zip")),
        "segnet import photos": next_export(make.make_labelme_photos),
        "segnet import project-1.json": next_export(make.make_label_studio_export),
        "segnet import roboflow.zip": next_export(make.make_roboflow_export),
    },
    "docs/models.md": {"": make.make_public_sets},
    "docs/outputs.md": {"": readers_of_outputs},
    "docs/results.md": {"": readers_of_results},
    "docs/slurm.md": {"": readers_of_slurm},
    "docs/small_sets.md": {"": readers_of_small_sets},
    "docs/training.md": {"": without_run, "segnet train CONFIG 'train.observers=[wandb]'": without_run},
    "docs/tutorial.md": {"": readers_of_the_tutorial},
    "recipes": {"": readers_of_recipes},
}
COMMANDS = {name: commands_of(name) for name in PAGES}
COMMANDS["recipes"] = [command for name in RECIPES for command in commands_of(name)]
EXAMPLES = {name: blocks(page, "python", "py") for name, page in PAGES.items()}


def reason_not_to_run(command: str, page: str) -> str:
    """Why a command of a page is not run; empty: it is."""
    for pattern, reason in NOT_RUN.items():
        if re.fullmatch(pattern, command, re.DOTALL):
            return reason
    if command in SLOW and not EXHAUSTIVE:
        return "takes long: run with SEGNET_EXHAUSTIVE=1"
    if command in ONCE and page != next(name for name, commands in COMMANDS.items() if command in commands):
        return "was run on another page"
    return missing_for(command)


def missing_for(text: str) -> str:
    """The package or program that a command or an example needs and that is not here; empty: all are."""
    for part, needed in NEEDED.items():
        if part in text and not (importlib.util.find_spec(needed) or shutil.which(needed)):
            return f"needs {needed}"
    return ""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Bash, in which the commands of this project are found."""
    shell = Shell(tmp_path_factory.mktemp("shell") / "programs", SMALLER)
    shell.add("sbatch", 'test -e "$CONFIG" && test -n "$RUN" && exec bash -n "$@"\n')
    for package in ("mlflow", "wandb"):
        (shell.programs / f"{package}.py").write_text(make.OBSERVER)
    return shell


@pytest.fixture(scope="module")
def clone(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the sample, a configuration CONFIG, and a run, runs/mine or RUN, that was evaluated."""
    folder = tmp_path_factory.mktemp("clone")
    make.make_clone(folder)
    make.make_weights(folder / "torch" / "hub" / "checkpoints")
    make.make_sample(folder)
    make.make_config(folder)
    assert not fault_of(shell, "segnet train configs/sample.yaml --run runs/mine && segnet evaluate runs/mine", folder)
    copies("runs/mine", "RUN")(folder)
    copies("data/sample/JPEGImages", "PICTURES")(folder)
    return folder


def fault_of(shell: Shell, line: str, folder: Path) -> str:
    """What went wrong with a line of bash: its exit code, or files that it was told to write and that are not there."""
    process = shell.start(line, folder, TORCH_HOME=str(folder / "torch"))
    printed, _ = process.communicate(timeout=600)
    missing = [path for path in written_by(line) if not (folder / path).exists()]
    if process.returncode == 0 and not missing:
        return ""
    return f"$ {line}\nexit code {process.returncode}, not written: {missing}\n{printed}"


def written_by(line: str) -> list[str]:
    """The files and folders that a command is told to write."""
    return re.findall(r"(?:--(?:out|json|output|config|run)|>) (\S+)", line)


def put_exported_file(source: Path, target: Path) -> None:
    """A copy of an exported network, under another name."""
    shutil.copy(source, target)
    if source.suffix == ".xml":
        shutil.copy(source.with_suffix(".bin"), target.with_suffix(".bin"))


def begin_server(shell: Shell, line: str, folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A server, and the address that it prints."""
    process = shell.start(f"exec {line}", folder)
    assert process.stdout
    printed = ""
    for text in process.stdout:
        printed += text
        if found := re.search(r"http://\S+?:\d+", text):
            return process, found[0]
    raise AssertionError(f"$ {line}\n{printed}")


@pytest.fixture
def page_folder(clone: Path, tmp_path: Path) -> Path:
    """A copy of the clone, which a page may change."""
    return Path(shutil.copytree(clone, tmp_path / "clone", symlinks=True))


@pytest.fixture
def servers() -> Iterator[list[subprocess.Popen[str]]]:
    """A list of servers, which are ended after the test."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.parametrize("name", [name for name, commands in COMMANDS.items() if commands or EXAMPLES.get(name)])
def test_the_commands_and_examples_of_a_page_work(
    name: str, shell: Shell, page_folder: Path, servers: list[subprocess.Popen[str]], exported: Exporter
) -> None:
    files, replaced, faults = dict(FILES.get(name, {})), dict(REPLACED), list[str]()
    files.pop("", lambda _: None)(page_folder)
    for command in COMMANDS[name]:
        if command in INSTEAD and not EXHAUSTIVE and importlib.util.find_spec(INSTEAD[command]):
            put_exported_file(exported(INSTEAD[command])[1], page_folder / written_by(command)[0])
        if reason_not_to_run(command, name):
            continue
        for beginning in [text for text in files if command.startswith(text)]:
            files.pop(beginning)(page_folder)
        line = command
        for text, other in replaced.items():
            line = line.replace(text, other)
        if command in SERVERS:
            process, replaced[ADDRESS] = begin_server(shell, line, page_folder)
            servers.append(process)
        else:
            faults.append(fault_of(shell, line, page_folder))
    for example in EXAMPLES.get(name, []):
        if missing_for(example):
            continue
        (page_folder / "example.py").write_text(example)
        faults.append(fault_of(shell, "python example.py", page_folder))
    assert not any(faults), "\n".join(filter(None, faults))


def test_a_command_that_fails_or_writes_nothing_is_a_fault(shell: Shell, tmp_path: Path) -> None:
    assert "exit code 2, not written: []\nerror: trian" in fault_of(shell, "segnet trian", tmp_path)
    assert "exit code 1" in fault_of(shell, "false | true", tmp_path)
    assert "not written: ['mask.png']" in fault_of(shell, "echo --out mask.png", tmp_path)
    assert not fault_of(shell, "touch mask.png && echo --out mask.png", tmp_path)


def test_what_the_tables_name_stands_on_the_pages() -> None:
    commands = [command for found in COMMANDS.values() for command in found]
    assert [text for text in NOT_RUN if not any(re.fullmatch(text, command, re.DOTALL) for command in commands)] == []
    texts = [*commands, *(example for examples in EXAMPLES.values() for example in examples)]
    assert [part for part in {**REPLACED, **NEEDED} if not any(part in text for text in texts)] == []
    assert (SLOW | ONCE | SERVERS | set(INSTEAD)) - set(commands) == set()
    for name, beginnings in FILES.items():
        for text in beginnings:
            assert any(command.startswith(text) for command in COMMANDS[name]), f"{name}: {text}"


def test_nearly_all_commands_are_run() -> None:
    """A change of how pages are written shall not leave the test above without work."""
    reasons = [reason_not_to_run(command, name) for name, commands in COMMANDS.items() for command in commands]
    assert reasons.count("") > 130
    assert all(commands_of(name) for name in RECIPES if name.count("/") == 1)


def test_every_picture_is_made_by_a_command() -> None:
    made = {Path(path).name for commands in COMMANDS.values() for command in commands for path in written_by(command)}
    made |= set(re.findall(r"\w+\.png", (ROOT / "docs" / "screenshots.py").read_text()))
    assert {path.name for path in (ROOT / "docs").glob("*.png")} <= made


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
def test_every_target_of_make_exists(page_folder: Path) -> None:
    targets = {command.split()[1] for found in COMMANDS.values() for command in found if command.startswith("make ")}
    assert targets == {"demo", "test", "check", "crash-test"}
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=page_folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        named = re.findall(r"tests/\S+|scripts/\S+", done.stdout)
        assert [path for path in named if not (ROOT / path).exists()] == []
