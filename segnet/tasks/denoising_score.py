"""The score of a denoising: what is counted, and the measures that follow from the counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segnet.data.dataset import Sample
from segnet.metrics.confusion import mean_of_present
from segnet.metrics.psnr import psnr, squared_error, to_8_bits
from segnet.metrics.ssim import ssim
from segnet.system.distributed import sum_over_ranks
from segnet.tasks.denoising_data import ScoredPictures
from segnet.tasks.task import Measure


class Restored(NamedTuple):
    """The answer for B images, on the CPU, at their own size."""

    image: Tensor  # (B, C, H, W) float32: the images without their noise, neither clipped nor rounded
    deviation: Tensor | None  # (B, H, W) float32, levels of 255: standard deviation between dropout samples; None without them


class RestoredScore(NamedTuple):
    """The measures of one picture, each of its restored version and of the noisy one."""

    id: str
    level: float  # strength of the noise; 0: recorded
    psnr: float  # dB
    ssim: float  # NaN for a picture smaller than the window
    noisy_psnr: float
    noisy_ssim: float


class RestoredEvaluation(NamedTuple):
    """The score of a network on a split, and of every picture."""

    kind: str  # of noise
    pictures: tuple[RestoredScore, ...]  # in the order of the split

    def levels(self) -> list[float]:
        """The strengths of noise, each once."""
        return list(dict.fromkeys(picture.level for picture in self.pictures))

    def of_level(self, level: float) -> RestoredEvaluation:
        """The pictures with noise of one strength."""
        return self._replace(pictures=tuple(picture for picture in self.pictures if picture.level == level))

    def measures(self) -> list[Measure]:
        """The means over the pictures."""
        return [
            Measure(name, title, mean_of(self.pictures, name), is_share=False, digits=digits) for name, title, digits in MEASURES
        ]

    def warnings(self) -> list[str]:
        """A warning where the pictures were better before."""
        restored, noisy = (mean_of(self.pictures, name) for name in ("psnr", "noisy_psnr"))
        if not noisy >= restored:
            return []
        recorded = any(not picture.level for picture in self.pictures)
        remedy = "see whether clean and noisy pictures are swapped, or train longer" if recorded else "train longer"
        found = f"the noisy pictures ({noisy:.2f} dB) are nearer to the clean ones than the restored ones ({restored:.2f} dB)"
        return [f"{found} – {remedy}"]


MEASURES = (
    ("psnr", "PSNR", 2),
    ("ssim", "SSIM", 4),
    ("noisy_psnr", "noisy PSNR", 2),
    ("noisy_ssim", "noisy SSIM", 4),
)


def mean_of(pictures: Sequence[RestoredScore], name: str) -> float:
    """The mean of a measure over the pictures that have it; NaN where none has."""
    return mean_of_present([getattr(picture, name) for picture in pictures])


class RestorationCounts:
    """PSNR and SSIM of each picture of a split. The rows of pictures that other ranks count are zero, so the ranks add up."""

    def __init__(self, dataset: ScoredPictures) -> None:
        self.dataset = dataset
        self.row_of = {name: row for row, name in enumerate(dataset.ids)}
        self.rows = torch.zeros(len(dataset.ids), len(MEASURES), dtype=torch.float64)

    def add(self, batch: Sample, answer: Restored) -> None:
        """Measure a batch and its answer, picture by picture, both clipped and rounded to 8 bits."""
        for name, noisy, truth, image in zip(batch.id, batch.image, batch.truth, answer.image, strict=True):
            restored, seen = to_8_bits(image), to_8_bits(noisy)
            # The noisy picture is measured as the network gets it: neither clipped nor rounded.
            difference = (noisy.double() - truth.double()).square().sum()
            values = (
                psnr(squared_error(restored, truth), truth.numel()),
                ssim(restored, truth),
                psnr(float(difference), truth.numel()),
                ssim(seen, truth),
            )
            self.rows[self.row_of[name]] = torch.tensor(values, dtype=torch.float64)

    def sum_over_ranks(self) -> None:
        """Replace the counts of this rank by the sum over all ranks."""
        self.rows = sum_over_ranks(self.rows)

    def evaluation(self) -> RestoredEvaluation:
        """The score of the split and of each picture."""
        pictures = [
            RestoredScore(name, self.dataset.level_of(row), *values)
            for row, (name, values) in enumerate(zip(self.dataset.ids, self.rows.tolist(), strict=True))
        ]
        return RestoredEvaluation(self.dataset.noise.kind, tuple(pictures))

    def measures(self) -> list[Measure]:
        """The measures of the split."""
        return self.evaluation().measures()
