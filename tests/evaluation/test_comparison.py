"""The bootstrap against a plain loop in exact fractions, known cases, and what is not compared."""

import json
import math
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from evaluations import save_examined
from helpers import RunScript, refused

from segnet.evaluation.comparison import compare, comparison_json, comparison_table, refuse_unlike
from segnet.evaluation.results import PictureCounts
from segnet.system.errors import ExitCode


def random_run(seed: int, truth_seed: int, pictures: int = 7, classes: int = 4) -> PictureCounts:
    """Pictures of 100 pixels, of which class 3 is rare and the last class is nowhere."""
    dice, truths = random.Random(seed), random.Random(truth_seed)
    pixels = np.zeros((pictures, classes + 1, 3))
    for picture in pixels:
        for _ in range(100):
            truth = truths.choice([0, 1, 2] * 20 + [3] * (truths.random() < 0.05))
            prediction = truth if dice.random() < 0.6 else dice.randrange(3)
            picture[truth] += (truth == prediction, 1, 0)
            picture[prediction, 2] += 1
    return PictureCounts("val", tuple("abcde"), tuple(map(str, range(pictures))), pixels)


def measures_by_hand(pixels: np.ndarray, times: np.ndarray) -> list[Fraction | None]:
    sums = [[sum(int(n) * int(v) for n, v in zip(times, column, strict=True)) for column in k.T] for k in pixels.swapaxes(0, 1)]
    iou = [Fraction(c, t + p - c) if t + p - c else None for c, t, p in sums]
    present = [share for share in iou if share is not None]
    return [sum(present) / len(present), Fraction(sum(c for c, _, _ in sums), sum(t for _, t, _ in sums)), *iou]


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_a_plain_loop(seed):
    a, b = random_run(2 * seed, truth_seed=seed), random_run(2 * seed + 1, truth_seed=seed)
    found = compare(a, b, 300, seed=seed)
    drawn = np.random.default_rng(seed).multinomial(7, [1 / 7] * 7, 300)
    whole = [measures_by_hand(run.pixels, np.ones(7)) for run in (a, b)]
    loops = [[measures_by_hand(run.pixels, times) for times in drawn] for run in (a, b)]
    for index, row in enumerate([found.miou, found.global_accuracy, *found.classes.values()]):
        if whole[0][index] is None:
            assert all(map(math.isnan, row))
            continue
        pairs = [(first[index], second[index]) for first, second in zip(*loops, strict=True)]
        differences = sorted(float(after - before) for before, after in pairs if before is not None and after is not None)
        assert row[:2] == pytest.approx([float(run[index]) for run in whole], abs=1e-12)
        assert row.difference == pytest.approx(float(whole[1][index] - whole[0][index]), abs=1e-12)
        assert [row.low, row.high] == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=1e-12)
        assert row.b_better == np.mean([d > 1e-15 for d in differences])


def test_a_run_differs_from_itself_by_nothing():
    run = random_run(0, truth_seed=0)
    found = compare(run, run, 1000)
    for row in (found.miou, found.global_accuracy, *(found.classes[name] for name in "abc")):
        assert row[2:] == (0, 0, 0, 0)


def test_the_interval_is_that_of_a_known_distribution():
    """Of 400 pictures b gains 10 pixels of 100 in half and loses none elsewhere: 5 points, give or take 1.96 · 0.25."""
    truth = np.full((400, 1, 3), 100.0)
    a, b = truth.copy(), truth.copy()
    a[:, 0, 0], b[:, 0, 0] = 50, 50 + 10 * (np.arange(400) % 2)
    counts = [PictureCounts("val", ("a",), tuple(map(str, range(400))), pixels) for pixels in (a, b)]
    row = compare(*counts, 20_000).global_accuracy
    assert row.difference == pytest.approx(0.05)
    assert (row.low, row.high) == pytest.approx((0.05 - 0.0049, 0.05 + 0.0049), abs=3e-4)
    assert row.b_better == 1


def test_blocks_of_resamples_do_not_change_the_result(monkeypatch):
    a, b = random_run(0, truth_seed=0), random_run(1, truth_seed=0)
    whole = repr(compare(a, b, 100))
    monkeypatch.setattr("segnet.evaluation.resampling._BLOCK", 150)
    assert repr(compare(a, b, 100)) == whole


def test_other_splits_classes_pictures_and_truths_are_refused():
    a = random_run(0, truth_seed=0)
    other_truth = a.pixels.copy()
    other_truth[3, 0, 1] += 1
    for b, part in (
        (a._replace(split="test"), "is of the split 'test', the other of 'val'"),
        (a._replace(classes=tuple("abxde")), "other classes than the other: 'x' in place of 'c'"),
        (a._replace(classes=tuple("abcdef")), "6 in place of 5"),
        (a._replace(ids=("9", *a.ids[1:])), "other pictures than the other: 0 is in one alone"),
        (a._replace(ids=a.ids[::-1]), "another order"),
        (a._replace(pixels=other_truth), "another truth for 3"),
    ):
        with refused(ExitCode.DATA, "runs/b: ", part):
            refuse_unlike(a, b, Path("runs/b"))
    refuse_unlike(a, a, Path("runs/b"))


def test_the_command_compares_what_evaluate_wrote(run_script: RunScript, tiny_run, tmp_path):
    refusal = run_script("compare", tiny_run, tiny_run)
    assert (refusal.returncode, refusal.stdout) == (3, "")
    assert "evaluation/val: not evaluated yet – run python scripts/evaluate.py" in refusal.stderr
    save_examined(tiny_run, tiny_run / "evaluation" / "val")
    save_examined(tiny_run, tmp_path / "flipped", "val", "inference.flip=horizontal")
    found = run_script("compare", tiny_run, tmp_path / "flipped", "--json", tmp_path / "difference.json")
    assert (found.returncode, found.stderr) == (0, "")
    assert "3 pictures of val, 10000 resamples" in found.stdout
    document = json.loads((tmp_path / "difference.json").read_text())
    for key, folder in (("a", tiny_run / "evaluation" / "val"), ("b", tmp_path / "flipped")):
        metrics = json.loads((folder / "metrics.json").read_text())
        for name in ("miou", "global_accuracy"):
            assert document[name][key] == pytest.approx(metrics[name], abs=1e-12)
        assert [row[key] for row in document["classes"]] == pytest.approx([row["iou"] for row in metrics["classes"]], abs=1e-12)


def test_an_absent_class_is_a_dash_and_null():
    found = compare(random_run(0, truth_seed=0), random_run(1, truth_seed=0), 50)
    assert comparison_table(found).splitlines()[-1].split() == ["IoU", "of", "e", "–", "–", "–"]
    assert json.loads(comparison_json(found))["classes"][-1]["b_better"] is None
