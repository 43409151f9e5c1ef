"""Suspect labels: regions of a split where a confident network and the label disagree."""

from __future__ import annotations

import base64
import heapq
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segnet.classes import IGNORE_INDEX
from segnet.data.dataset import Sample
from segnet.inference.answers import Watch
from segnet.regions.labelling import find_regions
from segnet.system.distributed import gather_texts, sum_over_ranks
from segnet.system.files import csv_text, write_text
from segnet.tasks.segmentation import at_temperature
from segnet.tasks.segmentation_score import Maps
from segnet.tasks.task import Counts, Measure

FILE = "suspects.csv"
LEAST_PIXELS = 64  # of a region; smaller ones are mostly outlines that are drawn a little differently
MOST_REGIONS = 10_000  # in the list; of more, those with the highest rank
_CROPS_A_FIGURE = 4  # crops in memory for each that a report shows: the average confidence of a class is known at the end alone
_MARGIN = 16  # pixels around a region in its crop, or a quarter of its longer side
_LONGEST = 256  # pixels, side of a crop in memory; of a larger one every second, third, … pixel is kept
_ONE = 1 << 20  # the integer for a probability of 1


class Suspect(NamedTuple):
    """A connected region of pixels with one label, for which the network predicts one other class."""

    rank: float  # 1 - the probability of the label, the mean over the region: the higher, the more suspect
    picture: str  # id
    left: int
    top: int
    width: int
    height: int
    pixels: int
    label: int  # class id
    predicted: int  # class id
    probability: float  # of the predicted class, the mean over the region


class Crop(NamedTuple):
    """A part of a predicted mask around a suspect region."""

    left: int
    top: int
    every: int  # n: every n-th row and column of the picture
    mask: NDArray[np.uint8]  # (h, w) predicted class ids

    @property
    def window(self) -> tuple[slice, slice]:
        """The same rows and columns of the whole picture."""
        height, width = (side * self.every for side in self.mask.shape)
        return slice(self.top, self.top + height, self.every), slice(self.left, self.left + width, self.every)


class SuspectCounts(Counts[Maps]):
    """`counts`, and the regions in which the network is more confident of another class than it usually is of that class.

    A region is suspect where the mean probability of its predicted class reaches the average confidence of the class: the mean of
    its probability over the pixels of the split that are labelled so. This is the threshold of confident learning (Northcutt,
    Jiang & Chuang 2021, equation 2), applied to regions in place of single examples. A class that no pixel is labelled with has
    no average, and nothing is suspected to belong to it. The rank is the self-confidence of the same paper: a region comes first
    where its label has the lowest mean probability. Where inference cleans masks up, probabilities are those of the
    network's own choice. A network that was trained on the same labels has learnt some of their mistakes, which are not found.

    Memory holds at most `MOST_REGIONS` regions and the crops of 4 × `shown`, whatever the size of the split.
    """

    def __init__(self, counts: Counts[Maps], num_classes: int, *, temperature: float, shown: int) -> None:
        self.counts = counts
        self.num_classes = num_classes
        self.temperature = temperature
        self.crops_kept = _CROPS_A_FIGURE * shown
        self.labelled = torch.zeros(num_classes, 2, dtype=torch.int64)  # the probability of the label, summed, and its pixels
        self.found: list[Suspect] = []  # heaps: the lowest rank comes first
        self.with_crop: list[tuple[Suspect, str]] = []
        self._of_batch = torch.zeros_like(self.labelled)
        self._of_label = torch.empty(0)  # (B, H, W) float32: the probability of each pixel's label in the batch

    def watch(self, batch: Sample) -> Watch:
        """What `predict` calls with the probabilities of each region of `batch`."""

        def add(rows: slice, columns: slice, values: Tensor) -> None:
            if not rows.start and not columns.start:  # the first region; of a second attempt, too
                self._of_batch.zero_()
                self._of_label = torch.zeros(batch.truth.shape)
            truth = batch.truth[..., rows, columns].long()
            scored = truth != IGNORE_INDEX
            ids = truth.where(scored, 0)
            probabilities = at_temperature(values, self.temperature).gather(1, ids[:, None].to(values.device))[:, 0].cpu()
            self._of_label[..., rows, columns] = probabilities
            sums = torch.bincount(ids[scored], probabilities[scored].double(), minlength=self.num_classes)
            pixels = torch.bincount(ids[scored], minlength=self.num_classes)
            self._of_batch += torch.stack([(sums * _ONE).round().long(), pixels], dim=1)

        return add

    def add(self, batch: Sample, answer: Maps) -> None:
        """Count a batch and its maps, and keep the suspect regions of its pictures."""
        self.counts.add(batch, answer)
        self.labelled += self._of_batch
        averages = self.averages()
        pictures = zip(batch.id, batch.truth, answer.mask, answer.confidence, self._of_label, strict=True)
        for name, *tensors in pictures:
            truth, mask, confidence, of_label = (tensor.numpy() for tensor in tensors)
            for suspect in regions_of_disagreement(name, truth, mask, confidence, of_label):
                _keep(self.found, suspect, MOST_REGIONS)
                usual = averages[suspect.predicted]
                wanted = len(self.with_crop) < self.crops_kept or (self.crops_kept and suspect > self.with_crop[0][0])
                if wanted and suspect.probability >= usual:
                    _keep(self.with_crop, (suspect, _packed(_cut(suspect, mask))), self.crops_kept)

    def averages(self) -> list[float]:
        """The average confidence of each class up to now; NaN for a class without a labelled pixel."""
        sums, pixels = self.labelled.double().unbind(1)
        return (sums / _ONE / pixels).tolist()

    def sum_over_ranks(self) -> None:
        """Replace counts and regions of this rank by those of all ranks."""
        self.counts.sum_over_ranks()
        self.labelled = sum_over_ranks(self.labelled)
        texts = gather_texts(json.dumps([self.found, self.with_crop]))
        self.found, self.with_crop = [], []
        for found, with_crop in map(json.loads, texts):
            for suspect in found:
                _keep(self.found, Suspect(*suspect), MOST_REGIONS)
            for suspect, crop in with_crop:
                _keep(self.with_crop, (Suspect(*suspect), crop), self.crops_kept)

    def measures(self) -> list[Measure]:
        """Those of `counts`."""
        return self.counts.measures()

    def suspects(self) -> list[Suspect]:
        """The suspect regions, the highest rank first."""
        averages = self.averages()
        return [one for one in sorted(self.found, reverse=True) if one.probability >= averages[one.predicted]]

    def summary(self) -> str:
        """The number of suspect regions, of their pictures and of their pixels, in words."""
        suspects = self.suspects()
        pictures, pixels = len({one.picture for one in suspects}), sum(one.pixels for one in suspects)
        full = f"; of the first {MOST_REGIONS:,}" if len(self.found) == MOST_REGIONS else ""
        return f"suspect labels: {len(suspects):,} regions in {pictures:,} pictures, {pixels:,} pixels{full}"

    def crops(self, count: int) -> list[tuple[Suspect, Crop]]:
        """The first `count` suspect regions with their crops, the highest rank first."""
        averages = self.averages()
        kept = [pair for pair in sorted(self.with_crop, reverse=True) if pair[0].probability >= averages[pair[0].predicted]]
        return [(suspect, _unpacked(crop)) for suspect, crop in kept[:count]]


def regions_of_disagreement(
    name: str,
    truth: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    confidence: NDArray[np.float32],
    of_label: NDArray[np.float32],
) -> Iterator[Suspect]:
    """The connected regions of a picture, (H, W) each, where label and prediction differ, of at least `LEAST_PIXELS` pixels.

    The pixels of a region have one label and one predicted class. Pixels without a label belong to none. `confidence` are the
    probabilities of the predicted classes, `of_label` those of the labels.
    """
    differ = (truth != mask) & (truth != IGNORE_INDEX)
    if np.count_nonzero(differ) < LEAST_PIXELS:
        return
    pairs = np.where(differ, truth.astype(np.int32) * 256 + mask, -1)
    regions = find_regions(pairs)
    large = np.flatnonzero((regions.sizes >= LEAST_PIXELS) & (regions.classes >= 0))
    number = np.full(len(regions.sizes), -1, dtype=np.int32)
    number[large] = np.arange(len(large))
    places = np.flatnonzero(number[regions.labels.ravel()] >= 0)
    of_place = number[regions.labels.ravel()[places]]
    predicted, labelled = (
        np.bincount(of_place, values.ravel()[places].astype(np.float64), len(large)) / regions.sizes[large]
        for values in (confidence, of_label)
    )
    order = np.argsort(of_place, kind="stable")
    starts = np.searchsorted(of_place[order], np.arange(len(large)))
    rows, columns = np.divmod(places[order], mask.shape[1])
    edges = [edge.reduceat(side, starts) for side in (columns, rows) for edge in (np.minimum, np.maximum)] if len(large) else []
    for region, left, right, top, bottom in zip(range(len(large)), *edges, strict=True) if len(large) else ():
        pixels, pair = int(regions.sizes[large[region]]), int(regions.classes[large[region]])
        box = (int(left), int(top), int(right - left) + 1, int(bottom - top) + 1)
        yield Suspect(1 - float(labelled[region]), name, *box, pixels, pair // 256, pair % 256, float(predicted[region]))


def save_suspects(folder: Path, counts: SuspectCounts, names: Sequence[str]) -> Path:
    """Write suspects.csv: a row for each region, the highest rank first; boxes in pixels from the upper left corner. Its path."""
    columns = ["picture", "left", "top", "width", "height", "pixels", "label", "predicted"]
    columns += ["mean_probability", "class_average", "label_probability"]
    rows, averages = list[list[object]](), counts.averages()
    for one in counts.suspects():
        box = (one.left, one.top, one.width, one.height)
        shares = [f"{share:.4f}" for share in (one.probability, averages[one.predicted], 1 - one.rank)]
        rows.append([one.picture, *box, one.pixels, names[one.label], names[one.predicted], *shares])
    write_text(folder / FILE, csv_text([columns, *rows]))
    return folder / FILE


def _keep(heap: list, item: tuple, most: int) -> None:  # type: ignore[type-arg]
    """Put `item` into a heap, which keeps its `most` largest items."""
    if len(heap) < most:
        heapq.heappush(heap, item)
    elif most:
        heapq.heappushpop(heap, item)


def _cut(suspect: Suspect, mask: NDArray[np.uint8]) -> Crop:
    """The part of a predicted mask (H, W) around a suspect region."""
    margin = max(_MARGIN, max(suspect.width, suspect.height) // 4)
    top, left = max(0, suspect.top - margin), max(0, suspect.left - margin)
    bottom, right = suspect.top + suspect.height + margin, suspect.left + suspect.width + margin
    part = mask[top:bottom, left:right]
    every = -(-max(part.shape) // _LONGEST)
    return Crop(left, top, every, part[: part.shape[0] // every * every : every, : part.shape[1] // every * every : every])


def _packed(crop: Crop) -> str:
    content = base64.b85encode(zlib.compress(np.ascontiguousarray(crop.mask).tobytes(), 1)).decode()
    return json.dumps([crop.left, crop.top, crop.every, *crop.mask.shape, content])


def _unpacked(text: str) -> Crop:
    left, top, every, height, width, content = json.loads(text)
    mask = np.frombuffer(zlib.decompress(base64.b85decode(content)), np.uint8).reshape(height, width)
    return Crop(left, top, every, mask)
