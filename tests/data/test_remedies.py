"""The commands that messages recommend are commands of this program."""

import shlex
from pathlib import Path

import numpy as np
from helpers import ROOT, RunScript, refused
from PIL import Image

from segnet.classes import class_set
from segnet.data import remedies
from segnet.data.mask_files import open_mask
from segnet.data.remedies import convert_command, prepare_command
from segnet.system.errors import ExitCode


def test_the_recommended_conversion_cures_the_mask(run_script: RunScript, tmp_path: Path) -> None:
    classes, mask = class_set(("ground", "leaf")), tmp_path / "my masks" / "a.png"
    mask.parent.mkdir()
    Image.fromarray(np.array([[0, 7]], np.uint8)).save(mask)
    with refused(ExitCode.DATA, convert_command(mask), "--map 7=ID"):
        open_mask(mask, classes)
    python, script, *arguments = shlex.split(f"{convert_command(mask)} --map 7=1")
    assert (python, script) == ("python", "scripts/prepare_data.py")
    arguments[arguments.index("NEW")] = str(tmp_path / "new")
    done = run_script("prepare_data", *arguments)
    assert done.returncode == 0, done.stderr
    assert open_mask(tmp_path / "new" / "a.png", classes).tolist() == [[0, 1]]


def test_the_recommended_preparation_is_known(run_script: RunScript, tmp_path: Path) -> None:
    python, script, *arguments = shlex.split(prepare_command("voc", tmp_path / "my data"))
    assert (python, script) == ("python", "scripts/prepare_data.py")
    done = run_script("prepare_data", *arguments, "--from-archive", tmp_path / "none.tar")
    assert (done.returncode, "none.tar: no such file" in done.stderr) == (ExitCode.DATA, True), done.stderr


def test_no_other_file_of_the_folder_spells_a_command() -> None:
    others = {*(ROOT / "segnet" / "data").glob("*.py")} - {Path(remedies.__file__)}
    assert [path.name for path in others if "python scripts/" in path.read_text()] == []
