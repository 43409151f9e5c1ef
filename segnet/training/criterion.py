"""The loss that a configuration asks for."""

from __future__ import annotations

import torch
from torch import Tensor

from segnet.config.sections import LossConfig
from segnet.data.dataset import SegmentationDataset
from segnet.data.statistics import class_statistics
from segnet.losses import Criterion, enet_weights, median_frequency_weights


def build_criterion(loss: LossConfig, dataset: SegmentationDataset, device: torch.device) -> Criterion:
    """The loss that `loss` asks for, its class weights measured on the masks of `dataset`."""
    weight: Tensor | None = None
    if loss.class_weights != "none":
        counted = class_statistics(dataset)
        if loss.class_weights == "median_frequency":
            weight = median_frequency_weights(counted.pixels, counted.pixels_of_pictures, loss.weight_power).to(device)
        else:
            weight = enet_weights(counted.pixels, loss.weight_power).to(device)
    return Criterion(weight=weight, smoothing=loss.label_smoothing)
