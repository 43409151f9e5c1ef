"""The model card says what the files of a run say, and equal runs have equal cards."""

import errno
import json
import shlex
from pathlib import Path

import pytest
from noisy_sets import denoise_config_for, write_clean_pictures

from segnet.data.loader import build_loader
from segnet.evaluation import model_card
from segnet.evaluation.model_card import CARD, renew_model_card, renew_model_card_of
from segnet.evaluation.scoring import count_split
from segnet.evaluation.temperature import TemperatureFit, save_temperature
from segnet.evaluation.writers import build_writer
from segnet.inference.loaded_model import load_model
from segnet.tasks.choice import build_task
from segnet.training.loop import train


def evaluate(run: Path, split: str = "val") -> Path:
    """The folder into which the run's best network is evaluated."""
    model, _, config, *_ = load_model(run)
    task = build_task(config)
    dataset = task.open_split(split)
    counts = task.evaluation_counts(dataset)
    count_split(model, build_loader(dataset, workers=0, timeout=60), config.inference, task.answers, counts)
    conditions = {"checkpoint": "best.pt", "device": "CPU"}
    build_writer(config, 2000).save(run / "evaluation" / split, counts.evaluation(), split=split, conditions=conditions)
    return run / "evaluation" / split


def test_equal_runs_have_equal_cards_with_data_recipe_and_commands(tiny_config, tmp_path):
    for place in ("a", "b"):
        train(tiny_config, tmp_path / place / "run")
    first, second = ((tmp_path / place / "run" / CARD).read_text() for place in ("a", "b"))
    assert first.replace(str(tmp_path / "a"), "") == second.replace(str(tmp_path / "b"), "")
    digest = json.loads((tmp_path / "a" / "run" / "environment.json").read_text())["data"]["digest"]
    for line in (
        "| parameters | 999 |",
        "| pictures of train | 6 |",
        "| pictures of val | 3 |",
        f"| digest of all pictures and masks | {digest} |",
        "| classes | ground, box, disc |",
        "train.batch_size: 2",
        f"segnet train {tmp_path}/a/run/config.yaml --run {tmp_path}/a/run_again",
    ):
        assert line in first.splitlines()
    assert "train.accumulate" not in first  # which has its default
    assert "has not been evaluated" in first
    assert "Not calibrated" in first
    train(tiny_config, tmp_path / "a" / "run", resume=True)  # which is complete
    assert (tmp_path / "a" / "run" / CARD).read_text() == first


def test_an_evaluation_adds_its_scores_and_a_calibration_its_temperature(tiny_run):
    renew_model_card_of(evaluate(tiny_run))
    card = (tiny_run / CARD).read_text()
    metrics = json.loads((tiny_run / "evaluation" / "val" / "metrics.json").read_text())
    row = next(line for line in card.splitlines() if line.startswith("| mIoU |"))
    assert row.startswith(f"| mIoU | {100 * metrics['miou']:.2f} | ")
    assert card.count("checkpoint: best.pt; device: CPU.") == 1
    assert "It was scored on no split that had no part" in card
    fit = TemperatureFit(1.25, 0.1, 0.05, 1000)
    save_temperature(tiny_run / "evaluation" / "val", fit, load_model(tiny_run).config.inference, "0")
    renew_model_card(tiny_run)
    assert "`inference.temperature=1.25` makes the expected calibration error 5.00 % instead of 10.00 %" in (
        (tiny_run / CARD).read_text().replace("\n", " ")
    )


def test_classes_that_were_not_measured_or_not_learnt_are_named(tiny_run):
    path = evaluate(tiny_run) / "metrics.json"
    metrics = json.loads(path.read_text())
    for row, iou in zip(metrics["classes"], (0.0, None, 0.75), strict=True):
        row["iou"] = iou
    path.write_text(json.dumps(metrics))
    renew_model_card(tiny_run)
    lines = (tiny_run / CARD).read_text().splitlines()
    assert "- Not measured, because val has no pixel of it: box." in lines
    assert "- IoU below 50 % on val: ground." in lines


def test_the_card_of_a_denoising_has_a_row_for_each_strength_of_noise(tmp_path):
    config = denoise_config_for(write_clean_pictures(tmp_path / "waves"), "noise.scored=[15, 25]")
    train(config, tmp_path / "run")
    renew_model_card_of(evaluate(tmp_path / "run"))
    card = (tmp_path / "run" / CARD).read_text()
    assert [line.split(" | ")[0] for line in card.splitlines() if line.startswith("| gaussian")] == [
        "| gaussian 15",
        "| gaussian 25",
    ]
    assert "removes noise from pictures" in card
    assert "--save restored" in card


@pytest.mark.parametrize("damage", ["{", "[]"])
def test_damaged_files_beside_the_checkpoint_are_left_out(tiny_run, damage, capsys):
    (tiny_run / "evaluation" / "val").mkdir(parents=True)
    for path in (tiny_run / "environment.json", tiny_run / "evaluation" / "val" / "metrics.json"):
        path.write_text(damage)
    renew_model_card(tiny_run)
    assert "| parameters | 999 |" in (tiny_run / CARD).read_text()
    assert not capsys.readouterr().err


def test_a_card_that_cannot_be_written_is_a_warning(tiny_run, monkeypatch, capsys):
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_card, "write_text", full)
    renew_model_card(tiny_run)
    assert "No space left on device; the run has no new model card" in capsys.readouterr().err


def test_an_evaluation_that_somebody_edited_is_a_warning(tiny_run, capsys):
    path = evaluate(tiny_run) / "metrics.json"
    path.write_text('{"classes": 3}')
    renew_model_card(tiny_run)
    assert "evaluate again; the run has no new model card" in capsys.readouterr().err


def test_an_evaluation_elsewhere_leaves_the_card(tiny_run, tmp_path):
    renew_model_card_of(tmp_path / "scores")
    assert not (tiny_run / CARD).exists()


def test_no_name_is_markdown_and_every_command_can_be_copied(tiny_run):
    facts = model_card.read_facts(tiny_run)
    data = facts.config.data.model_copy(update={"classes": ("a|b", "<b>c</b>", "[d](e) & `f`")})
    config = facts.config.model_copy(update={"data": data})
    card = model_card.model_card(facts._replace(run=Path("/my runs/<i>"), config=config))
    lines = card.splitlines()
    assert r"| classes | a\|b, \<b>c\</b>, \[d\](e) \& \`f\` |" in lines
    assert lines[0] == r"# Model card: \<i>"
    (train_again,) = (line for line in lines if line.startswith("segnet train"))
    assert shlex.split(train_again) == ["segnet", "train", "/my runs/<i>/config.yaml", "--run", "/my runs/<i>_again"]
