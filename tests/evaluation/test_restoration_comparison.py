"""Two evaluations of a denoising: the difference of the means, its interval, and what cannot be compared."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from helpers import refused

from segnet.evaluation.restoration_comparison import (
    compare_restorations,
    refuse_unlike_restorations,
    restoration_comparison_json,
    restoration_comparison_table,
)
from segnet.evaluation.restoration_results import is_restoration, read_restoration, restoration_table, save_restoration
from segnet.system.errors import ExitCode
from segnet.tasks.denoising_score import RestoredEvaluation, RestoredScore


def evaluation(gain: float, noisy: float = 20.0) -> RestoredEvaluation:
    """Five pictures, each `gain` dB better than in a plain one; a picture is smaller than SSIM's window."""
    ssims = [0.8, 0.82, 0.84, 0.86, math.nan]
    rows = [RestoredScore(f"p{n}", 25.0, 28 + n + gain, ssim + gain / 100, noisy, 0.4) for n, ssim in enumerate(ssims)]
    return RestoredEvaluation("gaussian", tuple(rows))


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    save_restoration(tmp_path, evaluation(0), split="val")
    assert is_restoration(tmp_path)
    assert not is_restoration(tmp_path / "elsewhere")
    found = read_restoration(tmp_path)
    assert found.ids == ("p0", "p1", "p2", "p3", "p4")
    assert found.values[:, 0].tolist() == [28, 29, 30, 31, 32]
    assert math.isnan(found.values[4, 1])
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["psnr"] == 30
    assert document["ssim"] == pytest.approx(0.83)
    (tmp_path / "pictures.csv").write_text("id,psnr\np0,28\n")
    with refused(ExitCode.DATA, "not files of an evaluation (pictures.csv has other columns)", "evaluate again"):
        read_restoration(tmp_path)


def test_the_table_has_a_noisy_and_a_restored_row_for_each_strength() -> None:
    lines = restoration_table(evaluation(0)).splitlines()
    assert lines[1].split() == ["gaussian", "σ", "25", "noisy", "20.00", "0.4000"]
    assert lines[2].split() == ["gaussian", "σ", "25", "restored", "30.00", "0.8300"]


def test_a_constant_gain_is_sure(tmp_path: Path) -> None:
    for name, gain in (("a", 0.0), ("b", 0.5)):
        save_restoration(tmp_path / name, evaluation(gain), split="val")
    a, b = (read_restoration(tmp_path / name) for name in "ab")
    refuse_unlike_restorations(a, b, tmp_path / "b")
    comparison = compare_restorations(a, b, 200)
    psnr = comparison.measures["PSNR"]
    assert (psnr.a, psnr.b, psnr.b_better) == (30, 30.5, 1)
    assert (psnr.difference, psnr.low, psnr.high) == pytest.approx((0.5, 0.5, 0.5))
    assert comparison.measures["SSIM"].difference == pytest.approx(0.005)
    assert json.loads(restoration_comparison_json(comparison))["psnr"]["difference"] == pytest.approx(0.5)
    assert restoration_comparison_table(comparison).splitlines()[1].split()[:4] == ["PSNR", "30.00", "30.50", "+0.50"]


def test_unlike_evaluations_are_refused(tmp_path: Path) -> None:
    save_restoration(tmp_path / "a", evaluation(0), split="val")
    a = read_restoration(tmp_path / "a")
    for change, found in (
        ({"split": "test"}, "is of the split 'test', the other of 'val'"),
        ({"ids": ("p0", "p1", "p2", "p3", "q")}, "has other pictures than the other: p4 is in one alone"),
        ({"values": a.values + 1}, "has other noise in p0 than the other"),
    ):
        with refused(ExitCode.DATA, found):
            refuse_unlike_restorations(a, a._replace(**change), tmp_path / "b")
