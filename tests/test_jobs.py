"""Folders of pictures: outputs at the mirrored place, none lost, none of another's replaced, whatever stops it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import RunScript, folder_bytes, refused, write_picture
from PIL import Image

from segnet.classes import ClassSet
from segnet.errors import ExitCode
from segnet.images import open_mask, save_image
from segnet.jobs import WRITERS, Result, plan_jobs, predict_jobs
from segnet.manifest import NAME
from segnet.prediction import Predictor

Usage, Data = ExitCode.CONFIG, ExitCode.DATA


@pytest.fixture
def predictor(tiny_run: Path) -> Predictor:
    return Predictor(tiny_run, ["device=cpu"])


def outputs(jobs: Sequence[tuple[Path, Path]], out: Path) -> dict[str, str]:
    return {picture.name: output.relative_to(out).as_posix() for picture, output in jobs}


# ---------------------------------------------------------------------------------------------------------------------
# Which pictures, and where their outputs go
# ---------------------------------------------------------------------------------------------------------------------


def test_a_folder_is_mirrored(tmp_path: Path) -> None:
    for name in ("b.JPG", "deep/er/a.png", "deep/c.tar.webp", "größe und 空/d\ne.png"):
        write_picture(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").touch()
    (tmp_path / "in" / "folder.png").mkdir()
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "out")
    assert outputs(jobs, tmp_path / "out") == {
        "b.JPG": "b",
        "a.png": "deep/er/a",
        "c.tar.webp": "deep/c.tar",
        "d\ne.png": "größe und 空/d\ne",
    }
    assert jobs == sorted(jobs)


def test_a_glob_is_mirrored_below_its_part_without_wildcards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("day/1.png", "night/1.png", "night/deep/2.jpg", "3.png"):
        write_picture(tmp_path / "drive" / name)
    everything = {"drive/day/1.png": "day/1", "drive/night/1.png": "night/1", "drive/3.png": "3"}
    for start, root in (("", Path()), (f"{tmp_path}/", tmp_path)):
        monkeypatch.chdir(tmp_path)
        jobs = plan_jobs([f"{start}drive/**/*.png"], tmp_path / "out")
        found = {job.picture.relative_to(root).as_posix(): job.output.relative_to(tmp_path / "out").as_posix() for job in jobs}
        assert found == everything
    assert outputs(plan_jobs([f"{tmp_path}/drive/night/*/*.jpg"], tmp_path), tmp_path) == {"2.jpg": "deep/2"}


def test_a_name_with_wildcard_characters_is_a_name(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "in" / "a[1].png")
    assert outputs(plan_jobs([str(picture)], tmp_path), tmp_path) == {"a[1].png": "a[1]"}


def test_a_picture_named_twice_is_predicted_once(tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "in" / "a.png")
    assert len(plan_jobs([str(picture), str(tmp_path / "in"), f"{tmp_path}/in/*.png"], tmp_path / "out")) == 1


def test_two_pictures_with_one_output_are_refused(tmp_path: Path) -> None:
    first, second = write_picture(tmp_path / "x" / "a.png"), write_picture(tmp_path / "y" / "a.jpg")
    with refused(Usage, str(second), f"would overwrite the mask of {first}"):
        plan_jobs([str(tmp_path / "x"), str(tmp_path / "y")], tmp_path / "out")


@pytest.mark.parametrize("text", ["empty", "none/*.png"])
def test_an_input_without_pictures_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with refused(Data, str(tmp_path / text), "no pictures here", ".jpg"):
        plan_jobs([str(tmp_path / text)], tmp_path / "out")


@pytest.mark.timeout(20)
def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "again").symlink_to(".", target_is_directory=True)
    assert len(plan_jobs([str(tmp_path / "in")], tmp_path / "out")) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def run_jobs(
    predictor: Predictor, folder: Path, out: Path, save: Sequence[str] = ("mask",), *, overwrite: bool = False
) -> list[Result]:
    """Predict a folder."""
    return list(predict_jobs(predictor, plan_jobs([str(folder)], out), out, save=save, overwrite=overwrite))


def predict_all(
    predictor: Predictor, folder: Path, out: Path, save: Sequence[str] = ("mask",), *, overwrite: bool = False
) -> list[str]:
    """Predict a folder; the mistakes, as text."""
    return [str(result.failure) for result in run_jobs(predictor, folder, out, save, overwrite=overwrite) if result.failure]


def output_bytes(out: Path) -> dict[str, bytes]:
    """Every output and its content; the manifest, which tells how they came about, is not among them."""
    return {name: content for name, content in folder_bytes(out).items() if name != NAME}


def test_every_kind_is_written_with_its_suffix_and_content(predictor: Predictor, tmp_path: Path, tiny_classes: ClassSet) -> None:
    picture, out = write_picture(tmp_path / "in" / "deep" / "a.b.png", (13, 10)), tmp_path / "out"
    assert predict_all(predictor, tmp_path / "in", out, list(WRITERS)) == []
    expected = predictor.predict(picture, probabilities=True)
    assert set(output_bytes(out)) == {f"deep/a.b{suffix}" for suffix, _ in WRITERS.values()}
    mask = Image.open(out / "deep" / "a.b.png")
    assert (mask.mode, mask.size, mask.getpalette()) == ("P", (10, 13), tiny_classes.palette)
    assert torch.equal(open_mask(out / "deep" / "a.b.png", tiny_classes), expected.mask)
    assert Image.open(out / "deep" / "a.b.overlay.jpg").size == (10, 13)
    uncertainty = np.asarray(Image.open(out / "deep" / "a.b.uncertainty.png"))
    assert np.array_equal(uncertainty, (expected.uncertainty * 255).round().numpy())
    probabilities = np.load(out / "deep" / "a.b.probabilities.npz", allow_pickle=False)["probabilities"]
    np.testing.assert_allclose(probabilities, expected.probabilities.numpy(), atol=1e-3)


def test_inputs_are_left_alone(predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.jpg")
    before = folder_bytes(tmp_path / "in")
    predict_all(predictor, tmp_path / "in", tmp_path / "out")
    assert folder_bytes(tmp_path / "in") == before


def test_a_bad_picture_is_reported_and_the_others_written(predictor: Predictor, tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        write_picture(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:-60])
    mistakes = predict_all(predictor, tmp_path / "in", tmp_path / "out")
    assert len(mistakes) == 1
    assert mistakes[0].startswith(f"{tmp_path}/in/b.png: not a readable picture")
    assert set(output_bytes(tmp_path / "out")) == {"a.png", "c.png"}


def test_an_existing_output_is_refused_before_anything_is_written(predictor: Predictor, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write_picture(tmp_path / "in" / name)
    write_picture(tmp_path / "out" / "b.png")
    write_picture(tmp_path / "out" / "c.png")
    before = folder_bytes(tmp_path / "out")
    with refused(Usage, str(tmp_path / "out" / "b.png"), "exists already and is not of this program, and 1 more", "--overwrite"):
        predict_all(predictor, tmp_path / "in", tmp_path / "out")
    assert folder_bytes(tmp_path / "out") == before
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out", overwrite=True) == []
    assert output_bytes(tmp_path / "out").keys() == {"a.png", "b.png", "c.png"}
    assert Image.open(tmp_path / "out" / "b.png").mode == "P"


@pytest.mark.parametrize("linked", [False, True])
def test_an_output_never_replaces_an_input(linked: bool, predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.jpg")
    write_picture(tmp_path / "in" / "b.png")
    (tmp_path / "link").symlink_to("in", target_is_directory=True)
    before = folder_bytes(tmp_path / "in")
    with refused(Usage, "b.png: the output would replace an input picture", "choose another --out"):
        predict_all(predictor, tmp_path / "in", tmp_path / ("link" if linked else "in"), overwrite=True)
    assert folder_bytes(tmp_path / "in") == before


def test_outputs_of_different_kinds_do_not_meet(predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.jpg")
    write_picture(tmp_path / "in" / "a.uncertainty.jpg")
    with refused(Usage, "a.uncertainty.png: two outputs would have this name"):
        predict_all(predictor, tmp_path / "in", tmp_path / "out", ["mask", "uncertainty"])
    assert not (tmp_path / "out").exists()
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out", ["mask", "mask"]) == []


@pytest.mark.parametrize("out", ["taken", "taken/deeper"])
def test_a_file_in_the_place_of_a_folder_is_refused(out: str, predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "deep" / "a.png")
    save_image(tmp_path / "taken.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "taken.png").rename(tmp_path / "taken")
    with refused(Usage, str(tmp_path / "taken"), "a file where a folder has to be", "--out"):
        predict_all(predictor, tmp_path / "in", tmp_path / out)


def test_the_command_writes_the_good_ones_and_ends_with_seven(run_script: RunScript, tiny_run: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad\n.png").write_text("no picture")
    result = run_script("predict", tiny_run, tmp_path / "in", "--out", tmp_path / "out")
    assert result.returncode == ExitCode.SOME_FAILED
    heading, columns, row = result.stderr.splitlines()
    assert (heading, columns.split()) == ("1 failed:", ["picture", "what", "cure"])
    assert row.split("  ") == [
        f"{tmp_path}/in/bad\\n.png",
        "not a readable picture (unknown format)",
        "expected JPEG, PNG, BMP, TIFF, WEBP, PPM, GIF",
    ]
    assert "1 of 2 pictures written" in result.stdout
    assert set(output_bytes(tmp_path / "out")) == {"good.png"}


def test_masks_of_an_earlier_run_below_the_input_folder_are_no_inputs(tmp_path: Path) -> None:
    write_picture(tmp_path / "pictures" / "a.jpg")
    write_picture(tmp_path / "pictures" / "masks" / "a.png")
    jobs = plan_jobs([str(tmp_path / "pictures")], tmp_path / "pictures" / "masks")
    assert [job.picture.name for job in jobs] == ["a.jpg"]
