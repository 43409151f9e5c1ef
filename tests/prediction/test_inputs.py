"""The pictures that a command names, and where their outputs go: mirrored, none twice, none over another's or over an input."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers import RunScript, folder_bytes, refused, write_picture
from predictions import RunInFork, output_bytes, predict_all, run_jobs, written

from segnet.config.sections import Config
from segnet.data.images import save_image
from segnet.inference.predictor import Predictor
from segnet.prediction.inputs import Job, passed_over, plan_jobs, plan_split
from segnet.system.errors import ExitCode

Usage, Data = ExitCode.CONFIG, ExitCode.DATA


def outputs(jobs: Sequence[tuple[Path, Path]], out: Path) -> dict[str, str]:
    return {picture.name: output.relative_to(out).as_posix() for picture, output in jobs}


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
    both = [str(tmp_path / "x"), str(tmp_path / "y")]
    with refused(Usage, str(second), f"would overwrite the mask of {first} – add --keep-suffix"):
        plan_jobs(both, tmp_path / "out")
    kept = plan_jobs(both, tmp_path / "out", keep_suffix=True)
    assert outputs(kept, tmp_path / "out") == {"a.png": "a.png", "a.jpg": "a.jpg"}
    write_picture(tmp_path / "y" / "a.png")
    with refused(Usage, "would overwrite", "predict them into two folders"):
        plan_jobs(both, tmp_path / "out", keep_suffix=True)


def test_the_pictures_of_a_split_need_no_masks(tiny_config: Config, tmp_path: Path) -> None:
    root = Path(tiny_config.data.root)
    shutil.rmtree(root / "SegmentationClass")
    jobs = plan_split(tiny_config.data, "val", tmp_path / "out")
    assert jobs == [Job(root / "JPEGImages" / f"val_{n}.jpg", tmp_path / "out" / f"val_{n}") for n in range(3)]
    (root / "JPEGImages" / "val_1.jpg").unlink()
    with refused(Data, "val_1"):
        plan_split(tiny_config.data, "val", tmp_path / "out")


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


def test_masks_of_an_earlier_run_below_the_input_folder_are_no_inputs(tmp_path: Path) -> None:
    write_picture(tmp_path / "pictures" / "a.jpg")
    write_picture(tmp_path / "pictures" / "masks" / "a.png")
    jobs = plan_jobs([str(tmp_path / "pictures")], tmp_path / "pictures" / "masks")
    assert [job.picture.name for job in jobs] == ["a.jpg"]


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


def test_outputs_beside_their_pictures_are_no_inputs_the_next_time(predictor: Predictor, tmp_path: Path) -> None:
    folder = write_picture(tmp_path / "in" / "a.jpg").parent
    for expected in (["a"], []):
        assert written(run_jobs(predictor, folder, folder, ["mask", "overlay"])) == expected
    assert set(output_bytes(folder)) == {"a.jpg", "a.png", "a.overlay.jpg"}
