"""The loop: schedules, groups, the moving average, what a run leaves, and what it refuses."""

import csv
import itertools
import json
import math

import pytest
import torch
from helpers import folder_bytes, refused, write_split

from segnet.checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint
from segnet.config import Config, LossConfig, OptimConfig, override_config
from segnet.datasets import Sample, SegmentationDataset, class_statistics
from segnet.errors import ExitCode
from segnet.images import save_mask
from segnet.losses import Criterion, enet_weights, median_frequency_weights
from segnet.models import build_model
from segnet.training import (
    build_criterion,
    build_ema,
    build_optimizer,
    build_state,
    due,
    learning_rate,
    train,
    train_step,
)


def rates(**optim) -> list[float]:
    return [learning_rate(step, 100, OptimConfig(lr=1.0, **optim)) for step in range(100)]


@pytest.mark.parametrize("schedule", ["polynomial", "cosine"])
def test_schedules_warm_up_peak_and_end_near_zero(schedule):
    found = rates(schedule=schedule, warmup=0.1)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(found) == 1.0
    assert all(a > b for a, b in itertools.pairwise(found[10:]))
    assert 0 < found[-1] < 0.03


def test_schedules_equal_their_formulas():
    assert rates(schedule="polynomial", power=0.9)[50] == pytest.approx(0.5**0.9)
    assert rates(schedule="cosine")[25] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert set(rates(schedule="constant")) == {1.0}


def test_parameter_groups_follow_the_configuration(tiny_config):
    model = build_model(tiny_config.model, 3)
    optimizer = build_optimizer(model, OptimConfig(encoder_lr_factor=0.1, weight_decay=0.3))
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(group_of) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = group_of[id(parameter)]
        assert group["lr_factor"] == (0.1 if name.startswith("encoder.") else 1.0)
        assert group["weight_decay"] == (0.3 if "conv.weight" in name or name == "head.weight" else 0.0)


def some_batch(seed: int = 0) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (2, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return Sample(image, torch.randint(0, 3, (2, 16, 16), generator=generator), "")


def test_a_step_equals_torchs_own_sgd(tiny_config):
    """Clipping, encoder factor and weight decay off: one step is p - lr * gradient."""
    config = override_config(tiny_config, ["optim.momentum=0", "optim.weight_decay=0"])
    state, batch = build_state(config, torch.device("cpu")), some_batch()
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    gradients = torch.autograd.grad(Criterion()(state.model(batch.image), batch.mask), list(state.model.parameters()))
    train_step(state, batch, Criterion(), lr=0.5, config=config)
    for (name, parameter), gradient in zip(state.model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter, before[name] - 0.5 * gradient, rtol=1e-4, atol=1e-6)


def test_gradients_are_shortened_to_the_given_norm(tiny_config):
    config = override_config(tiny_config, ["optim.clip_norm=0.01", "optim.momentum=0", "optim.weight_decay=0"])
    state = build_state(config, torch.device("cpu"))
    before = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    train_step(state, some_batch(), Criterion(), lr=1.0, config=config)
    after = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_dropout_is_a_function_of_the_step(tiny_config):
    config = override_config(tiny_config, ["model.encoder=[{widths: [4]}, {widths: [8], dropout: 0.5}]"])

    def one_step(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        state = build_state(config, torch.device("cpu"))
        torch.rand(seed)  # whatever was drawn before must not matter
        train_step(state, some_batch(), Criterion(), lr=0.1, config=config)
        return state.model.head.weight.detach().clone()

    assert torch.equal(one_step(1), one_step(5))


def test_the_moving_average_follows_its_formula():
    model = torch.nn.Linear(1, 1, bias=False)
    ema = build_ema(model, 0.5)
    expected = None
    for step, value in enumerate([4.0, 8.0, 0.0, 2.0]):
        torch.nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected)


# ---- runs -----------------------------------------------------------------------------------------------------------


def read_metrics(run) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_the_contract_names(tiny_config, tmp_path, capsys):
    run = tmp_path / "runs" / "tiny"
    train(tiny_config, run)
    left = {p.name for p in run.iterdir() if not p.name.startswith(".")}
    assert left == {"config.yaml", "environment.json", "metrics.csv", "tensorboard", "last.pt", "previous.pt", "best.pt"}
    assert [int(row["step"]) for row in read_metrics(run) if row["loss"]] == [1, 2, 3, 4, 5, 6]
    scored = [float(row["val_miou"]) for row in read_metrics(run) if row["val_miou"]]
    assert len(scored) == 2
    assert load_checkpoint(run / "best.pt").miou == pytest.approx(max(scored))
    assert {"command", "commit", "device", "torch"} <= json.loads((run / "environment.json").read_text()).keys()
    assert "val mIoU" in capsys.readouterr().out


def test_it_learns(tiny_config, tmp_path):
    """A wider network tells three colours apart after 120 steps; an untrained one scores about 0.2."""
    widths = "[{widths: [16]}, {widths: [16]}]"
    changes = ["train.epochs=40", "train.eval_every=40", "train.log_every=40", "optim.name=adamw", "optim.lr=0.02"]
    train(override_config(tiny_config, [f"model.encoder={widths}", f"model.decoder={widths}", *changes]), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / "best.pt").miou > 0.7


def test_an_existing_run_is_refused_and_untouched(tiny_config, tmp_path):
    run = tmp_path / "run"
    train(tiny_config, run)
    before = folder_bytes(run)
    with refused(ExitCode.CONFIG, "holds a run already", "--resume"):
        train(tiny_config, run)
    assert folder_bytes(run) == before


def test_resuming_a_finished_run_changes_nothing(tiny_config, tmp_path, capsys):
    run = tmp_path / "run"
    train(tiny_config, run)
    before = folder_bytes(run)
    train(tiny_config, run, resume=True)
    assert folder_bytes(run) == before
    assert "complete" in capsys.readouterr().out


def test_resume_without_a_checkpoint_says_so_and_starts(tiny_config, tmp_path, capsys):
    train(tiny_config, tmp_path / "run", resume=True)
    assert "starting at step 0" in capsys.readouterr().out


def test_resume_with_another_configuration_names_the_key(tiny_config, tmp_path):
    train(tiny_config, tmp_path / "run")
    with refused(ExitCode.CHECKPOINT, "optim.lr", "same configuration"):
        train(override_config(tiny_config, ["optim.lr=0.5", "train.log_every=3"]), tmp_path / "run", resume=True)


def test_resume_with_other_pictures_is_refused(tiny_config, tiny_data, tmp_path):
    train(tiny_config, tmp_path / "run")
    write_split(tiny_data, "train", ["train_1", "train_0", "train_2", "train_3", "train_4", "train_5"])
    with refused(ExitCode.CHECKPOINT, "another list of pictures", str(tiny_data)):
        train(tiny_config, tmp_path / "run", resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(tiny_config, tmp_path):
    run = tmp_path / "run"
    config = override_config(tiny_config, ["optim.lr=1e30", "train.save_every=0.1", "train.eval_every=100"])
    with refused(ExitCode.NUMERIC, "not finite"):
        train(config, run)
    if (run / "last.pt").exists():
        assert all(t.isfinite().all() for t in load_checkpoint(run / "last.pt").weights.values() if t.is_floating_point())


def test_missing_data_is_said_before_the_run_folder_exists(tiny_config, tmp_path):
    with refused(ExitCode.DATA, "no such file"):
        train(override_config(tiny_config, ["data.root=/nowhere"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_val_split_without_a_scored_pixel_still_ends_with_a_network(tiny_config, tiny_data, tiny_classes, tmp_path):
    for name in ("val_0", "val_1", "val_2"):
        save_mask(tiny_data / "SegmentationClass" / f"{name}.png", torch.full((32, 32), 255), tiny_classes)
    train(tiny_config, tmp_path / "run")
    assert load_model(tmp_path / "run", ["device=cpu"]).config == tiny_config


def test_deterministic_mode_trains_and_gives_the_same_weights(tiny_config, tmp_path):
    config = override_config(tiny_config, ["train.deterministic=true"])
    try:
        for name in ("a", "b"):
            train(config, tmp_path / name)
    finally:
        torch.use_deterministic_algorithms(False)
    a, b = (load_checkpoint(tmp_path / name / "last.pt").weights for name in ("a", "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_kept_is_the_moving_average(tiny_config, tmp_path):
    train(override_config(tiny_config, ["train.ema_decay=0.9"]), tmp_path / "run")
    last = load_checkpoint(tmp_path / "run" / "last.pt")
    assert not torch.equal(last.weights["head.weight"], last.training["ema"]["model"]["head.weight"])


def test_the_criterion_is_what_the_configuration_says(tiny_data, tiny_classes):
    dataset = SegmentationDataset(tiny_data, "train", tiny_classes)
    counted, device = class_statistics(dataset), torch.device("cpu")
    plain = build_criterion(LossConfig(label_smoothing=0.1, hardest=0.5), dataset, device)
    assert plain.weight is None
    assert (plain.smoothing, plain.hardest) == (0.1, 0.5)
    for name, weight in (
        ("median_frequency", median_frequency_weights(counted.pixels, counted.pixels_of_pictures, power=0.5)),
        ("enet", enet_weights(counted.pixels, power=0.5)),
    ):
        loss = LossConfig.model_validate({"class_weights": name, "weight_power": 0.5})
        found = build_criterion(loss, dataset, device).weight
        assert found is not None
        assert torch.equal(found, weight)


def test_a_resumed_run_needs_no_pretrained_file(tiny_config, tmp_path):
    weights = {f"features.{place}.{kind}": torch.randn(shape) for place, kind, shape in VGG_OF_TINY}
    torch.save(weights, tmp_path / "vgg.pt")
    config = override_config(tiny_config, [f"model.encoder_weights={tmp_path / 'vgg.pt'}"])
    train(config, tmp_path / "run")
    (tmp_path / "vgg.pt").unlink()
    train(config, tmp_path / "run", resume=True)


VGG_OF_TINY = [(0, "weight", (4, 3, 3, 3)), (0, "bias", (4,)), (3, "weight", (8, 4, 3, 3)), (3, "bias", (8,))]


def test_an_optimizer_state_that_is_not_finite_is_not_saved(tiny_config, tmp_path):
    weights = build_model(tiny_config.model, 3).state_dict()
    training = {"optimizer": {"state": {0: {"momentum_buffer": torch.tensor([float("inf")])}}}}
    with refused(ExitCode.NUMERIC, "training.optimizer.state.0.momentum_buffer"):
        save_checkpoint(tmp_path / "last.pt", Checkpoint(tiny_config, 1, None, weights, training))
    assert not (tmp_path / "last.pt").exists()


def test_a_batch_that_leaves_batch_normalisation_one_value_is_refused(tiny_config):
    changes = ["augment.crop_size=[16, 16]", "train.batch_size=1", "model.encoder=[{widths: [1]}, {widths: [1]}]"]
    override_config(tiny_config, [*changes, "model.decoder=[{widths: [1]}, {widths: [1]}]"])
    with refused(ExitCode.CONFIG, "batch normalisation"):
        four = "[{widths: [1]}, {widths: [1]}, {widths: [1]}, {widths: [1]}]"
        override_config(tiny_config, [*changes[:2], f"model.encoder={four}", f"model.decoder={four}"])


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_median_frequency_weights_and_moving_average_train(tiny_config, tmp_path, precision):
    config: Config = override_config(
        tiny_config, ["loss.class_weights=median_frequency", "train.ema_decay=0.9", f"train.precision={precision}"]
    )
    train(config, tmp_path / "run")
    loaded = load_model(tmp_path / "run", ["device=cpu"])
    assert loaded.config == config


def test_nothing_is_done_twice_at_the_end():
    assert [step for step in range(1, 332) if due(step, 331, 165)] == [165, 331]
    assert [step for step in range(1, 11) if due(step, 10, 4)] == [4, 8, 10]
    assert [step for step in range(1, 4) if due(step, 3, 100)] == [3]
