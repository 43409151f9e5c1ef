"""`prepare_data.py import` as a user runs it: help, table, faults merged, a configuration to train with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import RunScript
from label_exports import photo, run_import, write_array, write_json

from segnet.importing.report import import_table
from segnet.importing.source import merged_error
from segnet.system.errors import ExitCode, UserError, data_error, raise_first

MASK = np.zeros((24, 32), dtype=np.uint8)
MASK[3:9, 4:20] = 1


def pairs(folder: Path, count: int = 3, size: tuple[int, int] = (24, 32)) -> Path:
    for number in range(count):
        photo(folder / "images" / f"{number}.jpg", size, seed=number)
        write_array(folder / "masks" / f"{number}.png", np.indices(size).sum(axis=0) % 2 * (number % 2))
    return folder


def test_help_begins_with_three_examples(run_script: RunScript) -> None:
    shown = run_script("prepare_data", "import", "--help")
    assert shown.returncode == 0
    assert shown.stdout.count("python scripts/prepare_data.py import") == 3
    assert "COCO JSON" in " ".join(shown.stdout.split())  # lines are wrapped anywhere


def test_import_prints_its_table_and_a_second_run_does_nothing(run_script: RunScript, tmp_path: Path) -> None:
    arguments = (
        "prepare_data",
        "import",
        pairs(tmp_path / "in"),
        "--out",
        tmp_path / "out",
        "--config",
        tmp_path / "c" / "x.yaml",
    )
    done = run_script(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "pairs of pictures and masks (recognised by masks/0.png): 3 pictures"
    assert lines[2].split() == ["0", "background", "0", "0", "0", "3", "83.33", "%", "0", "and", "1"]
    assert lines[-3:] == [
        f"{tmp_path / 'out'}: 3 all",
        f"next: python scripts/prepare_data.py split {tmp_path / 'out'} --val 0.2",
        f"{tmp_path / 'c' / 'x.yaml'}: written",
    ]
    again = run_script(*arguments)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert "is there already" in again.stdout


def test_faults_of_one_kind_are_one_line_unless_all_are_asked_for(run_script: RunScript, tmp_path: Path) -> None:
    folder = pairs(tmp_path / "in", 9)
    for number in (0, 2, 3, 4, 5, 6, 7, 8):
        (folder / "images" / f"{number}.jpg").unlink()
    arguments = ("prepare_data", "import", folder, "--out", tmp_path / "out")
    done = run_script(*arguments)
    assert (done.returncode, done.stdout) == (ExitCode.DATA, "")
    assert len(done.stderr.splitlines()) == 1
    assert "8 of this kind" in done.stderr
    assert len(run_script(*arguments, "--verbose").stderr.splitlines()) == 8
    assert not (tmp_path / "out").exists()


def test_choices_reach_the_import(run_script: RunScript, tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "a.jpg")
    photo(tmp_path / "photos" / "b.jpg", seed=1)
    objects = [{"id": k, "image_id": 1, "category_id": k, "segmentation": [[0, 0, 9 * k, 0, 9 * k, 9, 0, 9]]} for k in (1, 2)]
    table = {
        "images": [{"id": k, "file_name": name} for k, name in ((1, "a.jpg"), (2, "b.jpg"))],
        "annotations": objects,
        "categories": [{"id": 1, "name": "leaf"}, {"id": 2, "name": "stem"}],
    }
    path = write_json(tmp_path / "in" / "x.json", table)
    (tmp_path / "order.txt").write_text("stem\nleaf\n")
    options = ("--overlap", "ignore", "--unlabelled", "skip", "--classes", tmp_path / "order.txt", "--format", "coco")
    done = run_script("prepare_data", "import", path, "--out", tmp_path / "out", "--pictures", tmp_path / "photos", *options)
    assert done.returncode == 0, done.stderr
    assert "1 pictures, 1 without a label left out" in done.stdout
    assert [line.split()[1] for line in done.stdout.splitlines()[2:5]] == ["background", "stem", "leaf"]
    assert "255 ignored" in done.stdout


def test_merged_errors_keep_kinds_and_remedies_apart() -> None:
    faults = [data_error(f"{n}.json", f"shape {n} 'leaf{n}' is odd", "mend it") for n in range(5)]
    faults += [data_error("x.json", "something else"), data_error("y.json", "shape 9 'z' is odd", "another remedy")]
    with pytest.raises(UserError) as caught:
        raise_first(faults)
    lines = str(merged_error(caught.value)).splitlines()
    assert len(lines) == 3
    assert "5 of this kind" in lines[0]


def test_notes_and_counts_are_printed(tmp_path: Path) -> None:
    result = run_import(pairs(tmp_path / "in"), tmp_path / "out")
    text = import_table(result._replace(notes=["read me"], skipped=2, ignored=5), tmp_path / "out")
    assert "note: read me" in text
    assert "2 without a label left out" in text
    assert "not scored" in text
