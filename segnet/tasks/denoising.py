"""Denoising: a picture without its noise, which the network estimates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segnet.config.sections import Config, InferenceConfig
from segnet.data.dataset import Sample, SplitDataset, require_unseen
from segnet.losses import ImageError
from segnet.metrics.psnr import psnr, to_8_bits
from segnet.tasks.denoising_data import CleanPictures, NoisyPatches, ScoredPictures
from segnet.tasks.denoising_score import RestorationCounts, Restored
from segnet.tasks.task import Best, Counts, Measure, Spread, Task
from segnet.visualization import draw_difference, grid, preview, to_array


class RestoredImages:
    """From the images that a network gives to their mean."""

    def under(self, config: InferenceConfig) -> RestoredImages:
        """Itself: no setting concerns the answer alone."""
        return self

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """(B, C, H, W): the outputs themselves."""
        return outputs

    def to_outputs(self, values: Tensor) -> Tensor:
        """(B, C, H, W): the values themselves."""
        return values

    def statistic(self, values: Tensor) -> Tensor:
        """(B, 1, H, W) zeros: the deviation follows from the variance."""
        return torch.zeros_like(values[:, :1])

    def finish(self, mean: Tensor, spread: Spread | None, *, keep_mean: bool) -> Restored:
        """The mean image, and the deviation between dropout samples."""
        return Restored(mean, None if spread is None else spread.variance[:, 0].sqrt())

    def complete(self, answer: Restored) -> Restored:
        """The answer as it is."""
        return answer

    def agree(self, outputs: Tensor, others: Tensor) -> Tensor:
        """(B, H, W) bool: where both are equal up to two levels of 255."""
        return ((outputs - others).abs() <= 2).all(dim=1)


class Denoising(Task[Restored]):
    """The task that `data`, `noise` and `loss` of a configuration describe."""

    def __init__(self, config: Config) -> None:
        self.data = config.data
        self.noise = config.noise
        self.loss = config.loss
        self.channels = config.data.channels
        self.answers = RestoredImages()
        self.best = Best("psnr", title="PSNR", is_share=False)
        self.logged = ("psnr", "ssim")
        self.logged_parts = ()

    def open_split(self, split: str, *, training: bool = False, seed: int = 0) -> CleanPictures:
        """The noisy pictures of a split: to be scored or to be trained on. Raises UserError (data)."""
        root = Path(self.data.root)
        if training:
            return NoisyPatches(root, split, self.noise, self.data.bands, seed=seed)
        dataset = ScoredPictures(root, split, self.noise, self.data.bands)
        require_unseen(self.data, split, dataset.names)
        return dataset

    def build_criterion(self, dataset: SplitDataset, device: torch.device) -> ImageError:
        """The squared or the absolute error, as `loss` asks for it."""
        return ImageError(kind="l1" if self.loss.kind == "l1" else "mse")

    def validation_counts(self, dataset: SplitDataset) -> RestorationCounts:
        """Counts of no picture yet."""
        assert isinstance(dataset, ScoredPictures)
        return RestorationCounts(dataset)

    def parts(self, counts: Counts[Restored]) -> list[Measure]:
        """None."""
        return []

    def evaluation_counts(self, dataset: SplitDataset) -> RestorationCounts:
        """Counts of no picture yet."""
        return self.validation_counts(dataset)

    def draw(self, sample: Sample, answer: Restored) -> list[np.ndarray]:
        """(H, W, 3) uint8 each: the noisy image, the clean one and the restored one."""
        return [to_array(preview(to_8_bits(image))) for image in (sample.image, sample.truth, answer.image[0])]

    def draw_doubt(self, sample: Sample, answer: Restored) -> np.ndarray:
        """(H, W, 3) uint8: what the restored image differs in from the clean one, on grey."""
        return to_array(preview(draw_difference(answer.image[0], sample.truth)))

    def draw_counts(self, counts: Counts[Restored]) -> dict[str, np.ndarray]:
        """None."""
        return {}

    def draw_samples(self, samples: Sequence[Sample]) -> np.ndarray:
        """(H, W, 3) uint8: the noisy images in a row, and below each what training compares with."""
        rows = [[sample.image for sample in samples], [sample.truth.float().nan_to_num(0) for sample in samples]]
        return grid([[to_array(preview(to_8_bits(image))) for image in row] for row in rows])

    def has_learnt(self, batch: Sample, answer: Restored) -> tuple[Measure, bool]:
        """The PSNR of a batch, and whether its mean squared error is at most half of that of the noisy images."""
        scored = ~batch.truth.isnan()
        errors = [float((image - batch.truth)[scored].square().sum()) for image in (answer.image, batch.image)]
        value = psnr(errors[0], int(scored.sum()))
        return Measure("psnr", "PSNR", value, is_share=False), errors[0] <= errors[1] / 2

    def batch_fault(self, batch: Sample) -> str:
        """None: any batch can be learnt."""
        return ""
