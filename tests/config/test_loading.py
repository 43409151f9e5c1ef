"""A configuration is loaded and overridden; another data folder must have the same classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import write_config
from helpers import CLASSES, RunScript, refused

from segnet.classes import class_set
from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.system.errors import ExitCode

Usage = ExitCode.CONFIG


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


def test_a_mistake_across_keys_is_said_of_the_override(tiny_config: Config) -> None:
    with refused(Usage, "data.colors=[[0, 0, 0]]: data: 1 colors for 3 classes"):
        override_config(tiny_config, ["data.colors=[[0, 0, 0]]"])


def test_a_mistake_ends_the_command_with_two_and_one_line_each(run_script: RunScript, tmp_path: Path) -> None:
    path = write_config(tmp_path, "BASE\ntrian: {}\n")
    result = run_script("show", "config", path, "seed=-1")
    assert result.returncode == 2
    assert result.stdout == ""
    assert sorted(result.stderr.splitlines()) == [
        f"error: {path}, line 2: trian: unknown key – did you mean 'train'?",
        "error: seed=-1: seed: found -1, should be greater than or equal to 0",
    ]
