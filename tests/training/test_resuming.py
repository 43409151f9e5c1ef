"""A resumed run goes on where it stood, or says what has changed since."""

import pytest
import torch
from helpers import folder_bytes, refused, write_split

from segnet.config.loading import override_config
from segnet.config.sections import OptimConfig
from segnet.runs.checkpoint import load_checkpoint, save_checkpoint
from segnet.system.errors import ExitCode
from segnet.training import loop
from segnet.training.loop import train
from segnet.training.schedule import learning_rate


def test_resuming_a_finished_run_changes_nothing(tiny_config, tmp_path, capsys):
    run = tmp_path / "run"
    train(tiny_config, run)
    before = folder_bytes(run)
    train(tiny_config, run, resume=True)
    assert folder_bytes(run) == before
    assert "complete" in capsys.readouterr().out


def test_more_epochs_than_a_finished_run_has_are_a_run_from_its_encoder(tiny_config, tmp_path, capsys):
    train(tiny_config, tmp_path / "run")
    way, more = f"model.weights={tmp_path / 'run'}", override_config(tiny_config, ["train.epochs=3"])
    with refused(ExitCode.CHECKPOINT, "another train.epochs (2.0, now 3.0)", f"start another --run from its weights: {way}"):
        train(more, tmp_path / "run", resume=True)
    train(tiny_config, tmp_path / "run", resume=True)
    assert f"complete (6 steps); for more, start another --run from its weights: {way}" in capsys.readouterr().out
    train(override_config(more, [way]), tmp_path / "more")
    assert load_checkpoint(tmp_path / "more" / "last.pt").step == 9


def test_resume_without_a_checkpoint_says_so_and_starts(tiny_config, tmp_path, capsys):
    train(tiny_config, tmp_path / "run", resume=True)
    assert "starting at step 0" in capsys.readouterr().out


def test_a_training_state_that_is_none_is_refused(tiny_config, tmp_path):
    """As a hostile or clumsy hand would write it, with a digest that fits."""
    run = tmp_path / "run"
    train(tiny_config, run)
    last = load_checkpoint(run / "last.pt")
    for name in ("last.pt", "previous.pt"):
        save_checkpoint(run / name, last._replace(training={**last.training, "optimizer": {}}))
    with refused(ExitCode.CHECKPOINT, "holds no usable training state"):
        train(tiny_config, run, resume=True)


def test_resume_with_another_configuration_names_the_key(tiny_config, tmp_path):
    train(tiny_config, tmp_path / "run")
    with refused(ExitCode.CHECKPOINT, "optim.lr", "same configuration"):
        train(override_config(tiny_config, ["optim.lr=0.5", "train.log_every_steps=3"]), tmp_path / "run", resume=True)


def test_resume_with_other_pictures_is_refused(tiny_config, tiny_data, tmp_path):
    train(tiny_config, tmp_path / "run")
    write_split(tiny_data, "train", ["train_1", "train_0", "train_2", "train_3", "train_4", "train_5"])
    with refused(ExitCode.CHECKPOINT, "another list of pictures", str(tiny_data)):
        train(tiny_config, tmp_path / "run", resume=True)


def test_resume_with_another_picture_of_the_same_name_and_size_names_it(tiny_config, tiny_data, tmp_path):
    train(tiny_config, tmp_path / "run")
    picture = tiny_data / "JPEGImages" / "train_3.jpg"
    content = bytearray(picture.read_bytes())
    content[-20] ^= 1
    picture.write_bytes(content)
    with refused(ExitCode.CHECKPOINT, "1 pictures or masks in", "train_3"):
        train(tiny_config, tmp_path / "run", resume=True)


def test_a_data_folder_may_move(tiny_config, tiny_data, tmp_path):
    train(tiny_config, tmp_path / "run")
    tiny_data.rename(tmp_path / "moved")
    train(override_config(tiny_config, [f"data.root={tmp_path / 'moved'}"]), tmp_path / "run", resume=True)
    colors = "data.colors=[[1, 1, 1], [2, 2, 2], [3, 3, 3]]"  # nothing is learnt from them
    train(override_config(tiny_config, [f"data.root={tmp_path / 'moved'}", colors]), tmp_path / "run", resume=True)


def test_a_damaged_best_checkpoint_is_replaced(tiny_config, tmp_path, monkeypatch, capsys):
    """It cannot be made again, so the best from here on takes its place."""
    config, run = override_config(tiny_config, ["train.eval_every_epochs=1", "train.save_every_epochs=1"]), tmp_path / "run"
    monkeypatch.setattr(loop, "learning_rate", stop_before_step(4))
    with pytest.raises(InterruptedError):
        train(config, run)
    monkeypatch.undo()
    (run / "best.pt").write_bytes(b"")
    train(config, run, resume=True)
    assert "best.pt: not a readable checkpoint" in capsys.readouterr().out
    assert load_checkpoint(run / "best.pt").step == 6


def stop_before_step(stop: int):
    """A stand-in for `learning_rate` at which the run breaks off, as a kill would."""

    def rate(step: int, total: int, optim: OptimConfig) -> float:
        if step == stop:
            raise InterruptedError
        return learning_rate(step, total, optim)

    return rate


def test_a_resumed_run_needs_no_pretrained_file(tiny_config, tmp_path):
    weights = {f"features.{place}.{kind}": torch.randn(shape) for place, kind, shape in VGG_OF_TINY}
    torch.save(weights, tmp_path / "vgg.pt")
    config = override_config(tiny_config, [f"model.encoder_weights={tmp_path / 'vgg.pt'}"])
    train(config, tmp_path / "run")
    (tmp_path / "vgg.pt").unlink()
    train(config, tmp_path / "run", resume=True)


VGG_OF_TINY = [(0, "weight", (4, 3, 3, 3)), (0, "bias", (4,)), (3, "weight", (8, 4, 3, 3)), (3, "bias", (8,))]


@pytest.mark.parametrize(("contrast", "notes"), [(0.3, 1), (0.0, 0)])
def test_earlier_arithmetic_is_named_where_it_matters(contrast, notes, tiny_config, tmp_path, capsys):
    config = override_config(tiny_config, [f"augment.contrast={contrast}", "train.epochs=2"])
    train(config, tmp_path / "run")
    last = tmp_path / "run" / "last.pt"
    train(config, tmp_path / "run", resume=True)
    assert "note:" not in capsys.readouterr().out
    checkpoint = load_checkpoint(last)
    assert checkpoint.training is not None
    del checkpoint.training["colors"]
    save_checkpoint(last, checkpoint)
    train(config, tmp_path / "run", resume=True)
    assert capsys.readouterr().out.count("began with an earlier arithmetic of augment.contrast") == notes
