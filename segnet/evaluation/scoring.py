"""Score a network on a split."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from torch.utils.data import DataLoader
from tqdm import tqdm

from segnet.config.sections import InferenceConfig
from segnet.data.dataset import Sample
from segnet.data.loader import split_of
from segnet.data.workers import explain_lost_worker
from segnet.inference.answers import predict, prepare_to_predict
from segnet.inference.exported import Network
from segnet.metrics.confusion import Scores
from segnet.system.devices import explain_full_memory
from segnet.system.distributed import agreed, is_main, max_over_ranks
from segnet.tasks.segmentation import ClassProbabilities
from segnet.tasks.segmentation_score import ConfusionCounts, Evaluation, EvaluationCounts
from segnet.tasks.task import Answers, AnswerType, Counts


class EvaluationStopped(Exception):
    """An evaluation was told to stop before its end."""


def evaluate(
    model: Network,
    loader: DataLoader[Sample],
    inference: InferenceConfig | None = None,
    *,
    stop: Callable[[], object] = lambda: False,
) -> Scores:
    """The scores of a segmentation network on every image of `loader`, at the size of the masks.

    Under torchrun each rank counts its own images and all ranks get the scores of the sum, the same as those of one process.
    Raises EvaluationStopped as `count_split`.
    """
    counts = ConfusionCounts(model.num_classes)
    count_split(model, loader, inference or InferenceConfig(), ClassProbabilities(), counts, stop=stop)
    return counts.matrix.scores()


def evaluate_fully(model: Network, loader: DataLoader[Sample], inference: InferenceConfig | None = None) -> Evaluation:
    """The scores of `evaluate`, those of contours and of the confidence, and the score of every picture.

    `loader` is one of `build_loader` over a split. Every rank gets the same Evaluation, that of one process, to the bit.
    """
    split = split_of(loader)
    counts = EvaluationCounts(split.ids, len(split.classes))
    count_split(model, loader, inference or InferenceConfig(), ClassProbabilities(), counts)
    return counts.evaluation()


def count_split(
    model: Network,
    loader: Iterable[Sample],
    inference: InferenceConfig,
    answers: Answers[AnswerType],
    counts: Counts[AnswerType],
    *,
    stop: Callable[[], object] = lambda: False,
) -> None:
    """Add the answers for every batch of `loader`, and those of the other ranks, to `counts`. It shows the progress.

    Raises EvaluationStopped, on all ranks, when `stop()` became true on one; it is asked before every batch.
    """
    model = prepare_to_predict(model, inference)
    hidden = None if is_main() else True  # None: hidden where there is no terminal
    with agreed(), explain_lost_worker():
        for batch in tqdm(loader, "evaluate", unit="picture", leave=False, disable=hidden, file=sys.stderr):
            if stop():
                break
            with explain_full_memory("lower inference.window, or set device=cpu"):
                answer = predict(model, batch.image, inference, answers)
            counts.add(batch, answer)
    if max_over_ranks(bool(stop())):
        raise EvaluationStopped
    counts.sum_over_ranks()
