"""What a folder of masks holds is counted exactly, and the command that is proposed converts it."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import RunScript, tiny_mask
from PIL import Image

from segnet.classes import ClassSet, class_set
from segnet.preparation.mask_values import list_values, proposed_command, values_table
from segnet.preparation.masks import convert_masks, parse_rules

CLASSES = class_set(("ground", "box", "disc"), ((10, 20, 30), (200, 0, 0), (0, 0, 200)))
MASKS = [np.where(tiny_mask(seed=seed) == 255, 0, tiny_mask(seed=seed)) for seed in range(4)]
COLORS = np.array(CLASSES.colors, np.uint8)


def in_convention(mask: np.ndarray, kind: str) -> np.ndarray:
    """A mask of ground, box and disc in one of the conventions that people have."""
    if "colours" in kind:
        return COLORS[mask]
    if kind == "others":
        return (COLORS // 2)[mask]
    if kind == "gaps":
        return np.array([0, 7, 11], np.uint8)[mask]
    if kind == "objects":
        return np.where(mask, mask * 40 + np.arange(32) % 20 + 1, 0).astype(np.uint8)
    return mask if kind == "ids" else np.where(mask, 255, 0).astype(np.uint8)


def write_masks(folder: Path, kind: str) -> Path:
    """Four masks."""
    folder.mkdir()
    for index, mask in enumerate(MASKS):
        suffix = "jpg" if "JPEG" in kind else "png"
        Image.fromarray(in_convention(mask, kind)).save(folder / f"{index}.{suffix}", quality=90)
    return folder


@pytest.mark.parametrize(
    ("kind", "classes", "options"),
    [
        ("ids", None, "--map 0=0"),
        ("ids", CLASSES, ""),
        ("binary", None, "--map 255=1"),
        ("gaps", None, "--map 7=1 --map 11=2"),
        ("objects", None, "--map '*=1'"),
        ("colours", CLASSES, ""),
        ("others", None, "--map 5,10,15=0 --map 0,0,100=1 --map 100,0,0=2"),
        ("others", CLASSES, "--map 5,10,15=0 --map 0,0,100=1 --map 100,0,0=2"),
        ("JPEG", None, "--threshold 128"),
        ("JPEG of colours", None, "--classes CONFIG --nearest"),
        ("JPEG of colours", CLASSES, "--nearest"),
    ],
)
def test_the_proposed_command_converts_the_masks(kind: str, classes: ClassSet | None, options: str, tmp_path: Path) -> None:
    found = list_values(write_masks(tmp_path / "in", kind))
    command, _ = proposed_command(found, classes, "--classes DIR")
    given = "--classes DIR" if classes else ""
    expected = " ".join(f"python scripts/prepare_data.py convert {tmp_path}/in --out NEW {given} {options}".split())
    assert command == expected
    parts = shlex.split(options)
    mapping = [value for option, value in pairwise(parts) if option == "--map"]
    threshold = 128 if "--threshold" in parts else None
    rules = parse_rules(
        classes or (CLASSES if "CONFIG" in parts else None), mapping, threshold=threshold, nearest="--nearest" in parts
    )
    assert convert_masks(tmp_path / "in", tmp_path / "out", rules).failed == []


def test_values_are_counted_by_masks_and_pixels(tmp_path: Path) -> None:
    found = list_values(write_masks(tmp_path / "in", "gaps"))
    for number, value in enumerate((0, 7, 11)):
        assert found.files[value] == sum(bool((mask == number).any()) for mask in MASKS)
        assert found.pixels[value] == sum(int((mask == number).sum()) for mask in MASKS)
    picture = Image.fromarray(np.array([[7, 7, 0]], np.uint8))
    picture.putpalette([1, 2, 3] * 7 + [4, 5, 6])
    picture.save(tmp_path / "in" / "p.png")
    row = next(line for line in values_table(list_values(tmp_path / "in")).splitlines() if line.split()[0] == "7")
    assert row.split()[1:3] + row.split()[-1:] == [str(found.files[7] + 1), f"{found.pixels[7] + 2:,}", "4,5,6"]
    many = values_table(list_values(write_masks(tmp_path / "many", "objects")))
    assert many.splitlines()[-2] == "… and 11 more values"


def test_the_list_names_what_cannot_be_read_and_writes_nothing(run_script: RunScript, tmp_path: Path) -> None:
    (write_masks(tmp_path / "in", "binary") / "bad.png").write_bytes(b"")
    found = run_script("prepare_data", "convert", tmp_path / "in", "--list")
    assert found.returncode == 3
    assert found.stderr.startswith(f"error: {tmp_path}/in/bad.png: not a readable picture")
    assert found.stdout.splitlines()[-1] == f"  python scripts/prepare_data.py convert {tmp_path}/in --out NEW --map 255=1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
