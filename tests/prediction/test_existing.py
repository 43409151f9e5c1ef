"""A second command in the same folder: what is skipped, made again, refused or deleted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import CLASSES, folder_bytes, refused, write_picture
from PIL import Image
from predictions import ANYWHERE, output_bytes, predict_all, run_jobs, written

from segnet.classes import class_set
from segnet.config.loading import override_config
from segnet.inference.predictor import Predictor
from segnet.models.folding import fold
from segnet.prediction.existing import settings_digest
from segnet.prediction.manifest import NAME
from segnet.runs.checkpoint import BEST, load_checkpoint, save_checkpoint
from segnet.system.errors import ExitCode
from segnet.system.files import short_name

Usage = ExitCode.CONFIG


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


def test_the_settings_are_those_of_a_machine_without_the_compiled_kernel(
    predictor: Predictor, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segnet.inference.predictor.prepare_to_predict", lambda model, _: fold(model, native=False))
    assert settings_digest(Predictor(tiny_run, ["device=cpu"])) == settings_digest(predictor)


@pytest.mark.parametrize("beginning", [f"{'x' * 230}.png", short_name(f"{'x' * 230}.png")], ids=["earlier version", "now"])
def test_what_a_killed_call_left_of_a_long_name_is_deleted(beginning: str, predictor: Predictor, tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / f"{'x' * 230}.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f".{beginning}.4711.tmp").touch()
    (tmp_path / "out" / ".other.png.4711.tmp").touch()
    assert predict_all(predictor, tmp_path / "in", tmp_path / "out") == []
    assert set(output_bytes(tmp_path / "out")) == {f"{'x' * 230}.png", ".other.png.4711.tmp"}


def test_outputs_of_one_picture_agree(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    """What other kinds of an older picture say would be wrong beside its new mask."""
    out = tmp_path / "out"
    run_jobs(predictor, pictures, out, ["mask", "json"])
    write_picture(pictures / "1.png", seed=99)
    assert written(run_jobs(predictor, pictures, out)) == ["1"]
    assert not (out / "1.json").exists()
    assert (out / "0.json").exists()


def test_finished_pictures_are_skipped(predictor: Predictor, pictures: Path, tmp_path: Path) -> None:
    out, kinds = tmp_path / "out", ANYWHERE
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
    change: str, predictor: Predictor, tiny_run: Path, pictures: Path, tmp_path: Path
) -> None:
    run_jobs(predictor, pictures, tmp_path / "out")
    before = folder_bytes(tmp_path / "out")
    if change == "weights":
        checkpoint = load_checkpoint(tiny_run / BEST)
        checkpoint.weights["head.bias"] += 1e-3
        save_checkpoint(tiny_run / BEST, checkpoint)
        predictor = Predictor(tiny_run, ["device=cpu"])
    elif change == "inference":
        predictor.config = override_config(predictor.config, ["inference.flip=horizontal"])
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
