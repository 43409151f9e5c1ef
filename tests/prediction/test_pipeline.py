"""Folders of pictures: outputs at the mirrored place, none lost, none of another's replaced, whatever stops it."""

from __future__ import annotations

import builtins
import errno
import faulthandler
import gc
import io
import itertools
import json
import os
import random
import re
import runpy
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from helpers import CLASSES, ROOT, RunScript, folder_bytes, refused, write_picture
from image_cases import CASES, COLOR, FORMAT_OF, UPRIGHT
from PIL import Image
from pycocotools import mask as coco
from ranks import Ranks

from segnet.classes import ClassSet, class_set
from segnet.config.loading import override_config
from segnet.data.images import open_image, save_image
from segnet.data.mask_files import encode_mask, open_mask
from segnet.inference.predictor import Predictor
from segnet.prediction import outputs as output_files
from segnet.prediction import pipeline
from segnet.prediction.inputs import passed_over, plan_jobs
from segnet.prediction.manifest import NAME, Manifest, Record
from segnet.prediction.outputs import OUTPUTS, NamedPrediction, Output
from segnet.prediction.pipeline import predict_jobs
from segnet.prediction.summary import Result
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import lock_folder, short_name

Usage, Data = ExitCode.CONFIG, ExitCode.DATA


@pytest.fixture(params=[1, 3], ids=["one core", "three cores"])
def predictor(tiny_run: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A network that sees one small picture after another, or one on each core."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
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


@pytest.mark.timeout(20)
def test_a_glob_gives_each_picture_once_and_nothing_hidden(tmp_path: Path) -> None:
    for name in ("a.png", "deep/b.png", "@eaDir/a.png", "__MACOSX/a.png", ".thumbnails/a.png"):
        write_picture(tmp_path / "in" / name)
    (tmp_path / "in" / "again").symlink_to(".", target_is_directory=True)
    found = outputs(plan_jobs([f"{tmp_path}/in/**/*.png"], tmp_path / "out"), tmp_path / "out")
    assert found == {"a.png": "a", "b.png": "deep/b"}
    named = plan_jobs([f"{tmp_path}/in/*/../@eaDir/*.png"], tmp_path / "out")
    assert {job.picture.parent.name for job in named} == {"@eaDir"}


def test_a_folder_of_other_formats_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.heic").touch()
    with refused(Data, f"no pictures here; 1 file ({tmp_path}/in/a.heic: HEIC is not read) left out", ".jfif"):
        plan_jobs([str(tmp_path / "in")], tmp_path / "out")


def test_outputs_in_a_linked_folder_are_no_inputs_the_next_time(predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "masks").symlink_to("../masks")
    write_picture(tmp_path / "elsewhere" / "b.jpg")
    run_jobs(predictor, tmp_path / "elsewhere", tmp_path / "masks")
    assert [job.picture.name for job in plan_jobs([str(tmp_path / "in")], tmp_path / "out")] == ["a.jpg"]


def test_what_is_passed_over_is_said_and_counted(run_in_fork: RunInFork, tiny_run: Path, tmp_path: Path) -> None:
    for name in ("in/a.JFIF", "elsewhere/b.png", "in/.thumbnails/a.png", "in/notes.txt", "in/c"):
        write_picture(tmp_path / name)
    (tmp_path / "in" / "linked").symlink_to("../elsewhere")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "d.HEIC").touch()
    fork = run_in_fork(tiny_run, tmp_path / "in", "--out", tmp_path / "in" / "out")
    assert fork.wait() == 0
    first, warning, last = fork.text().splitlines()
    assert first.startswith("predict 2 pictures on CPU")
    assert warning.startswith(f"warning: left out: 2 files ({tmp_path}/in/c: a picture without a suffix, {tmp_path}/in/d.HEIC: ")
    assert last.startswith("2 of 2 pictures written to ")
    assert last.endswith(" pictures/s; 2 left out")
    assert set(output_bytes(tmp_path / "in" / "out")) == {"a.png", "linked/b.png"}
    (tmp_path / "in" / "out" / "mine.heic").touch()
    assert run_in_fork(tiny_run, tmp_path / "in", "--out", tmp_path / "in" / "out").wait() == 0
    assert len(passed_over([str(tmp_path / "in")], tmp_path / "in" / "out")) == 2


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
    """Every output and its content, without the manifest, which tells how they came about, and the lock."""
    return {name: content for name, content in folder_bytes(out).items() if name not in (NAME, ".lock")}


def test_every_kind_is_written_with_its_suffix_and_content(predictor: Predictor, tmp_path: Path, tiny_classes: ClassSet) -> None:
    picture, out = write_picture(tmp_path / "in" / "deep" / "a.b.png", (13, 10)), tmp_path / "out"
    assert predict_all(predictor, tmp_path / "in", out, list(OUTPUTS)) == []
    expected = predictor.predict(picture, probabilities=True)
    assert set(output_bytes(out)) == {f"deep/a.b{output.suffix}" for output in OUTPUTS.values()}
    mask = Image.open(out / "deep" / "a.b.png")
    assert (mask.mode, mask.size, mask.getpalette()) == ("P", (10, 13), tiny_classes.palette)
    assert torch.equal(open_mask(out / "deep" / "a.b.png", tiny_classes), expected.mask)
    assert Image.open(out / "deep" / "a.b.overlay.jpg").size == (10, 13)
    uncertainty = np.asarray(Image.open(out / "deep" / "a.b.uncertainty.png"))
    assert np.array_equal(uncertainty, (expected.uncertainty * 255).round().numpy())
    probabilities = np.load(out / "deep" / "a.b.probabilities.npz", allow_pickle=False)["probabilities"]
    np.testing.assert_allclose(probabilities, expected.probabilities.numpy(), atol=1e-3)


@pytest.mark.parametrize(("kind", "times"), [("BMP", 2), ("PNG", 3)])
def test_a_picture_is_opened_for_its_header_and_once_for_digest_and_decoding(
    kind: str, times: int, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a PNG for its last chunk."""
    picture = write_picture(tmp_path / "in" / "a.png")
    Image.open(picture).copy().save(picture, kind)
    opened, original = [], open

    def counting(file: object, *arguments: object, **options: object) -> object:
        opened.append(str(file))
        return original(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", counting)
    monkeypatch.setattr(io, "open", counting)
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out") == []
    assert opened.count(str(picture)) <= times


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


LONG = ["x" * 251, "\u7530" * 83, "a\nb" * 80, "dot.", "space ", "e\u0301"]  # the suffix has four of the 255 bytes


def test_outputs_have_names_as_long_as_those_of_their_pictures(predictor: Predictor, tmp_path: Path) -> None:
    for name in LONG:
        write_picture(tmp_path / "in" / f"{name}.jpg")
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out") == []
    assert set(output_bytes(tmp_path / "out")) == {f"{name}.png" for name in LONG}


def test_a_name_that_its_suffix_makes_too_long_fails_before_it_is_predicted(predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / f"{'x' * 244}.jpg")
    write_picture(tmp_path / "in" / f"{'x' * 243}.jpg")
    (mistake,) = predict_all(predictor, tmp_path / "in", tmp_path / "out", ["mask", "overlay"])
    found = "the name of its overlay would have 256 bytes; 255 fit"
    assert mistake == f"{tmp_path}/in/{'x' * 244}.jpg: {found} – shorten the picture's name"
    assert set(output_bytes(tmp_path / "out")) == {f"{'x' * 243}.png", f"{'x' * 243}.overlay.jpg"}


@pytest.mark.parametrize("beginning", [f"{'x' * 230}.png", short_name(f"{'x' * 230}.png")], ids=["earlier version", "now"])
def test_what_a_killed_call_left_of_a_long_name_is_deleted(beginning: str, predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / f"{'x' * 230}.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f".{beginning}.4711.tmp").touch()
    (tmp_path / "out" / ".other.png.4711.tmp").touch()
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out") == []
    assert set(output_bytes(tmp_path / "out")) == {f"{'x' * 230}.png", ".other.png.4711.tmp"}


@pytest.mark.parametrize("out", ["taken", "taken/deeper"])
def test_a_file_in_the_place_of_a_folder_is_refused(out: str, predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "deep" / "a.png")
    save_image(tmp_path / "taken.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "taken.png").rename(tmp_path / "taken")
    with refused(Usage, str(tmp_path / "taken"), "a file where a folder has to be", "--out"):
        predict_all(predictor, tmp_path / "in", tmp_path / out)


def test_the_command_writes_the_good_ones_and_ends_with_seven(run_in_fork: RunInFork, tiny_run: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad\n.png").write_text("no picture")
    fork = run_in_fork(tiny_run, tmp_path / "in", "--out", tmp_path / "out")
    assert fork.wait() == ExitCode.SOME_FAILED
    _, heading, columns, row, summary = fork.text().splitlines()
    assert (heading, columns.split()) == ("1 failed:", ["picture", "what", "cure"])
    assert row.split("  ") == [
        f"{tmp_path}/in/bad\\n.png",
        "not a readable picture (unknown format)",
        "expected JPEG, PNG, BMP, TIFF, WEBP, PPM, GIF",
    ]
    assert summary.startswith("1 of 2 pictures written")
    assert set(output_bytes(tmp_path / "out")) == {"good.png"}


def test_masks_of_an_earlier_run_below_the_input_folder_are_no_inputs(tmp_path: Path) -> None:
    write_picture(tmp_path / "pictures" / "a.jpg")
    write_picture(tmp_path / "pictures" / "masks" / "a.png")
    jobs = plan_jobs([str(tmp_path / "pictures")], tmp_path / "pictures" / "masks")
    assert [job.picture.name for job in jobs] == ["a.jpg"]


@pytest.mark.parametrize("inputs", [["none.png"], ["empty.png"], ["none.png", "none.png"]])
def test_a_picture_named_alone_that_fails_is_the_mistake_of_the_command(
    inputs: list[str], run_in_fork: RunInFork, tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()
    fork = run_in_fork(tiny_run, *(tmp_path / name for name in inputs), "--out", tmp_path / "out")
    assert fork.wait() == ExitCode.DATA
    assert fork.text().splitlines()[-1].startswith(f"error: {tmp_path}/{inputs[0]}: no")


def test_the_summary_is_a_line_with_the_speed(run_in_fork: RunInFork, tiny_run: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png")
    write_picture(tmp_path / "in" / "b.png")
    assert run_in_fork(tiny_run, tmp_path / "in" / "a.png", "--out", tmp_path / "out").wait() == 0
    fork = run_in_fork(tiny_run, tmp_path / "in", "--out", tmp_path / "out")
    assert fork.wait() == 0
    first, last = fork.text().splitlines()
    assert first.startswith("predict 2 pictures on CPU")
    assert re.fullmatch(rf"1 of 2 pictures written to {tmp_path}/out, [\d.]+ pictures/s; 1 were there already", last)


# ---------------------------------------------------------------------------------------------------------------------
# What is in the outputs
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
def test_json_has_share_and_mask_of_each_class_that_is_there(predictor: Predictor, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "in" / "deep" / "a.png", (23, 31))
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out", ["json"]) == []
    found, expected = json.loads((tmp_path / "out" / "deep" / "a.json").read_text()), predictor.predict(picture)
    assert (found["picture"], found["height"], found["width"]) == ("../in/deep/a.png", 23, 31)
    ids = expected.mask.unique().tolist()
    assert 1 < len(ids)
    assert [(entry["id"], entry["name"]) for entry in found["classes"]] == [(i, CLASSES[i]) for i in ids]
    for entry in found["classes"]:
        mask = expected.mask.numpy() == entry["id"]
        rle = {"size": entry["rle"]["size"], "counts": entry["rle"]["counts"].encode()}
        assert np.array_equal(coco.decode(rle), mask)
        assert (coco.area(rle), entry["pixels"], entry["share"]) == (mask.sum(), mask.sum(), mask.mean())
    assert found["confidence"] == pytest.approx(expected.confidence.mean().item())
    assert found["uncertainty"] == pytest.approx(expected.uncertainty.mean().item())


def test_the_same_prediction_has_the_same_bytes_at_any_time(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "in" / "a.png")
    run_jobs(predictor, tmp_path / "in", tmp_path / "out", list(OUTPUTS))
    before = output_bytes(tmp_path / "out")
    monkeypatch.setattr(time, "time", lambda: 2e9)
    run_jobs(predictor, tmp_path / "in", tmp_path / "out", list(OUTPUTS), overwrite=True)
    assert output_bytes(tmp_path / "out") == before


def test_an_overlay_too_long_for_a_jpeg_is_said_and_the_mask_alone_possible(predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "long.png", (1, 65_501))
    write_picture(tmp_path / "in" / "short.png", (1, 65_500))
    (mistake,) = predict_all(predictor, tmp_path / "in", tmp_path / "out", ["mask", "overlay"])
    found = "65,501 pixels long; its overlay may have 65,500"
    assert mistake == f"{tmp_path}/in/long.png: {found} – predict it without overlay"
    assert set(output_bytes(tmp_path / "out")) == {"short.png", "short.overlay.jpg"}
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out") == []


@pytest.mark.filterwarnings("error")
def test_every_mode_and_orientation_in_one_folder(predictor: Predictor, tmp_path: Path) -> None:
    """What test_images.py expects of each, end to end."""
    expected: dict[str, np.ndarray] = {}
    (tmp_path / "in").mkdir()
    for number, (picture, image) in enumerate(CASES.values()):
        if picture.mode != "PA":  # fits into no file
            options = {"transparency": picture.info["transparency"]} if "transparency" in picture.info else {}
            picture.save(tmp_path / "in" / f"{number}.{FORMAT_OF.get(picture.mode, 'png')}", **options)
            expected[f"{number}.png"] = image
    for orientation, turn in UPRIGHT.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(COLOR).save(tmp_path / "in" / f"exif{orientation}.png", exif=exif)
        expected[f"exif{orientation}.png"] = turn(COLOR)
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out") == []
    assert set(output_bytes(tmp_path / "out")) == set(expected)
    for name, image in expected.items():
        mask = predictor.predict(image.astype(np.uint8)).mask
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / name)), mask), name


def test_mutated_pictures_among_good_ones(predictor: Predictor, tmp_path: Path) -> None:
    """Each is predicted or named; the good ones are as if alone."""
    rng = np.random.default_rng(0)
    for number, kind in enumerate(["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP"] * 30):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(file, kind)
        content = bytearray(file.getvalue())
        if number % 3:
            for place in rng.integers(0, len(content), 1 + number % 4):
                content[place] = rng.integers(256)
            content = content[: rng.integers(len(content)) if number % 5 == 0 else len(content)]
        path = tmp_path / "in" / f"{number:03}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, on spoilt metadata
        results = run_jobs(predictor, tmp_path / "in", tmp_path / "out")
    assert [result.job.picture.name for result in results] == [f"{number:03}.jpg" for number in range(210)]
    failed = [int(result.job.picture.stem) for result in results if result.failure]
    assert len(failed) > 20
    assert all(number % 3 for number in failed)
    assert all(result.failure.path == str(result.job.picture) for result in results if result.failure)
    assert set(output_bytes(tmp_path / "out")) == {f"{number:03}.png" for number in set(range(210)) - set(failed)}
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "out" / "000.png")), predictor.predict(tmp_path / "in" / "000.jpg").mask
    )


# ---------------------------------------------------------------------------------------------------------------------
# A second run
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of four pictures, of different sizes."""
    for number in range(4):
        write_picture(tmp_path / "in" / f"{number}.png", (9 + number, 12), seed=number)
    return tmp_path / "in"


def written(results: Sequence[Result]) -> list[str]:
    """The pictures that were predicted; none failed."""
    assert [result.failure for result in results if result.failure] == []
    return [result.job.picture.stem for result in results if not result.skipped]


def test_outputs_of_one_picture_agree(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    """What other kinds of an older picture say would be wrong beside its new mask."""
    out = tmp_path / "out"
    run_jobs(predictor, pictures, out, ["mask", "json"])
    write_picture(pictures / "1.png", seed=99)
    assert written(run_jobs(predictor, pictures, out)) == ["1"]
    assert not (out / "1.json").exists()
    assert (out / "0.json").exists()


def test_two_commands_do_not_write_into_one_folder(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    results = predict_jobs(predictor, plan_jobs([str(pictures)], tmp_path / "out"), tmp_path / "out", save=["mask"])
    next(results)
    try:
        other = os.fork()
        if not other:
            status = 1
            try:
                with lock_folder(tmp_path / "out"):
                    pass
            except UserError as error:
                status = error.code
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == ExitCode.ENVIRONMENT
    finally:
        results.close()
    with lock_folder(tmp_path / "out"):
        pass


def test_outputs_hidden_files_and_empty_names_are_no_inputs(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    run_jobs(predictor, pictures, pictures / "masks")
    write_picture(pictures / "._0.png")
    assert [job.picture.name for job in plan_jobs([str(pictures)], tmp_path / "out")] == ["0.png", "1.png", "2.png", "3.png"]
    with refused(ExitCode.DATA, "only outputs of an earlier call"):
        plan_jobs([str(pictures / "masks")], pictures / "masks")
    with refused(ExitCode.CONFIG, "INPUT", "empty"):
        plan_jobs([""], tmp_path)


def test_an_override_stands_among_the_inputs(tiny_run: Path, pictures: Path, tmp_path: Path, run_script: RunScript) -> None:
    found = run_script("predict", tiny_run, "inference.flip=maybe", pictures, "--out", tmp_path / "out")
    assert found.returncode == ExitCode.CONFIG
    assert "inference.flip" in found.stderr
    assert not (tmp_path / "out").exists()


def test_finished_pictures_are_skipped(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    out, kinds = tmp_path / "out", list(OUTPUTS)
    assert written(run_jobs(predictor, pictures, out, kinds)) == ["0", "1", "2", "3"]
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert written(run_jobs(predictor, pictures, out, kinds)) == []
    assert written(run_jobs(predictor, pictures, out)) == []
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    write_picture(pictures / "4.png")
    (out / "1.json").unlink()
    assert written(run_jobs(predictor, pictures, out, kinds)) == ["1", "4"]
    assert written(run_jobs(predictor, pictures, out, kinds, overwrite=True)) == ["0", "1", "2", "3", "4"]


def test_a_changed_picture_is_predicted_again(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    run_jobs(predictor, pictures, tmp_path / "out")
    write_picture(pictures / "2.png", (11, 12), seed=77)
    assert written(run_jobs(predictor, pictures, tmp_path / "out")) == ["2"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "2.png")), predictor.predict(pictures / "2.png").mask)


def test_another_kind_is_added(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    run_jobs(predictor, pictures, tmp_path / "out", ["mask"])
    before = output_bytes(tmp_path / "out")
    assert len(written(run_jobs(predictor, pictures, tmp_path / "out", ["mask", "json"]))) == 4
    assert before.items() <= output_bytes(tmp_path / "out").items()


@pytest.mark.parametrize("change", ["weights", "inference", "classes"])
def test_outputs_of_other_weights_or_settings_are_refused(
    change: str, predictor: Predictor, pictures: Path, tmp_path: Path
) -> None:
    run_jobs(predictor, pictures, tmp_path / "out")
    before = folder_bytes(tmp_path / "out")
    if change == "weights":
        predictor.model.head.bias.data += 1e-3
    elif change == "inference":
        predictor.config = override_config(predictor.config, ["inference.flip=true"])
    else:
        predictor.classes = class_set(CLASSES, ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    with refused(Usage, "0.png: exists already, made with other weights or settings, and 3 more", "--overwrite"):
        run_jobs(predictor, pictures, tmp_path / "out")
    assert folder_bytes(tmp_path / "out") == before
    assert len(written(run_jobs(predictor, pictures, tmp_path / "out", overwrite=True))) == 4
    assert written(run_jobs(predictor, pictures, tmp_path / "out")) == []


def test_outputs_of_another_picture_are_refused_unless_it_was_the_same(
    predictor: Predictor, pictures: Path, tmp_path: Path
) -> None:
    run_jobs(predictor, pictures, tmp_path / "out")
    pictures.rename(tmp_path / "moved")
    assert written(run_jobs(predictor, tmp_path / "moved", tmp_path / "out")) == []
    write_picture(tmp_path / "moved" / "3.png", seed=5)
    with refused(Usage, "3.png: exists already, made from ../in/3.png"):
        run_jobs(predictor, tmp_path / "moved", tmp_path / "out")


def test_outputs_beside_their_pictures_are_no_inputs_the_next_time(predictor: Predictor, tmp_path: Path) -> None:
    folder = write_picture(tmp_path / "in" / "a.jpg").parent
    for expected in (["a"], []):
        assert written(run_jobs(predictor, folder, folder, ["mask", "overlay"])) == expected
    assert set(output_bytes(folder)) == {"a.jpg", "a.png", "a.overlay.jpg"}


def test_without_a_readable_manifest_all_outputs_are_someone_elses(
    predictor: Predictor, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_jobs(predictor, pictures, tmp_path / "out")
    (tmp_path / "out" / NAME).write_bytes(b"<html>\n\0\xff\n")
    with refused(Usage, "0.png: exists already and is not of this program, and 3 more"):
        run_jobs(predictor, pictures, tmp_path / "out")
    assert len(written(run_jobs(predictor, pictures, tmp_path / "out", overwrite=True))) == 4
    warning = f"warning: {tmp_path}/out/{NAME}: 2 lines are not records of this program – they are ignored\n"
    assert capsys.readouterr().err == warning


# ---------------------------------------------------------------------------------------------------------------------
# While it runs
# ---------------------------------------------------------------------------------------------------------------------


def test_results_come_in_order_and_memory_is_bounded(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow readers and writers; the pixels that are read and not written never exceed the limit, but for one picture alone."""
    dice = random.Random(0)
    sizes = [(dice.choice([1, 5, 20]), 10) for _ in range(40)]
    for number, size in enumerate(sizes):
        write_picture(tmp_path / "in" / f"{number:02}.png", size)
    limit, flying, most, lock = 250, 0, 0, threading.Lock()

    def count(pixels: int) -> None:
        nonlocal flying, most
        with lock:
            flying += pixels
            alone = pixels > 0 and flying == pixels
            most = max(most, 0 if alone else flying)

    def slow_open(path: Path, content: bytes) -> torch.Tensor:
        time.sleep(dice.random() / 100)
        image = open_image(path, content)
        count(image[0].numel())
        return image

    def slow_save(file: BinaryIO, named: NamedPrediction) -> None:
        time.sleep(dice.random() / 100)
        file.write(encode_mask(named.prediction.mask, named.classes))
        count(-named.prediction.mask.numel())

    monkeypatch.setattr(pipeline, "MEMORY", limit * 24)
    monkeypatch.setattr(pipeline, "open_image", slow_open)
    monkeypatch.setitem(OUTPUTS, "mask", Output(".png", slow_save))
    assert written(run_jobs(predictor, tmp_path / "in", tmp_path / "out")) == [f"{number:02}" for number in range(40)]
    assert flying == 0
    assert limit / 2 < most <= limit


def test_a_picture_larger_than_the_limit_is_predicted_alone(
    predictor: Predictor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MEMORY", 0)
    assert len(written(run_jobs(predictor, pictures, tmp_path / "out"))) == 4


SHORTAGES = {
    "memory": MemoryError(),
    "torch": RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    "gpu": torch.OutOfMemoryError("CUDA out of memory"),
}


@pytest.mark.parametrize("shortage", SHORTAGES)
@pytest.mark.parametrize("where", ["open_image", "predict", "write"])
def test_too_little_memory_fails_one_picture(
    where: str, shortage: str, predictor: Predictor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at_second(where, SHORTAGES[shortage], predictor, monkeypatch)
    found = predict_all(predictor, pictures, tmp_path / "out")
    assert found == [f"{found[0].split(':')[0]}: not enough memory for it – make it smaller"]
    assert len(output_bytes(tmp_path / "out")) == 3


def fail_at_second(where: str, error: Exception, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise `error` at the second picture that is opened, predicted or written."""
    calls = itertools.count(1)
    owner, name = {"open_image": (pipeline, where), "predict": (predictor, where), "write": (output_files, "encode_mask")}[where]
    original = getattr(owner, name)

    def failing(*arguments: object, **options: object) -> object:
        if next(calls) == 2:
            raise error
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("where", ["open_image", "predict", "write"])
def test_a_bug_in_any_thread_keeps_its_traceback(
    where: str, predictor: Predictor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at_second(where, ZeroDivisionError("a bug"), predictor, monkeypatch)
    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="a bug") as caught:
        predict_all(predictor, pictures, tmp_path / "out")
    assert "failing" in [entry.name for entry in caught.traceback]
    assert threading.active_count() == threads


@pytest.mark.parametrize("where", ["open_image", "write"])
def test_what_the_system_refuses_fails_one_picture(
    where: str, predictor: Predictor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at_second(where, PermissionError(errno.EACCES, "Permission denied", "/some/file"), predictor, monkeypatch)
    (found,) = predict_all(predictor, pictures, tmp_path / "out")
    assert ": /some/file: Permission denied – " in found
    assert found.startswith(f"{pictures}/")


@pytest.mark.parametrize("kinds", [["mask"], ["probabilities"], ["overlay"], ["json"]])
def test_a_full_disk_stops_with_whole_files_and_the_command_goes_on_later(
    kinds: list[str], predictor: Predictor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_jobs(predictor, pictures, tmp_path / "whole", kinds)
    calls, fsync = itertools.count(), os.fsync

    def full(file: int) -> None:
        if next(calls) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with refused(ExitCode.ENVIRONMENT, str(tmp_path / "out"), "No space left on device", "give the same command again"):
            run_jobs(predictor, pictures, tmp_path / "out", kinds)
    whole, found = output_bytes(tmp_path / "whole"), output_bytes(tmp_path / "out")
    assert 0 < len(found) < len(whole)
    assert found.items() <= whole.items()
    assert 0 < len(written(run_jobs(predictor, pictures, tmp_path / "out", kinds))) < 4
    assert output_bytes(tmp_path / "out") == whole


# ---------------------------------------------------------------------------------------------------------------------
# Signals and kills
# ---------------------------------------------------------------------------------------------------------------------


class Fork:
    """A process that runs `body`, forked from this one; its exit status is that of a script."""

    def __init__(self, body: Callable[[], object], output: Path) -> None:
        self.output = output
        self.process = os.fork()
        if not self.process:
            status: object = 70
            try:
                faulthandler.dump_traceback_later(120, exit=True)  # should it hang, it says where
                signal.signal(signal.SIGINT, signal.default_int_handler)
                gc.callbacks.clear()  # hypothesis leaves one: a Ctrl-C that is raised in there is lost
                torch.set_num_threads(1)  # after a fork torch mends its thread pool once, which two threads must not do at a time
                sys.stdout = sys.stderr = output.open("w", buffering=1)
                body()
                status = 0
            except SystemExit as leaving:
                status = leaving.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status if isinstance(status, int) else 1)

    def wait(self) -> int:
        """Its exit status, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def text(self) -> str:
        return self.output.read_text()


RunInFork = Callable[..., Fork]


def predict_script(arguments: Sequence[object]) -> None:
    """scripts/predict.py in this process."""
    sys.argv = ["predict.py", *map(str, arguments), "device=cpu"]
    runpy.run_path(str(ROOT / "scripts" / "predict.py"), run_name="__main__")


@pytest.fixture
def run_in_fork(tmp_path: Path) -> RunInFork:
    """run_in_fork(run, folder, "--out", out): scripts/predict.py in a fork, which need not import torch again."""
    numbers = itertools.count()
    return lambda *arguments: Fork(lambda: predict_script(arguments), tmp_path / f"output{next(numbers)}.txt")


def wait_for(path: Path, count: int) -> None:
    """Until so many masks are there."""
    for _ in range(10_000):
        if len(list(path.glob("*.png"))) >= count:
            return
        time.sleep(0.002)
    raise AssertionError(f"fewer than {count} masks in {path}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_soon_with_whole_files(
    number: signal.Signals, tiny_run: Path, tmp_path: Path, run_in_fork: RunInFork, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(tiny_run, ["device=cpu"])
    for picture in range(60):
        write_picture(tmp_path / "in" / f"{picture:02}.png", seed=picture)
    run_jobs(predictor, tmp_path / "in", tmp_path / "whole")
    original = Predictor.predict

    def slow(*arguments: object, **options: object) -> object:
        time.sleep(0.05)
        return original(*arguments, **options)

    monkeypatch.setattr(Predictor, "predict", slow)
    fork = run_in_fork(tiny_run, tmp_path / "in", "--out", tmp_path / "out")
    wait_for(tmp_path / "out", 3)
    os.kill(fork.process, number)
    assert fork.wait() == 128 + number, fork.text()
    assert "Traceback" not in fork.text()
    found = output_bytes(tmp_path / "out")
    assert 3 <= len(found) < 60
    assert found.items() <= output_bytes(tmp_path / "whole").items(), "a temporary, or a file that is not whole"


class Deadly:
    """Counts what this process does to files, in all threads, and kills it instead of the n-th time."""

    def __init__(self, kill_at: int) -> None:
        self.kill_at, self.count, self.lock = kill_at, 0, threading.Lock()
        for name in ("write", "fsync", "replace", "mkdir", "unlink"):
            setattr(os, name, self.watched(getattr(os, name)))

    def watched(self, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            with self.lock:
                self.count += 1
                if self.count == self.kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call


class Trials:
    """Kills a prediction of a folder into `out`, looks at what is left, repeats it and compares.

    In `out` are the outputs of an earlier call, when the first picture was another.
    """

    kinds = ("mask", "json")

    def __init__(self, predictor: Predictor, pictures: Path, folder: Path) -> None:
        self.predictor, self.pictures, self.folder, self.out = predictor, pictures, folder, folder / "out"
        first = (pictures / "0.png").read_bytes()
        write_picture(pictures / "0.png", (30, 7))
        list(predict_jobs(predictor, plan_jobs([str(pictures / "0.png")], self.out), self.out, save=self.kinds))
        self.before = output_bytes(self.out)
        self.out.rename(folder / "before")
        (pictures / "0.png").write_bytes(first)
        run_jobs(predictor, pictures, folder / "whole", self.kinds)
        self.whole = output_bytes(folder / "whole")

    def run(self) -> list[Result]:
        return run_jobs(self.predictor, self.pictures, self.out, self.kinds)

    def fork(self, kill_at: int = 0) -> Fork:
        def body() -> None:
            deadly = Deadly(kill_at)
            self.run()
            print(deadly.count)

        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(self.folder / "before", self.out)
        return Fork(body, self.folder / "output.txt")

    def check(self, fork: Fork, what: str) -> int:
        """After its end: nothing but whole files, and the same command completes them. How many pictures were skipped."""
        status = fork.wait()
        assert status in (0, -signal.SIGKILL), f"{what}: {fork.text()}"
        for name, content in output_bytes(self.out).items():
            assert name.endswith(".tmp") or content in (self.whole[name], self.before.get(name)), f"{what}: {name} is not whole"
        results = self.run()
        assert [result.failure for result in results if result.failure] == [], what
        assert output_bytes(self.out) == self.whole, f"{what}: the repeated command ends otherwise"
        return sum(result.skipped for result in results)


@pytest.fixture
def trials(predictor: Predictor, pictures: Path, tmp_path: Path) -> Trials:
    (pictures / "3.png").unlink()
    return Trials(predictor, pictures, tmp_path)


def test_killed_at_every_operation_on_a_file(trials: Trials) -> None:
    whole = trials.fork()
    assert whole.wait() == 0, whole.text()
    operations, skipped = int(whole.text()), []
    assert operations > 3 * 3 * 2
    for number in range(1, operations + 1):
        skipped.append(trials.check(trials.fork(number), f"operation {number} of {operations}"))
    assert (skipped[0], skipped[-1]) == (0, 2)


def test_killed_at_random(trials: Trials) -> None:
    started = time.monotonic()
    trials.check(trials.fork(), "undisturbed")
    seconds, dice, killed = time.monotonic() - started, random.Random(0), 0
    for trial in range(60):
        fork = trials.fork()
        time.sleep(dice.uniform(0, seconds))
        os.kill(fork.process, signal.SIGKILL)
        killed += trials.check(fork, f"trial {trial}") < 3
        if trial >= 12 and killed > 2:
            return
    pytest.fail("no kill came before the end")


@pytest.mark.parametrize("mistake", ["written in place", "not announced", "done before it is written", "temporaries stay"])
def test_kills_find_mistakes(mistake: str, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    add = Manifest.add

    @contextmanager
    def in_place(path: Path, **_: object) -> Iterator[BinaryIO]:
        with path.open("wb") as file:
            yield file
            os.fsync(file.fileno())

    def unannounced(self: Manifest, record: Record) -> None:
        if record.done:
            add(self, record)

    def hasty(self: Manifest, record: Record) -> None:
        add(self, record._replace(done=True))

    if mistake == "written in place":
        monkeypatch.setattr("segnet.prediction.pipeline.atomic_write", in_place)
    elif mistake == "temporaries stay":
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    else:
        monkeypatch.setattr(Manifest, "add", unannounced if mistake == "not announced" else hasty)
    whole = trials.fork()
    assert whole.wait() == 0, whole.text()
    for number in range(1, int(whole.text()) + 1):
        try:
            trials.check(trials.fork(number), mistake)
        except (AssertionError, UserError):
            return
    pytest.fail("not found")


# ---------------------------------------------------------------------------------------------------------------------
# Several ranks
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_share_a_folder_and_end_as_one(
    count: int, predictor: Predictor, pictures: Path, tiny_run: Path, tmp_path: Path
) -> None:
    write_picture(pictures / "deep" / "5.png")
    (pictures / "bad.png").write_text("no picture")
    (pictures / "deep" / "worse.png").write_text("")
    run_jobs(predictor, pictures, tmp_path / "whole", ["mask", "json"])
    arguments = [tiny_run, pictures, "--out", tmp_path / "out", "--save", "mask,json"]
    ranks = Ranks(count, lambda: predict_script(arguments), tmp_path)
    assert ranks.wait() == [ExitCode.SOME_FAILED] * count, ranks.text()
    assert output_bytes(tmp_path / "out") == output_bytes(tmp_path / "whole")
    assert ranks.text().count("5 of 7 pictures written") == ranks.text().count("2 failed:") == 1
    assert len(re.findall(r"in/(?:bad|deep/worse)\.png +not a readable", ranks.text())) == 2
    lines = (tmp_path / "out" / NAME).read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 10
    again = Ranks(count, lambda: predict_script(arguments), tmp_path)
    assert again.wait() == [ExitCode.SOME_FAILED] * count, again.text()
    assert again.text().count("0 of 7 pictures written") == again.text().count("5 were there already") == 1


def test_ranks_refuse_with_one_message(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "out" / "1.png")
    ranks = Ranks(2, lambda: predict_script([tiny_run, pictures, "--out", tmp_path / "out"]), tmp_path)
    assert ranks.wait() == [Usage, Usage]
    assert ranks.text().count("exists already") == 1
    assert set(folder_bytes(tmp_path / "out")) == {"1.png"}


def test_lines_of_several_processes_do_not_tear_each_other(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.prepare()

    def add(writer: int) -> None:
        for number in range(100):
            manifest.add(Record("x" * 3000, (f"{writer}-{number}",), "", "", done=True))

    forks = [Fork(lambda writer=writer: add(writer), tmp_path / f"{writer}.txt") for writer in range(4)]
    assert [fork.wait() for fork in forks] == [0] * 4
    found = Manifest(tmp_path)
    assert (len(found.records), found.unreadable) == (400, 0)
