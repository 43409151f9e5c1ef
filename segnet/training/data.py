"""The train and the val split of a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segnet.config.advice import zoom_warnings
from segnet.config.data_folder import class_warnings
from segnet.config.sections import Config
from segnet.data.colors import draw_changes, turned_off
from segnet.data.dataset import SegmentationDataset, SplitDataset, warn
from segnet.data.donors import RareClasses, class_odds, rare_class_odds
from segnet.data.statistics import class_statistics, percentile_ranges, pictures_of_classes
from segnet.data.transforms import Balance, TrainTransform
from segnet.data.workers import require_open_files
from segnet.system.distributed import say, world_size
from segnet.system.errors import config_error, data_error
from segnet.tasks.task import AnswerType, Task


def open_data(config: Config, task: Task[AnswerType]) -> tuple[SplitDataset, SplitDataset]:
    """The train and the val split. Raises UserError (data) for their faults, (config) when a rank would get no image."""
    data = config.data
    parts = config.train.accumulate * world_size()
    if config.train.batch_size < parts:
        found = f"{config.train.batch_size} pictures for {parts} parts (ranks × train.accumulate)"
        raise config_error("train.batch_size", found, "raise it, or use fewer ranks or parts")
    if data.val_split == data.train_split:
        found = f"data.train_split and data.val_split are both '{data.val_split}'"
        raise data_error(data.root, found, "score on pictures that training does not see")
    require_open_files(2 * data.workers)  # those of a validation are open beside those of training
    train_set = open_train_set(config, task)
    val_set = task.open_split(data.val_split)
    warn([*class_warnings(data), *zoom_warnings(config)])
    if data.cache == "disk":
        for dataset in (train_set, val_set):
            dataset.keep_decoded(Path(data.cache_folder) if data.cache_folder else None)
    return train_set, val_set


def open_train_set(config: Config, task: Task[AnswerType]) -> SplitDataset:
    """The train split, augmented as `config` says. Raises UserError (data) for its faults."""
    dataset = task.open_split(config.data.train_split, training=True, seed=config.seed)
    transform = augment(dataset, config)
    if config.augment.copy_paste and transform.donors is None:
        say("note: augment.copy_paste has no effect, since no class has fewer training pixels than the median class")
    if off := turned_off(config.augment, config.data.bands):
        kind = f"{config.data.channels} channels of data.scale {_first_word(config.data.scale)}"
        say(f"note: off are augment.{' and augment.'.join(off)}, which need 8-bit R, G, B; these images have {kind}")
    return dataset


def _first_word(scale: object) -> str:
    return scale if isinstance(scale, str) else "[low, high]"


def augment(dataset: SplitDataset, config: Config) -> TrainTransform:
    """Let `dataset` change its samples as `config` says; the transform that does so, but for colours."""
    bands = config.data.bands
    balance = donors = None
    if config.data.balance or config.augment.copy_paste:
        assert isinstance(dataset, SegmentationDataset)  # a configuration of another task has neither
        pixels, power = class_statistics(dataset).pixels, config.data.balance_power
        if config.data.balance:
            balance = Balance(config.data.balance, class_odds(pixels, power))
        rare = rare_class_odds(pixels, power)
        if config.augment.copy_paste and rare.any():
            donors = RareClasses(dataset.read, pictures_of_classes(dataset), rare)
    transform = TrainTransform(config.augment, bands, balance=balance, donors=donors)
    dataset.transform = transform
    dataset.draw_colors = partial(draw_changes, config.augment, bands)
    return transform


def resolve_scale(config: Config, dataset: SplitDataset, began: Config | None = None) -> Config:
    """`config` with the values that data.scale "train" means: those of the run that `began`, else measured on the train split.

    The dataset, which is that split, is augmented anew, since its changes of colour depend on the values. Other configurations
    are returned as they are. Raises UserError (data) for a damaged picture.
    """
    if config.data.scale != "train":
        return config
    assert isinstance(dataset, SegmentationDataset)  # a configuration of another task has no such scale
    ranges = began.data.scale if began and not isinstance(began.data.scale, str) else percentile_ranges(dataset)
    config = config.model_copy(update={"data": config.data.model_copy(update={"scale": ranges})})
    augment(dataset, config)
    return config
