"""Folders of pictures: no output is lost, half written or another's, whatever stops the command."""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import json
import os
import random
import re
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from helpers import folder_bytes, refused, write_picture
from image_cases import CASES, COLOR, FORMAT_OF, UPRIGHT
from PIL import Image
from predictions import RunInFork, output_bytes, predict_all, predict_script, run_jobs, written
from ranks import Ranks

from segnet.config.sections import Bands
from segnet.data.images import open_raster
from segnet.data.mask_files import encode_mask
from segnet.data.scaling import Raster
from segnet.inference import predictor as reading
from segnet.inference.predictor import Predictor
from segnet.prediction import outputs as output_files
from segnet.prediction import pipeline
from segnet.prediction.inputs import plan_jobs
from segnet.prediction.manifest import NAME
from segnet.prediction.outputs import OUTPUTS, NamedPrediction, Output
from segnet.prediction.pipeline import predict_jobs
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import lock_folder

Usage = ExitCode.CONFIG


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

    def slow_open(path: Path, content: bytes, *, bands: Bands) -> Raster:
        time.sleep(dice.random() / 100)
        raster = open_raster(path, content, bands=bands)
        count(raster.image[0].numel())
        return raster

    def slow_save(file: BinaryIO, named: NamedPrediction) -> None:
        time.sleep(dice.random() / 100)
        file.write(encode_mask(named.prediction.mask, named.classes))
        count(-named.prediction.mask.size)

    monkeypatch.setattr(pipeline, "MEMORY", limit * 24)
    monkeypatch.setattr(reading, "open_raster", slow_open)
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
@pytest.mark.parametrize("where", ["open_raster", "predict", "write"])
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
    owner, name = {"open_raster": (reading, where), "predict": (predictor, where), "write": (output_files, "encode_mask")}[where]
    original = getattr(owner, name)

    def failing(*arguments: object, **options: object) -> object:
        if next(calls) == 2:
            raise error
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("where", ["open_raster", "predict", "write"])
def test_a_bug_in_any_thread_keeps_its_traceback(
    where: str, predictor: Predictor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at_second(where, ZeroDivisionError("a bug"), predictor, monkeypatch)
    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="a bug") as caught:
        predict_all(predictor, pictures, tmp_path / "out")
    assert "failing" in [entry.name for entry in caught.traceback]
    assert threading.active_count() == threads


@pytest.mark.parametrize("where", ["open_raster", "write"])
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
