"""The train and the val split of a run."""

from __future__ import annotations

from pathlib import Path

from segnet.config.loading import class_warnings
from segnet.config.sections import Config
from segnet.data.dataset import SegmentationDataset, open_split, require_useful_labels, warn
from segnet.data.transforms import TrainTransform
from segnet.data.workers import require_open_files
from segnet.system.distributed import world_size
from segnet.system.errors import ExitCode, UserError


def open_data(config: Config) -> tuple[SegmentationDataset, SegmentationDataset]:
    """The train and the val split. Raises UserError (data) for a fault of theirs, (config) when ranks would have no pictures."""
    data, parts = config.data, config.train.accumulate * world_size()
    if config.train.batch_size < parts:
        found = f"{config.train.batch_size} pictures for {parts} parts (ranks × train.accumulate)"
        raise UserError(ExitCode.CONFIG, "train.batch_size", found, "raise it, or use fewer ranks or parts")
    if data.val_split == data.train_split:
        found = f"data.train_split and data.val_split are both '{data.val_split}'"
        raise UserError(ExitCode.DATA, data.root, found, "score on pictures that training does not see")
    require_open_files(2 * data.workers)  # those of an evaluation are there beside those of training
    train_set, val_set = open_train_set(config), open_split(data, data.val_split)
    require_useful_labels(val_set, data)
    warn(class_warnings(data))
    if data.cache == "disk":
        for dataset in (train_set, val_set):
            dataset.keep_decoded(Path(data.cache_folder) if data.cache_folder else None)
    return train_set, val_set


def open_train_set(config: Config) -> SegmentationDataset:
    """The train split, augmented as `config` says. Raises UserError (data) for a fault of its."""
    dataset = open_split(config.data, config.data.train_split, transform=TrainTransform(config.augment), seed=config.seed)
    require_useful_labels(dataset, config.data)
    return dataset
