"""The learning rate of each step, and the steps at which something is due."""

from __future__ import annotations

import math

from segnet.config.sections import Config, OptimConfig
from segnet.data.dataset import SplitDataset


def learning_rate(step: int, total_steps: int, optim: OptimConfig) -> float:
    """The learning rate of step 0..total_steps-1: a warm-up to `optim.lr`, then the schedule down towards zero.

    The warm-up is linear from zero; that of one_cycle (Smith & Topin 2018) follows a cosine from a twenty-fifth of the peak.
    """
    warmup = round(optim.warmup * total_steps)
    if step < warmup:
        rise = 0.5 * (1 - math.cos(math.pi * step / warmup))
        return optim.lr * ((1 + 24 * rise) / 25 if optim.schedule == "one_cycle" else (step + 1) / warmup)
    progress = (step - warmup) / max(1, total_steps - warmup)
    if optim.schedule == "constant":
        return optim.lr
    if optim.schedule in ("cosine", "one_cycle"):
        return optim.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return optim.lr * (1 - progress) ** optim.power


def total_steps(config: Config, train_set: SplitDataset) -> int:
    """The number of steps of the run: `train.epochs` in batches, rounded up, at least one."""
    return max(1, math.ceil(config.train.epochs * len(train_set) / config.train.batch_size))


def due(step: int, total_steps: int, every: int) -> bool:
    """True after every `every` steps and after the last one, for what is done at intervals.

    False in the half interval before the end, where the end repeats it at once.
    """
    return step == total_steps or (step % every == 0 and total_steps - step >= every / 2)


def patience_is_over(steps_without_better: int, steps_per_epoch: float, patience: float) -> bool:
    """True after `patience` epochs without a better score, which is known after an evaluation alone; never where it is 0."""
    return 0 < patience * steps_per_epoch <= steps_without_better
