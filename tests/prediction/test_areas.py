"""areas.csv: the areas of every class, each picture once, whatever stopped the commands before."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from geotiffs import write_geotiff
from helpers import CLASSES, refused, write_picture
from PIL import Image
from predictions import run_jobs

from segnet.classes import ClassSet
from segnet.inference.predictor import Predictor
from segnet.prediction.areas import TABLE, PixelSize, collect_areas, picture_areas
from segnet.prediction.manifest import NAME, require_own_table
from segnet.prediction.ranking import collect_ranking
from segnet.system.errors import ExitCode


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_class_has_its_pixels_parts_and_probability(tiny_classes: ClassSet) -> None:
    mask = np.array([[1, 1, 0, 1], [0, 0, 0, 1]], dtype=np.uint8)
    confidence = np.array([[0.5, 0.5, 1, 1], [1, 1, 1, 0.75]], dtype=np.float32)
    ground, box, disc = picture_areas("a.jpg", mask, confidence, tiny_classes)
    assert ground == ("a.jpg", "ground", 4, 0.5, 1, 4, 1.0)
    assert box == ("a.jpg", "box", 4, 0.5, 2, 2, 0.6875)
    assert disc[:6] == ("a.jpg", "disc", 0, 0.0, 0, 0)
    assert math.isnan(disc.mean_probability)


def test_every_picture_has_its_rows_once(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = run_jobs(predictor, pictures, out, ["areas"])
    assert [result.failure for result in results] == [None] * 4
    whole = collect_areas(out, None).read_bytes()
    rows = rows_in(out / TABLE)
    assert [(row["picture"], row["class"]) for row in rows] == [(f"{n}.png", name) for n in range(4) for name in CLASSES]
    mask = predictor.predict(pictures / "2.png").mask
    assert [int(row["pixels"]) for row in rows[6:9]] == [int((mask == number).sum()) for number in range(3)]
    (out / "2.areas.csv").unlink()  # as if the command had been killed, with the table of an earlier one
    assert [result.skipped for result in run_jobs(predictor, pictures, out, ["areas"])] == [True, True, False, True]
    assert collect_areas(out, None).read_bytes() == whole
    write_picture(pictures / "2.png", (20, 30), seed=9)  # a changed picture replaces its rows
    run_jobs(predictor, pictures, out, ["areas"])
    again = rows_in(collect_areas(out, None))
    assert len(again) == len(rows)
    assert sum(int(row["pixels"]) for row in again[6:9]) == 600


def test_a_table_that_a_killed_command_left_is_not_counted(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    """It may be of another picture content or of other settings than its record says."""
    out = tmp_path / "out"
    run_jobs(predictor, pictures, out, ["areas"])
    manifest = out / NAME
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if "2.png" not in line or '"done": false' in line))
    assert {row["picture"] for row in rows_in(collect_areas(out, None))} == {f"{n}.png" for n in (0, 1, 3)}
    assert [result.skipped for result in run_jobs(predictor, pictures, out, ["areas"])] == [True, True, False, True]
    assert len(rows_in(collect_areas(out, None))) == 12


def test_areas_in_the_unit_of_the_pixels_side(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    run_jobs(predictor, pictures, tmp_path / "out", ["areas"])
    for row in rows_in(collect_areas(tmp_path / "out", PixelSize.of("0.5mm"))):
        assert float(row["area_mm2"]) == int(row["pixels"]) / 4
        assert float(row["largest_part_mm2"]) == int(row["largest_part"]) / 4
    assert PixelSize.of(".25 µm") == (0.25, "µm")
    for text in ("mm", "0mm", "1", "-1mm", "1e3mm", "1 m m", "1.2.3m"):
        with refused(ExitCode.CONFIG, text, "such as 0.05mm"):
            PixelSize.of(text)


def test_a_picture_elsewhere_is_called_by_its_path_in_its_folder(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    (pictures / "deep" / "er").mkdir(parents=True)
    write_picture(pictures / "deep" / "er" / "x.png")
    out = tmp_path / "far" / "away" / "out"
    run_jobs(predictor, pictures, out, ["areas", "ranking"])
    names = {f"{n}.png" for n in range(4)} | {"deep/er/x.png"}
    assert {row["picture"] for row in rows_in(collect_areas(out, None))} == names
    assert {row["picture"] for row in rows_in(collect_ranking(out))} == names


def test_geotiffs_have_square_metres_others_do_not(predictor: Predictor, pictures: Path, tmp_path: Path, capsys) -> None:
    pixels = np.asarray(Image.open(pictures / "0.png").convert("RGB"))
    write_geotiff(pictures / "place.tif", pixels)
    degrees = write_geotiff(pictures / "degrees.tif", pixels, keys=(1, 1, 0, 2, 1024, 0, 1, 2, 2048, 0, 1, 4326))
    run_jobs(predictor, pictures, tmp_path / "out", ["areas"])
    rows = rows_in(collect_areas(tmp_path / "out", None))
    for row in rows:
        with_place = row["picture"] == "place.tif"
        assert row["area_m2"] == (f"{int(row['pixels']) / 16:.8g}" if with_place else "")
        assert row["largest_part_m2"] == (f"{int(row['largest_part']) / 16:.8g}" if with_place else "")
    assert capsys.readouterr().err == "note: 1 picture has no m²: their coordinates are angles; --pixel-size gives areas\n"
    assert degrees.is_file()
    measured = rows_in(collect_areas(tmp_path / "out", PixelSize.of("2m")))
    assert all(float(row["area_m2"]) == 4 * int(row["pixels"]) for row in measured)
    assert not capsys.readouterr().err


def test_the_tables_of_an_earlier_version_are_read(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(pictures / "0.png").convert("RGB"))
    write_geotiff(pictures / "place.tif", pixels)
    run_jobs(predictor, pictures, tmp_path / "out", ["areas"])
    path = tmp_path / "out" / "place.areas.csv"
    path.write_text("".join(line.rpartition(",")[0] + "\n" for line in path.read_text().splitlines()))
    rows = rows_in(collect_areas(tmp_path / "out", None))
    assert len(rows) == 15
    assert "area_m2" not in rows[0]


def test_the_table_of_others_is_left_alone(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text("mine")
    with refused(ExitCode.CONFIG, TABLE, "is not of this program"):
        require_own_table(tmp_path, TABLE)
    run_jobs(predictor, pictures, tmp_path / "out", ["areas"])
    collect_areas(tmp_path / "out", None)
    require_own_table(tmp_path / "out", TABLE)
    with refused(ExitCode.CONFIG, "is an output for ../in/0.png"):
        require_own_table(tmp_path / "out", "0.areas.csv")
    (tmp_path / "out" / "1.areas.csv").write_text("x")
    with refused(ExitCode.DATA, "1.areas.csv: not the areas of a picture", "--overwrite"):
        collect_areas(tmp_path / "out", None)


@pytest.mark.parametrize("options", [["--save", "mask", "--simplify", "1"], ["--pixel-size", "2mm"], ["--simplify", "-1"]])
def test_an_option_without_its_output_is_refused(options: list[str], run_in_fork, tiny_run: Path, pictures: Path) -> None:
    command = run_in_fork(tiny_run, pictures, "--out", pictures.parent / "out", *options)
    assert command.wait() == ExitCode.CONFIG
    assert options[-2] in command.text() or options[0] in command.text()


def test_the_command_writes_tables_and_says_what_simplification_costs(run_in_fork, tiny_run: Path, pictures: Path) -> None:
    out = pictures.parent / "out"
    options = ["--save", "areas", "--polygons", "coco", "--simplify", "2", "--pixel-size", "0.1mm"]
    command = run_in_fork(tiny_run, pictures, "--out", out, *options)
    assert command.wait() == 0, command.text()
    assert f"areas: {out}/areas.csv" in command.text()
    assert f"polygons: {out}/coco.json" in command.text()
    assert "--simplify 2: IoU 0." in command.text()
    assert len(rows_in(out / TABLE)) == 12
