"""A sanity check: overfit one batch."""

from __future__ import annotations

import torch

from segnet.config.sections import Config, InferenceConfig
from segnet.data.dataset import Sample
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler
from segnet.inference.answers import predict
from segnet.runs.transfer import take_weights
from segnet.system.devices import choose_device
from segnet.system.distributed import say
from segnet.system.errors import ExitCode, UserError, data_error
from segnet.tasks.choice import build_task
from segnet.tasks.task import Measure
from segnet.training.data import open_data, resolve_scale
from segnet.training.precision import resolve_precisions
from segnet.training.schedule import due
from segnet.training.step import build_state, to_device, train_step


def overfit_one_batch(config: Config, steps: int) -> tuple[Measure, bool]:
    """Train on the first batch alone, at the constant rate `optim.lr`. How well it is answered, and whether it was learnt.

    Nothing is written. A batch that is not learnt means that images, truth or network do not fit together.
    Raises UserError (data) for a fault of the data set, (numeric) when the loss is not finite.
    """
    device = choose_device(config.device)
    config, _ = resolve_precisions(config, device, None)
    task = build_task(config)
    train_set, _ = open_data(config, task)
    config = resolve_scale(config, train_set)
    sampler = ResumableSampler(len(train_set), config.train.batch_size, seed=config.seed, start=0, total=1)
    batch = to_device(next(iter(build_loader(train_set, sampler, workers=0))), device)
    if fault := task.batch_fault(batch):
        raise data_error(config.data.root, fault, "raise train.batch_size, or set another seed")
    state = build_state(config, task.channels, device)
    transfer = take_weights(state.model, config.model, config.data.class_set.names, config.data.bands.rgb)
    if transfer:
        say(transfer.table())
    criterion = task.build_criterion(train_set, device)
    for step in range(steps):
        train_step(state, batch, criterion, lr=config.optim.lr, config=config)
        if due(step + 1, steps, max(1, steps // 10)):
            say(f"step {step + 1}/{steps}  loss {float(state.loss_sum) / state.loss_steps:.4f}")
            state.loss_sum, state.loss_steps = torch.zeros_like(state.loss_sum), 0
    if state.first_bad >= 0:
        found = f"step {int(state.first_bad) + 1}: the loss or its gradient is not finite (pictures {', '.join(batch.id)})"
        raise UserError(ExitCode.NUMERIC, config.data.root, found, "lower optim.lr")
    answer = predict(state.model, batch.image, InferenceConfig(), task.answers)
    return task.has_learnt(Sample(batch.image.cpu(), batch.truth.cpu(), batch.id), answer)
