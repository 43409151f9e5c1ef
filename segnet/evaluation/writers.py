"""What an evaluation becomes for people and for other programs, for each task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from tqdm import tqdm

from segnet.classes import merge_text
from segnet.config.sections import Config, InferenceConfig
from segnet.data.dataset import SegmentationDataset, SplitDataset
from segnet.evaluation.gallery import MOST_CLASSES, predicted, worst_and_best, worst_of_classes
from segnet.evaluation.report import write_report
from segnet.evaluation.restoration_report import restored_pictures, worst_and_best_restored, write_restoration_report
from segnet.evaluation.restoration_results import restoration_table, save_restoration
from segnet.evaluation.results import evaluation_table, save_evaluation
from segnet.evaluation.shown import ShownPictures
from segnet.evaluation.suspect_gallery import SHOWN, suspect_figures, suspect_section
from segnet.evaluation.suspects import SuspectCounts
from segnet.evaluation.weak_classes import weak_class_lines
from segnet.inference.exported import Network
from segnet.tasks.denoising_data import CleanPictures
from segnet.tasks.denoising_score import RestorationCounts, RestoredEvaluation
from segnet.tasks.segmentation_score import Evaluation, EvaluationCounts
from segnet.tasks.task import Counts

Evaluated = TypeVar("Evaluated", contravariant=True)


class Scored(NamedTuple):
    """A network and the split that it was scored on, from which a report shows pictures."""

    model: Network
    dataset: SplitDataset
    inference: InferenceConfig
    seen: Counts[Any]  # what `Writer.watch` gave
    pictures: int  # in the report: the worst and the best
    curves: Path | None  # the run's metrics.csv
    suspects: SuspectCounts | None = None  # of a segmentation, where they were asked for


class Writer(Protocol[Evaluated]):
    """The table, the files and the page of an evaluation."""

    def watch(self, counts: Any, pictures: int) -> Counts[Any]:
        """`counts` that also keep what a report with so many pictures needs of the answers."""
        ...

    def table(self, evaluation: Evaluated) -> str:
        """A table for people."""
        ...

    def save(self, folder: Path, evaluation: Evaluated, *, split: str, conditions: Mapping[str, str]) -> list[Path]:
        """Write metrics.json and the files beside it into `folder`; their paths. `conditions`: what was scored, and how."""
        ...

    def report(self, path: Path, evaluation: Evaluated, scored: Scored, *, title: str, facts: Mapping[str, str]) -> None:
        """Write the page."""
        ...


class SegmentationWriter(Writer[Evaluation]):
    """Writes the evaluation of a segmentation."""

    def __init__(self, config: Config, steps: int) -> None:
        self.config = config
        self.steps = steps
        self.classes = config.data.class_set

    def watch(self, counts: EvaluationCounts, pictures: int) -> ShownPictures:
        of_classes = 0 < pictures and len(self.classes) <= MOST_CLASSES
        return ShownPictures(counts, pictures, self.config.data.bands, of_classes=of_classes)

    def table(self, evaluation: Evaluation) -> str:
        advice = weak_class_lines(evaluation.scores, self.classes, self.config, self.steps)
        return "\n".join([evaluation_table(evaluation, self.classes), *(f"not learnt: {line}" for line in advice)])

    def save(self, folder: Path, evaluation: Evaluation, *, split: str, conditions: Mapping[str, str]) -> list[Path]:
        return save_evaluation(folder, evaluation, self.classes, split=split, conditions=conditions)

    def report(self, path: Path, evaluation: Evaluation, scored: Scored, *, title: str, facts: Mapping[str, str]) -> None:
        assert isinstance(scored.dataset, SegmentationDataset)
        assert isinstance(scored.seen, ShownPictures)
        shown = worst_and_best(evaluation.pictures, scored.pictures)
        ids = {picture.id for picture in shown}
        others = worst_of_classes(evaluation.pictures, len(self.classes)) if scored.pictures else []
        shown += (extra := [picture for picture in others if picture.id not in ids])
        pictures = predicted(scored.model, scored.dataset, shown, scored.inference, scored.seen.kept)
        progress = tqdm(pictures, "report", len(shown), leave=False, disable=None)
        merged = merge_text(self.classes)
        facts = {**facts, **({"merged classes": merged} if merged else {})}
        advice = weak_class_lines(evaluation.scores, self.classes, self.config, self.steps)
        suspects = ""
        if scored.suspects:
            figures = suspect_figures(scored.suspects.crops(min(SHOWN, scored.pictures)), scored.dataset)
            suspects = suspect_section(len(scored.suspects.suspects()), figures)
        page: dict[str, Any] = {"title": title, "facts": facts, "curves": scored.curves, "advice": advice, "suspects": suspects}
        page["of_classes"] = {picture.id for picture in extra}
        write_report(path, evaluation, progress, self.classes, **page)


class RestorationWriter(Writer[RestoredEvaluation]):
    """Writes the evaluation of a denoising."""

    def watch(self, counts: RestorationCounts, pictures: int) -> RestorationCounts:
        return counts

    def table(self, evaluation: RestoredEvaluation) -> str:
        return restoration_table(evaluation)

    def save(self, folder: Path, evaluation: RestoredEvaluation, *, split: str, conditions: Mapping[str, str]) -> list[Path]:
        return save_restoration(folder, evaluation, split=split, conditions=conditions)

    def report(self, path: Path, evaluation: RestoredEvaluation, scored: Scored, *, title: str, facts: Mapping[str, str]) -> None:
        assert isinstance(scored.dataset, CleanPictures)
        chosen = worst_and_best_restored(evaluation.pictures, scored.pictures)
        worst, best = (list(restored_pictures(scored.model, scored.dataset, each, scored.inference)) for each in chosen)
        write_restoration_report(path, evaluation, worst, best, title=title, facts=facts, curves=scored.curves)


def build_writer(config: Config, steps: int) -> Writer[Any]:
    """The writer for the task of `config` and a network of so many training steps. Another task is another case here."""
    match config.task:
        case "segmentation":
            return SegmentationWriter(config, steps)
        case "denoise":
            return RestorationWriter()
