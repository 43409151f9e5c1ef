"""The temperature at which the confidence of a network is right, fitted on a split, and the file that keeps it beside the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from segnet.classes import IGNORE_INDEX
from segnet.config.sections import InferenceConfig
from segnet.data.dataset import Sample
from segnet.metrics.calibration import BINS, count_reliability, reliability
from segnet.system.distributed import sum_over_ranks
from segnet.system.errors import data_error
from segnet.system.files import write_text
from segnet.tasks.segmentation_score import Maps
from segnet.tasks.task import Counts, Measure

FILE = "temperature.json"
TEMPERATURES = tuple(2 ** (step / 16) for step in range(-32, 49))  # 1/4 to 8
_PIXELS = 20_000  # of a picture, about, that are counted
_ONE = 1 << 20  # the integer for a loss of 1 nat


class TemperatureFit(NamedTuple):
    """The temperature with the least cross-entropy on a split, and what it changes."""

    temperature: float
    error_before: float  # expected calibration error, 0..1, at temperature 1
    error_after: float
    pixels: int


class TemperatureCounts(Counts[Maps]):
    """Cross-entropy and reliability at every temperature, in integers. Answers need probabilities, at temperature 1."""

    def __init__(self) -> None:
        self.losses = torch.zeros(len(TEMPERATURES), dtype=torch.int64)
        self.bins = torch.zeros(len(TEMPERATURES), BINS, 3, dtype=torch.int64)

    def add(self, batch: Sample, answer: Maps) -> None:
        """Count the scored pixels of a batch; of a large picture every n-th one, n times."""
        assert answer.probabilities is not None
        for truth, probabilities in zip(batch.truth, answer.probabilities, strict=True):
            scored = truth.flatten() != IGNORE_INDEX
            every = max(1, int(scored.sum()) // _PIXELS)
            chosen = scored.nonzero().flatten()[::every]
            self._add_pixels(truth.flatten()[chosen].long(), probabilities.flatten(1)[:, chosen], every)

    def _add_pixels(self, truth: Tensor, probabilities: Tensor, times: int) -> None:
        """(N,) true ids and (K, N) probabilities."""
        logs = probabilities.double().clamp_min(1e-30).log()
        correct = logs.argmax(dim=0) == truth
        for index, temperature in enumerate(TEMPERATURES):
            scaled = (logs / temperature).log_softmax(dim=0)
            loss = -scaled.gather(0, truth[None]).sum()
            self.losses[index] += times * int((loss * _ONE).round())
            self.bins[index] += times * count_reliability(scaled.amax(dim=0).exp().float(), correct)

    def sum_over_ranks(self) -> None:
        """Replace the counts of this rank by the sum over all ranks."""
        self.losses, self.bins = sum_over_ranks(self.losses), sum_over_ranks(self.bins)

    def measures(self) -> list[Measure]:
        """The temperature alone."""
        return [Measure("temperature", "temperature", self.fit().temperature, is_share=False)]

    def fit(self) -> TemperatureFit:
        """The temperature with the least cross-entropy."""
        best = int(self.losses.argmin())
        before = reliability(self.bins[TEMPERATURES.index(1.0)])
        return TemperatureFit(TEMPERATURES[best], before.error, reliability(self.bins[best]).error, sum(before.pixels))


def save_temperature(folder: Path, fit: TemperatureFit, inference: InferenceConfig, digest: str) -> Path:
    """Write temperature.json into the folder of an evaluation; its path. `digest` is that of the network's weights."""
    content = {**fit._asdict(), "views": _views(inference), "weights": digest}
    write_text(folder / FILE, json.dumps(content, indent=1) + "\n")
    return folder / FILE


def read_temperature(folder: Path, inference: InferenceConfig, digest: str) -> float:
    """The temperature in the folder of an evaluation.

    Raises UserError (data) where there is none, or one of other weights or of other views of a picture.
    """
    path, remedy = folder / FILE, "run segnet evaluate RUN --calibrate, with the same inference.* settings"
    if not path.is_file():
        raise data_error(path, "no temperature is fitted, so that a confidence is not a probability", remedy)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        temperature, views, weights = float(content["temperature"]), content["views"], content["weights"]
    except (ValueError, KeyError, TypeError):
        raise data_error(path, "not a temperature that segnet evaluate wrote", remedy) from None
    if weights != digest:
        raise data_error(path, "fitted for other weights than these", remedy)
    if views != _views(inference):
        raise data_error(path, f"fitted for {views}, not for {_views(inference)}", remedy)
    return temperature


def _views(inference: InferenceConfig) -> dict[str, object]:
    """The settings on which the mean probabilities depend."""
    return {"scales": list(inference.scales), "flip": inference.flip, "dropout_samples": inference.dropout_samples}
