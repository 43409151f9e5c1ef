"""The train and the val split of a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segnet.config.advice import zoom_warnings
from segnet.config.data_folder import class_warnings
from segnet.config.sections import Config
from segnet.data.colors import draw_changes, need_rgb
from segnet.data.dataset import SegmentationDataset, warn
from segnet.data.donors import RareClasses, class_odds, rare_class_odds
from segnet.data.statistics import class_statistics, pictures_of_classes
from segnet.data.transforms import Balance, TrainTransform
from segnet.data.workers import require_open_files
from segnet.system.distributed import say, world_size
from segnet.system.errors import ExitCode, UserError
from segnet.tasks.task import AnswerType, Task


def open_data(config: Config, task: Task[AnswerType]) -> tuple[SegmentationDataset, SegmentationDataset]:
    """The train and the val split. Raises UserError (data) for their faults, (config) when a rank would get no image."""
    data = config.data
    parts = config.train.accumulate * world_size()
    if config.train.batch_size < parts:
        found = f"{config.train.batch_size} pictures for {parts} parts (ranks × train.accumulate)"
        raise UserError(ExitCode.CONFIG, "train.batch_size", found, "raise it, or use fewer ranks or parts")
    if data.val_split == data.train_split:
        found = f"data.train_split and data.val_split are both '{data.val_split}'"
        raise UserError(ExitCode.DATA, data.root, found, "score on pictures that training does not see")
    require_open_files(2 * data.workers)  # those of a validation are open beside those of training
    train_set = open_train_set(config, task)
    val_set = task.open_split(data.val_split)
    warn([*class_warnings(data), *zoom_warnings(config)])
    if data.cache == "disk":
        for dataset in (train_set, val_set):
            dataset.keep_decoded(Path(data.cache_folder) if data.cache_folder else None)
    return train_set, val_set


def open_train_set(config: Config, task: Task[AnswerType]) -> SegmentationDataset:
    """The train split, augmented as `config` says. Raises UserError (data) for its faults."""
    bands = config.data.bands
    dataset = task.open_split(config.data.train_split, transform=TrainTransform(config.augment, bands), seed=config.seed)
    dataset.draw_colors = partial(draw_changes, config.augment, bands)
    if bands.channels != 3 and (off := need_rgb(config.augment)):
        say(f"note: augment.{' and augment.'.join(off)} are off: they need R, G, B, and data.channels is {bands.channels}")
    if config.data.balance or config.augment.copy_paste:
        dataset.transform = _favouring_rare_classes(config, dataset)
    return dataset


def _favouring_rare_classes(config: Config, dataset: SegmentationDataset) -> TrainTransform:
    """The augmentation of `config`, with what its data.balance and augment.copy_paste need to know of the training masks."""
    pixels = class_statistics(dataset).pixels
    power = config.data.balance_power
    balance = Balance(config.data.balance, class_odds(pixels, power)) if config.data.balance else None
    rare = rare_class_odds(pixels, power)
    if config.augment.copy_paste and not rare.any():
        say("note: augment.copy_paste has no effect, since no class has fewer training pixels than the median class")
    if not config.augment.copy_paste or not rare.any():
        return TrainTransform(config.augment, config.data.bands, balance=balance)
    donors = RareClasses(dataset.read, pictures_of_classes(dataset), rare)
    return TrainTransform(config.augment, config.data.bands, balance=balance, donors=donors)
