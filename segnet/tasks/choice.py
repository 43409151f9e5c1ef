"""The task that a configuration describes: the one place that knows all tasks."""

from __future__ import annotations

from segnet.config.sections import Config
from segnet.tasks.segmentation import Segmentation


def build_task(config: Config) -> Segmentation:
    """The task of `config`. Another task is another case here."""
    return Segmentation(config.data, config.loss)
