"""A sanity check: overfit one batch."""

from __future__ import annotations

import torch

from segnet.classes import IGNORE_INDEX
from segnet.config.sections import Config, InferenceConfig
from segnet.data.loader import build_loader
from segnet.data.sampler import ResumableSampler
from segnet.inference.answers import predict_maps
from segnet.metrics.confusion import ConfusionMatrix, Scores
from segnet.runs.transfer import take_weights
from segnet.system.devices import choose_device
from segnet.system.distributed import say
from segnet.system.errors import ExitCode, UserError
from segnet.tasks.choice import build_task
from segnet.training.data import open_data, resolve_scale
from segnet.training.precision import resolve_precisions
from segnet.training.schedule import due
from segnet.training.step import build_state, to_device, train_step


def overfit_one_batch(config: Config, steps: int) -> Scores:
    """Train on the first batch alone, at the constant rate `optim.lr`, and score the network on that batch. Nothing is written.

    An mIoU far below 1 on the batch that was learnt means that images, masks or network do not fit together.
    Raises UserError (data) for a fault of the data set, (numeric) when the loss is not finite.
    """
    device = choose_device(config.device)
    config, _ = resolve_precisions(config, device, None)
    task = build_task(config)
    train_set, _ = open_data(config, task)
    config = resolve_scale(config, train_set)
    sampler = ResumableSampler(len(train_set), config.train.batch_size, seed=config.seed, start=0, total=1)
    batch = to_device(next(iter(build_loader(train_set, sampler, workers=0))), device)
    shown = set(torch.unique(batch.truth).tolist()) - {IGNORE_INDEX}
    if len(shown) < 2:
        found = f"the masks of the first batch show {'one class' if shown else 'no class'} alone ({', '.join(batch.id)})"
        raise UserError(ExitCode.DATA, config.data.root, found, "raise train.batch_size, or set another seed")
    state = build_state(config, task.channels, device)
    transfer = take_weights(state.model, config.model, config.data.class_set.names)
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
    predicted = predict_maps(state.model, batch.image, InferenceConfig()).mask
    return ConfusionMatrix(task.channels).update(batch.truth.cpu(), predicted).scores()
