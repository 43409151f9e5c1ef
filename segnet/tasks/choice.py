"""The task that a configuration describes: the one place that knows all tasks."""

from __future__ import annotations

from typing import Any

from segnet.config.sections import Config
from segnet.tasks.denoising import Denoising
from segnet.tasks.segmentation import Segmentation
from segnet.tasks.task import Task


def build_task(config: Config) -> Task[Any]:
    """The task of `config`. Another task is another case here."""
    match config.task:
        case "segmentation":
            return Segmentation(config.data, config.loss)
        case "denoise":
            return Denoising(config)
