"""A frozen encoder: its weights and statistics stay, it has no gradients, and a run with it resumes to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import assert_same_run, same

from segnet.config.loading import override_config
from segnet.config.sections import Config
from segnet.data.dataset import Sample
from segnet.losses import CrossEntropy
from segnet.models.initialization import build_model
from segnet.runs.checkpoint import load_checkpoint
from segnet.training.loop import train
from segnet.training.step import TrainState, build_state, train_step

CPU = torch.device("cpu")
FROZEN = "optim.encoder_lr_factor=0"


def some_batch() -> Sample:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (4, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return Sample(image, torch.randint(0, 3, (4, 16, 16), generator=generator), "")


def stepped(config: Config, steps: int = 2) -> TrainState:
    state = build_state(config, 3, CPU)
    for _ in range(steps):
        train_step(state, some_batch(), CrossEntropy(), lr=0.1, config=config)
    return state


def parts(state: TrainState, *, encoder: bool) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.model.state_dict().items() if name.startswith("encoder.") == encoder}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_encoder_and_its_statistics_stay_and_all_else_learns(tiny_config: Config, optimizer: str) -> None:
    config = override_config(tiny_config, [FROZEN, f"optim.name={optimizer}", "train.ema_decay=0.5", "optim.weight_decay=0.1"])
    before, state = build_state(config, 3, CPU), stepped(config)
    assert same(parts(state, encoder=True), parts(before, encoder=True))
    assert state.ema is not None
    assert same(state.ema.module.encoder.state_dict(), before.model.encoder.state_dict())
    moved = [not torch.equal(a, parts(before, encoder=False)[name]) for name, a in parts(state, encoder=False).items()]
    assert sum(moved) >= len(moved) - 3  # all but the normalisation's mean and deviation, and perhaps a bias
    assert all(parameter.grad is None for parameter in state.model.encoder.parameters())


def test_a_learning_encoder_has_other_statistics(tiny_config: Config) -> None:
    """What the test above would not see if nothing moved."""
    state = stepped(override_config(tiny_config, ["optim.encoder_lr_factor=0.1"]))
    assert not torch.equal(state.model.encoder[0][0].norm.running_mean, torch.zeros(4))  # type: ignore[index]


def test_no_activation_of_the_encoder_is_kept(tiny_config: Config) -> None:
    saved = []
    for changes in ([], [FROZEN]):
        model = build_state(override_config(tiny_config, changes), 3, CPU).model
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(some_batch().image)
        saved.append(sum(sizes))
    assert saved[1] < 0.6 * saved[0]


@pytest.mark.parametrize("recompute", ["activations", "stages"])
def test_recomputed_gradients_are_the_same(tiny_config: Config, recompute: str) -> None:
    plain = stepped(override_config(tiny_config, [FROZEN]))
    again = stepped(override_config(tiny_config, [FROZEN, f"train.recompute={recompute}"]))
    assert same(plain.model.state_dict(), again.model.state_dict())


def test_train_and_eval_leave_a_frozen_encoder_in_evaluation_mode(tiny_config: Config) -> None:
    model = build_model(override_config(tiny_config, ["model.encoder=[{widths: [4]}, {widths: [8], dropout: 0.5}]"]).model, 3)
    model.freeze_encoder()
    for mode in (True, False, True):
        model.train(mode)
        assert not any(module.training for module in model.encoder.modules())
        assert all(module.training == mode for module in (*model.decoder.modules(), *model.encoder_dropout.modules()))


def test_a_stopped_run_ends_as_one_that_was_not(tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = override_config(tiny_config, [FROZEN, "train.eval_every_epochs=1", "train.ema_decay=0.5"])
    train(config, tmp_path / "whole")
    said = capsys.readouterr()
    assert "(432 of them frozen)" in said.out
    assert "warning: the encoder is frozen with random weights" in said.err
    for _ in range(4):  # one step at a time
        train(override_config(config, ["train.max_minutes=1e-9"]), tmp_path / "stopped", resume=True)
    train(config, tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    left = load_checkpoint(tmp_path / "whole" / "last.pt").weights
    assert set(left) == set(build_model(config.model, 3).state_dict())
