"""Semantic segmentation: a class for each pixel, chosen by the highest mean probability."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segnet.classes import IGNORE_INDEX
from segnet.config.sections import DataConfig, InferenceConfig, LossConfig
from segnet.data.dataset import Sample, SegmentationDataset, SplitDataset, open_split, require_useful_labels
from segnet.data.statistics import class_statistics
from segnet.losses import CrossEntropy, WithLovasz, enet_weights, median_frequency_weights
from segnet.regions.cleanup import clean_up
from segnet.tasks.segmentation_score import ConfusionCounts, EvaluationCounts, Maps
from segnet.tasks.task import Best, Counts, Criterion, Measure, Spread, Task
from segnet.visualization import comparison_row, contact_sheet, draw_confusion, preview, uncertainty_map


class ClassProbabilities:
    """From logits to masks: softmax, its mean, and the class with the highest mean; then `clean_up`."""

    def __init__(self, config: InferenceConfig | None = None) -> None:
        self.config = config or InferenceConfig()

    def under(self, config: InferenceConfig) -> ClassProbabilities:
        """With the temperature and the clean-up of `config`."""
        return ClassProbabilities(config)

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """(B, K, H, W) logits -> probabilities."""
        return outputs.softmax(dim=1)

    def to_outputs(self, values: Tensor) -> Tensor:
        """(B, K, H, W) probabilities -> logits: their logarithms, -87 for 0."""
        return values.clamp(min=torch.finfo(torch.float32).tiny).log()

    def statistic(self, values: Tensor) -> Tensor:
        """The entropy of the probabilities, nats. Its mean over samples gives the mutual information of class and dropout."""
        return torch.special.entr(values).sum(dim=1, keepdim=True)

    def finish(self, mean: Tensor, spread: Spread | None, *, keep_mean: bool) -> Maps:
        """The maps of mean probabilities (B, K, H, W), with the probabilities themselves if `keep_mean`."""
        ids = mean.argmax(dim=1)
        whole_entropy = torch.special.entr(mean).sum(dim=1)
        mean = at_temperature(mean, self.config.temperature)
        entropy = torch.special.entr(mean).sum(dim=1)
        return Maps(
            mask=ids.to(torch.uint8),
            confidence=mean.amax(dim=1),
            entropy=entropy,
            uncertainty=(entropy / math.log(max(2, mean.shape[1]))).clamp(0, 1),
            variance=None if spread is None else spread.variance[:, 0],
            mutual_information=None if spread is None else (whole_entropy - spread.statistic[:, 0]).clamp(min=0),
            probabilities=mean if keep_mean else None,
        )

    def agree(self, outputs: Tensor, others: Tensor) -> Tensor:
        """(B, H, W) bool: where both have the same class."""
        return outputs.argmax(dim=1) == others.argmax(dim=1)

    def complete(self, answer: Maps) -> Maps:
        """The maps of whole images, their masks cleaned up. The other maps stay those of the network's own choice."""
        rule = {"min_region": self.config.min_region, "fill_holes": self.config.fill_holes}
        if not any(rule.values()):
            return answer
        return answer._replace(mask=torch.from_numpy(np.stack([clean_up(mask, **rule) for mask in answer.mask.numpy()])))


def at_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """(B, K, …) probabilities with their logarithms divided by `temperature`, normalised again (Guo et al. 2017, section 4.2)."""
    return probabilities if temperature == 1 else (probabilities.log() / temperature).softmax(dim=1)


def criterion_of(loss: LossConfig, weight: Tensor | None) -> Criterion:
    """The criterion that `loss` asks for, with weights of the classes (K,) or none."""
    cross_entropy = CrossEntropy(weight=weight, smoothing=loss.label_smoothing)
    return WithLovasz(cross_entropy=cross_entropy, fraction=loss.lovasz) if loss.lovasz else cross_entropy


def _iou_of(name: str) -> str:
    """The name, in files, of the IoU of a class; it has one line, whatever `name` has."""
    return f"iou_{' '.join(name.split())}"


class Segmentation(Task[Maps]):
    """The task that `data` and `loss` of a configuration describe."""

    def __init__(self, data: DataConfig, loss: LossConfig) -> None:
        self.data = data
        self.loss = loss
        self.classes = data.class_set
        self.channels = len(self.classes)
        self.answers = ClassProbabilities()
        self.best = Best("miou", title="mIoU")
        self.logged = ("miou", "global_accuracy", "mean_accuracy")
        self.logged_parts = tuple(map(_iou_of, self.classes.names))

    def open_split(self, split: str, *, training: bool = False, seed: int = 0) -> SegmentationDataset:
        """The images and masks of a split. Raises UserError (data) for its faults and for labels that teach nothing."""
        dataset = open_split(self.data, split, seed=seed)
        require_useful_labels(dataset, self.data)
        return dataset

    def build_criterion(self, dataset: SplitDataset, device: torch.device) -> Criterion:
        """The criterion that `loss` asks for, its class weights measured on the masks of `dataset`."""
        weight: Tensor | None = None
        if self.loss.class_weights != "none":
            assert isinstance(dataset, SegmentationDataset)
            counted = class_statistics(dataset)
            if self.loss.class_weights == "median_frequency":
                weight = median_frequency_weights(counted.pixels, counted.pixels_of_pictures, self.loss.weight_power)
            else:
                weight = enet_weights(counted.pixels, self.loss.weight_power)
            weight = weight.to(device)
        return criterion_of(self.loss, weight)

    def validation_counts(self, dataset: SplitDataset) -> ConfusionCounts:
        """An empty confusion matrix."""
        return ConfusionCounts(self.channels)

    def parts(self, counts: Counts[Maps]) -> list[Measure]:
        """The IoU of each class; NaN for a class without a pixel in masks and predictions."""
        assert isinstance(counts, ConfusionCounts)
        ious = counts.matrix.scores().class_iou
        rows = zip(self.logged_parts, self.classes.names, ious, strict=True)
        return [Measure(name, title, iou) for name, title, iou in rows]

    def evaluation_counts(self, dataset: SplitDataset) -> EvaluationCounts:
        """Empty counts of all measures."""
        return EvaluationCounts(dataset.ids, self.channels)

    def draw(self, sample: Sample, answer: Maps) -> list[np.ndarray]:
        """(H, W, 3) uint8 each: the image, its truth and the predicted mask in the colours of the classes."""
        return comparison_row(preview(sample.image, self.data.bands), sample.truth, answer.mask[0], self.classes)

    def draw_doubt(self, sample: Sample, answer: Maps) -> np.ndarray:
        """(H, W, 3) uint8: the uncertainty."""
        return uncertainty_map(answer.uncertainty[0])

    def draw_counts(self, counts: Counts[Maps]) -> dict[str, np.ndarray]:
        """The confusion matrix."""
        assert isinstance(counts, ConfusionCounts)
        return {"val/confusion": draw_confusion(counts.matrix.counts, self.classes.names)}

    def draw_samples(self, samples: Sequence[Sample]) -> np.ndarray:
        """(H, W, 3) uint8: the images, and their masks over them."""
        return contact_sheet([(preview(sample.image, self.data.bands), sample.truth) for sample in samples], self.classes)

    def has_learnt(self, batch: Sample, answer: Maps) -> tuple[Measure, bool]:
        """The mIoU of a batch, and whether it is at least 0.9."""
        counts = ConfusionCounts(self.channels)
        counts.add(batch, answer)
        miou = self.best.of(counts.measures())
        return miou, miou.value >= 0.9

    def batch_fault(self, batch: Sample) -> str:
        """That the masks of a batch show fewer than two classes."""
        shown = set(torch.unique(batch.truth).tolist()) - {IGNORE_INDEX}
        number = "one class" if shown else "no class"
        return f"the masks of the first batch show {number} alone ({', '.join(batch.id)})" if len(shown) < 2 else ""
