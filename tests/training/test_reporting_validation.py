"""What a validation says: score, loss and classes, under the name of its split."""

import io
import math
import re
from contextlib import redirect_stdout

import pytest
from helpers import read_metrics, tiny_config_for
from noisy_sets import denoise_config_for, write_clean_pictures

from segnet.config.loading import override_config
from segnet.runs.checkpoint import BEST, load_checkpoint
from segnet.tasks.choice import build_task
from segnet.training.loop import train
from segnet.training.reporting import describe_best


@pytest.fixture(scope="module")
def trained(_tiny_data_once, tmp_path_factory):
    """A run with the split "holdout", the last class of which is in no mask, and what was printed."""
    run = tmp_path_factory.mktemp("trained") / "run"
    root = run.parent / "data"
    root.symlink_to(_tiny_data_once)
    lists = _tiny_data_once / "ImageSets" / "Segmentation"
    (lists / "holdout.txt").write_text((lists / "val.txt").read_text())
    changes = ["data.val_split=holdout", 'data.classes=["ground","box, red","disc","never"]']
    return train_and_read(override_config(tiny_config_for(root), changes), run)


def train_and_read(config, run):
    """The configuration, the folder, and the lines about validations."""
    with redirect_stdout(io.StringIO()) as printed:
        train(config, run)
    lines = printed.getvalue().splitlines()
    return config, run, [line for line in lines if re.match(r"step \d+  |  lowest", line)]


def test_the_line_names_split_score_loss_and_the_lowest_classes_in_80_columns(trained):
    _, _, lines = trained
    assert re.fullmatch(r"step 3  epoch 1\.00  holdout mIoU \d+\.\d\d  loss \d\.\d{4}  best so far", lines[0])
    assert lines[1].startswith("  lowest: ")
    named = re.findall(r"(box, red|ground|disc|never) (\d+\.\d\d)", lines[1])
    assert len(named) == 3
    assert [float(iou) for _, iou in named] == sorted(float(iou) for _, iou in named)
    assert max(map(len, lines)) <= 80


def test_metrics_csv_has_the_loss_and_every_class(trained):
    _, run, _ = trained
    rows = [row for row in read_metrics(run) if row["val_miou"]]
    assert list(rows[0])[-5:] == ["val_iou_ground", "val_iou_box, red", "val_iou_disc", "val_iou_never", "minutes"]
    for row in rows:
        present = [float(row[f"val_iou_{name}"]) for name in ("ground", "box, red", "disc", "never") if row[f"val_iou_{name}"]]
        assert math.fsum(present) / len(present) == pytest.approx(float(row["val_miou"]))
        assert 0 < float(row["val_loss"]) < 5


def test_the_end_names_the_best_network(trained):
    config, run, _ = trained
    best = load_checkpoint(run / BEST)
    words = f"holdout mIoU {100 * best.score:.2f}, epoch {best.step / 3:.2f}, step {best.step}"
    assert describe_best(run, build_task(config).best) == words
    (run / "metrics.csv").rename(run / "elsewhere.csv")
    assert describe_best(run, build_task(config).best) == words.replace(f"epoch {best.step / 3:.2f}, ", "")
    (run / "elsewhere.csv").rename(run / "metrics.csv")


def test_a_denoising_says_psnr_and_the_loss_against_clean_pictures(tmp_path):
    config, run, lines = train_and_read(denoise_config_for(write_clean_pictures(tmp_path / "data")), tmp_path / "run")
    assert re.fullmatch(r"step 3  epoch 1\.00  val PSNR \d+\.\d\d  loss 0\.\d{4}  best so far", lines[0])
    assert not any("lowest" in line for line in lines)
    row = next(row for row in read_metrics(run) if row["val_psnr"])
    assert float(row["val_loss"]) == pytest.approx(10 ** (-float(row["val_psnr"]) / 10), rel=0.3)  # a mean of pictures, clipped
    assert re.fullmatch(r"val PSNR \d+\.\d\d, epoch \d\.00, step \d", describe_best(run, build_task(config).best))
