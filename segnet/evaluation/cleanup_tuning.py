"""Which clean-up of masks raises the mIoU of a network on a split, by more than the choice of pictures explains."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch

from segnet.classes import ClassSet
from segnet.data.dataset import Sample
from segnet.evaluation.comparison import Difference, compare
from segnet.evaluation.results import PictureCounts
from segnet.metrics.confusion import ConfusionMatrix
from segnet.regions.cleanup import clean_up
from segnet.system.distributed import sum_over_ranks
from segnet.tasks.segmentation_score import Maps
from segnet.tasks.task import Counts, Measure

SIZES = (0, 16, 64, 256, 1024)  # pixels
SAMPLES = 2_000  # resamples of the bootstrap


class Rule(NamedTuple):
    """A clean-up."""

    min_region: int
    fill_holes: int


RULES = tuple(Rule(*sizes) for sizes in product(SIZES, SIZES))  # the first one changes nothing


class Tried(NamedTuple):
    """A rule and its mIoU beside that without clean-up."""

    rule: Rule
    miou: Difference  # a: without, b: with the rule

    @property
    def helps(self) -> bool:
        """Whether all of the interval is above 0."""
        return self.miou.low > 0


class CleanupCounts(Counts[Maps]):
    """The pixels of every picture under every rule. Answers are without clean-up."""

    def __init__(self, ids: Sequence[str], classes: ClassSet, split: str) -> None:
        self.ids = ids
        self.classes = classes
        self.split = split
        self.row_of = {name: row for row, name in enumerate(ids)}
        self.pixels = torch.zeros(len(RULES), len(ids), len(classes), 3, dtype=torch.int64)  # correct, in truth, in prediction

    def add(self, batch: Sample, answer: Maps) -> None:
        """Clean the masks of a batch up by every rule, and count them."""
        for name, truth, mask in zip(batch.id, batch.truth, answer.mask, strict=True):
            for number, rule in enumerate(RULES):
                cleaned = torch.from_numpy(clean_up(mask.numpy(), **rule._asdict()))
                matrix = ConfusionMatrix(len(self.classes)).update(truth, cleaned)
                self.pixels[number, self.row_of[name]] = matrix.class_pixels()

    def sum_over_ranks(self) -> None:
        """Replace the counts of this rank by the sum over all ranks."""
        self.pixels = sum_over_ranks(self.pixels)

    def measures(self) -> list[Measure]:
        """The mIoU under the best rule."""
        return [Measure("miou", "mIoU", self.tried()[0].miou.b)]

    def tried(self) -> list[Tried]:
        """Every rule but the first, the best first; of equally good ones the smaller."""
        plain, *others = [
            PictureCounts(self.split, self.classes.names, tuple(self.ids), each.double().numpy()) for each in self.pixels
        ]
        found = [Tried(rule, compare(plain, other, SAMPLES).miou) for rule, other in zip(RULES[1:], others, strict=True)]
        return sorted(found, key=lambda one: (-one.miou.b if not math.isnan(one.miou.b) else math.inf, one.rule))


def cleanup_advice(tried: Sequence[Tried]) -> str:
    """The five best rules as a table, and which settings to use, for people."""
    plain = tried[0].miou.a
    lines = [f"without clean-up: mIoU {100 * plain:.2f}", "min_region  fill_holes   mIoU   difference   95 % interval"]
    for rule, miou in tried[:5]:
        interval = f"[{100 * miou.low:+.3f}, {100 * miou.high:+.3f}]"
        lines.append(
            f"{rule.min_region:>10}  {rule.fill_holes:>10}  {100 * miou.b:5.2f}  {100 * miou.difference:+10.3f}   {interval}"
        )
    best = tried[0]
    if not best.helps:
        return "\n".join([*lines, "no clean-up helps by more than the choice of the pictures explains: leave it off"])
    settings = f"inference.min_region={best.rule.min_region} inference.fill_holes={best.rule.fill_holes}"
    return "\n".join([*lines, f"helps: {settings}", f"It is the best of {len(tried)} on these pictures: confirm it on others."])


def tuning_json(tried: Sequence[Tried]) -> str:
    """Every rule, and the one that is kept; null where none helps."""
    rules = [{**rule._asdict(), **miou.document()} for rule, miou in tried]
    kept = tried[0].rule._asdict() if tried[0].helps else None
    return json.dumps({"kept": kept, "samples": SAMPLES, "rules": rules}, indent=1, allow_nan=False) + "\n"
