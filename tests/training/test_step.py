"""One step against torch's own: clipping, dropout, parts of a batch, and what is not finite."""

import math

import pytest
import torch
from helpers import same
from ranks import Ranks

from segnet.config.loading import override_config
from segnet.data.dataset import Sample
from segnet.losses import CrossEntropy
from segnet.system.distributed import process_group, rank
from segnet.training.loop import average_over_ranks
from segnet.training.step import build_state, train_step

CPU = torch.device("cpu")


def some_batch(seed: int = 0) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (2, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return Sample(image, torch.randint(0, 3, (2, 16, 16), generator=generator), "")


def test_a_step_equals_torchs_own_sgd(tiny_config):
    """Clipping, encoder factor and weight decay off: one step is p - lr * gradient."""
    config = override_config(tiny_config, ["optim.momentum=0", "optim.weight_decay=0"])
    state, batch = build_state(config, 3, torch.device("cpu")), some_batch()
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    gradients = torch.autograd.grad(CrossEntropy()(state.model(batch.image), batch.truth), list(state.model.parameters()))
    train_step(state, batch, CrossEntropy(), lr=0.5, config=config)
    for (name, parameter), gradient in zip(state.model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter, before[name] - 0.5 * gradient, rtol=1e-4, atol=1e-6)


def test_gradients_are_shortened_to_the_given_norm(tiny_config):
    config = override_config(tiny_config, ["optim.clip_norm=0.01", "optim.momentum=0", "optim.weight_decay=0"])
    state = build_state(config, 3, torch.device("cpu"))
    before = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    train_step(state, some_batch(), CrossEntropy(), lr=1.0, config=config)
    after = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_dropout_is_a_function_of_the_step(tiny_config):
    config = override_config(tiny_config, ["model.encoder=[{widths: [4]}, {widths: [8], dropout: 0.5}]"])

    def one_step(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        state = build_state(config, 3, torch.device("cpu"))
        torch.rand(seed)  # whatever was drawn before must not matter
        train_step(state, some_batch(), CrossEntropy(), lr=0.1, config=config)
        return state.model.head.weight.detach().clone()

    assert torch.equal(one_step(1), one_step(5))


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_that_is_not_finite_leaves_the_weights(tiny_config, where, optimizer):
    """A loss of inf, and a finite loss whose gradient is inf."""
    state = build_state(override_config(tiny_config, [f"optim.name={optimizer}"]), 3, torch.device("cpu"))
    train_step(state, some_batch(), CrossEntropy(), lr=0.1, config=tiny_config)
    before = [p.detach().clone() for p in state.model.parameters()]

    class Planted(CrossEntropy):
        def __call__(self, logits, mask, counts=None):
            loss = super().__call__(logits, mask, counts)
            if where == "loss":
                return loss * math.inf
            zero = (loss - loss.detach()).abs()
            return loss + zero.sqrt()  # 0, with an infinite slope there

    train_step(state, some_batch(), Planted(), lr=0.1, config=tiny_config)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
    assert int(state.first_bad) == 1
    train_step(state, some_batch(), Planted(), lr=0.1, config=tiny_config)
    assert int(state.first_bad) == 1, "the first one is what the message is about"


def test_float16_takes_an_overflow_in_its_stride(tiny_config):
    """Its scale is lowered, and the run goes on: only a loss that is not finite ends it."""
    config = override_config(tiny_config, ["train.precision=float16", "optim.clip_norm=1"])
    state = build_state(config, 3, torch.device("cpu"))
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = [p.detach().clone() for p in state.model.parameters()]
    train_step(state, some_batch(), CrossEntropy(), lr=0.1, config=config)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
    assert int(state.first_bad) == -1
    assert state.scaler.get_scale() == 2.0**39
    assert all((buffers["momentum_buffer"] == 0).all() for buffers in state.optimizer.state.values())
    for _ in range(30):
        train_step(state, some_batch(), CrossEntropy(), lr=0.1, config=config)
    assert not torch.equal(before[0], next(state.model.parameters()))


def test_float16_without_a_finite_gradient_at_any_scale_is_an_error(tiny_config):
    """Else every step would be skipped, and the run end well with the network that it began with."""
    config = override_config(tiny_config, ["train.precision=float16"])
    state = build_state(config, 3, torch.device("cpu"))

    class Planted(CrossEntropy):
        def __call__(self, logits, mask, counts=None):
            loss = super().__call__(logits, mask, counts)
            return loss + (loss - loss.detach()).abs().sqrt()  # 0, with an infinite slope there

    for _ in range(30):
        train_step(state, some_batch(), Planted(), lr=0.1, config=config)
    assert int(state.first_bad) == 17, "the scale begins at 2^16 and is halved by each"


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(tiny_config, monkeypatch, parts):
    """In float64 and without batch normalisation, with ignored pixels and classes spread unevenly over the parts."""
    monkeypatch.setattr(torch.nn, "BatchNorm2d", lambda channels: torch.nn.Identity())
    image = torch.cat([some_batch(seed).image for seed in range(2)])
    mask = torch.cat([some_batch(seed).truth for seed in range(2)])
    mask[0, :9] = 255
    mask[3] = 255
    weights = []
    for accumulate in (1, parts):
        changes = ["train.batch_size=4", f"train.accumulate={accumulate}", "optim.clip_norm=0.5"]
        config = override_config(tiny_config, changes)
        torch.set_default_dtype(torch.float64)
        try:
            state = build_state(config, 3, torch.device("cpu"))
        finally:
            torch.set_default_dtype(torch.float32)
        criterion = CrossEntropy(weight=torch.tensor([0.3, 1.0, 2.0]))
        train_step(state, Sample(image, mask, ""), criterion, lr=0.5, config=config)
        weights.append(torch.cat([p.detach().flatten() for p in state.model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-12)


def step_on_two_ranks(config, folder, *, infinite_on: int) -> list[dict[str, torch.Tensor]]:
    """The weights and the first bad step of both ranks after two steps; the loss of one rank is infinite in the first."""

    class Criterion(CrossEntropy):
        def __call__(self, logits, mask, counts=None):
            loss = super().__call__(logits, mask, counts)
            return loss + (torch.inf if rank() == infinite_on and state.step == 0 else 0.0)  # the gradient stays finite

    def body() -> None:
        nonlocal state
        with process_group(CPU):
            state = build_state(config, 3, CPU)
            state.network = average_over_ranks(state.network, CPU)
            generator = torch.Generator().manual_seed(rank())
            image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=generator)
            mask = torch.randint(0, 3, (1, 32, 32), dtype=torch.uint8, generator=generator)
            before = {name: weight.clone() for name, weight in state.model.named_parameters()}
            train_step(state, Sample(image, mask, ""), Criterion(), lr=0.1, config=config)
            kept = torch.tensor(same(before, dict(state.model.named_parameters())))
            train_step(state, Sample(image, mask, ""), Criterion(), lr=0.1, config=config)
            torch.save({**dict(state.model.named_parameters()), "bad": state.first_bad, "kept": kept}, folder / f"{rank()}.pt")

    state = None
    ranks = Ranks(2, body, folder)
    assert ranks.wait() == [0, 0], ranks.text()
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in (0, 1)]


def test_an_infinite_loss_of_one_rank_makes_all_ranks_skip_the_step(tiny_config, tmp_path):
    first, second = step_on_two_ranks(override_config(tiny_config, ["train.ema_decay=0.9"]), tmp_path, infinite_on=1)
    assert first["bad"] == second["bad"] == 0
    assert first["kept"]
    assert second["kept"]
    assert same(first, second)


@pytest.mark.parametrize("changes", [[], ["optim.encoder_lr_factor=0"]])
def test_finite_losses_move_all_ranks_alike(changes, tiny_config, tmp_path):
    first, second = step_on_two_ranks(override_config(tiny_config, changes), tmp_path, infinite_on=2)
    assert first["bad"] == second["bad"] == -1
    assert not first["kept"]
    assert same(first, second)
