"""Semantic segmentation: a class for each pixel, chosen by the highest mean probability."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from segnet.config.sections import DataConfig, LossConfig
from segnet.data.dataset import Sample, SegmentationDataset, open_split, require_useful_labels
from segnet.data.statistics import class_statistics
from segnet.data.transforms import JointTransform, eval_transform
from segnet.losses import CrossEntropy, enet_weights, median_frequency_weights
from segnet.tasks.segmentation_score import ConfusionCounts, Maps
from segnet.tasks.task import Best, Spread, Task
from segnet.visualization import comparison_row, preview


class ClassProbabilities:
    """From logits to masks: softmax, its mean, and the class with the highest mean."""

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """(B, K, H, W) logits -> probabilities."""
        return outputs.softmax(dim=1)

    def statistic(self, values: Tensor) -> Tensor:
        """The entropy of the probabilities, nats. Its mean over samples gives the mutual information of class and dropout."""
        return torch.special.entr(values).sum(dim=1, keepdim=True)

    def finish(self, mean: Tensor, spread: Spread | None, *, keep_mean: bool) -> Maps:
        """The maps of mean probabilities (B, K, H, W), with the probabilities themselves if `keep_mean`."""
        confidence, ids = mean.max(dim=1)
        entropy = torch.special.entr(mean).sum(dim=1)
        return Maps(
            mask=ids.to(torch.uint8),
            confidence=confidence,
            entropy=entropy,
            uncertainty=(entropy / math.log(max(2, mean.shape[1]))).clamp(0, 1),
            variance=None if spread is None else spread.variance[:, 0],
            mutual_information=None if spread is None else (entropy - spread.statistic[:, 0]).clamp(min=0),
            probabilities=mean if keep_mean else None,
        )


class Segmentation(Task[Maps]):
    """The task that `data` and `loss` of a configuration describe."""

    def __init__(self, data: DataConfig, loss: LossConfig) -> None:
        self.data = data
        self.loss = loss
        self.classes = data.class_set
        self.channels = len(self.classes)
        self.answers = ClassProbabilities()
        self.best = Best("miou")
        self.logged = ("miou", "global_accuracy", "mean_accuracy")

    def open_split(self, split: str, *, transform: JointTransform | None = None, seed: int = 0) -> SegmentationDataset:
        """The images and masks of a split. Raises UserError (data) for its faults and for labels that teach nothing."""
        dataset = open_split(self.data, split, transform=transform or eval_transform, seed=seed)
        require_useful_labels(dataset, self.data)
        return dataset

    def build_criterion(self, dataset: SegmentationDataset, device: torch.device) -> CrossEntropy:
        """Cross-entropy as `loss` asks for it, its class weights measured on the masks of `dataset`."""
        weight: Tensor | None = None
        if self.loss.class_weights != "none":
            counted = class_statistics(dataset)
            if self.loss.class_weights == "median_frequency":
                weight = median_frequency_weights(counted.pixels, counted.pixels_of_pictures, self.loss.weight_power)
            else:
                weight = enet_weights(counted.pixels, self.loss.weight_power)
            weight = weight.to(device)
        return CrossEntropy(weight=weight, smoothing=self.loss.label_smoothing)

    def validation_counts(self) -> ConfusionCounts:
        """An empty confusion matrix."""
        return ConfusionCounts(self.channels)

    def draw(self, sample: Sample, answer: Maps) -> list[np.ndarray]:
        """(H, W, 3) uint8 each: the image, its truth and the predicted mask in the colours of the classes."""
        return comparison_row(preview(sample.image, self.data.bands), sample.truth, answer.mask[0], self.classes)
