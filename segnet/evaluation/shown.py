"""The pictures that a report may show, kept while a split is scored, so that none is predicted twice."""

from __future__ import annotations

import math
from bisect import insort
from typing import NamedTuple

from segnet.config.sections import RGB, Bands
from segnet.data.dataset import Sample
from segnet.evaluation.gallery import ReportPicture, reduced
from segnet.tasks.segmentation_score import EvaluationCounts, Maps, PictureScore
from segnet.tasks.task import Counts, Measure
from segnet.visualization import preview


class _Ranked(NamedTuple):
    """A picture by its rank from the worst; equal ones in the order of the split."""

    miou: float
    row: int
    id: str


class ShownPictures(Counts[Maps]):
    """`counts`, and the pictures among which `worst_and_best` chooses `count`, in the size in which a report shows them.

    At most 2.5 × `count` pictures are in memory, whatever the size of the split, and with `of_classes` one for each class
    besides: those of `worst_of_classes`. Under torchrun a rank keeps its own ones.
    """

    def __init__(self, counts: EvaluationCounts, count: int, bands: Bands = RGB, *, of_classes: bool = False) -> None:
        self.counts = counts
        self.count = count
        self.bands = bands
        self.kept = dict[str, ReportPicture]()  # by id
        self._of_class: list[PictureScore | None] = [None] * (counts.num_classes if of_classes else 0)
        self._worst, self._best, self._unscored = list[_Ranked](), list[_Ranked](), list[_Ranked]()

    def add(self, batch: Sample, answer: Maps) -> None:
        """Count a batch and its maps, and keep its pictures where they are among the worst or the best up to now."""
        self.counts.add(batch, answer)
        for index, name in enumerate(batch.id):
            score = self.counts.picture(name)
            self._rank(score)
            wanted = self._wanted()
            if name in wanted:
                maps = answer.mask[index], answer.uncertainty[index]
                self.kept[name] = reduced(
                    ReportPicture(score, preview(batch.image[index], self.bands), batch.truth[index], *maps)
                )
            for other in self.kept.keys() - wanted:
                del self.kept[other]

    def _rank(self, score: PictureScore) -> None:
        """Give a picture its place among the worst and the best up to now."""
        ranked = _Ranked(score.miou, self.counts.row_of[score.id], score.id)
        if math.isnan(score.miou):
            self._unscored = [*self._unscored, ranked][: self.count]
        else:
            insort(self._worst, ranked)
            insort(self._best, ranked)
            del self._worst[self.count :], self._best[: max(0, len(self._best) - self.count // 2)]
        for number, before in enumerate(self._of_class):
            if score.wrong(number) > (before.wrong(number) if before else 0):
                self._of_class[number] = score

    def _wanted(self) -> set[str]:
        """The ids of the pictures that may be shown."""
        ranked = {one.id for one in (*self._worst, *self._best, *self._unscored)}
        return ranked | {score.id for score in self._of_class if score}

    def sum_over_ranks(self) -> None:
        """Replace the counts of this rank by the sum over all ranks. The pictures stay where they are."""
        self.counts.sum_over_ranks()

    def measures(self) -> list[Measure]:
        """All measures of the split."""
        return self.counts.measures()
