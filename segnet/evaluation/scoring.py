"""Score a network on a split."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator

from torch.utils.data import DataLoader
from tqdm import tqdm

from segnet.config.sections import InferenceConfig
from segnet.data.dataset import Sample
from segnet.data.workers import explain_lost_worker
from segnet.inference.answers import Watch, predict, prepare_to_predict
from segnet.inference.exported import Network
from segnet.metrics.confusion import Scores
from segnet.system.devices import explain_full_memory
from segnet.system.distributed import agreed, is_main, max_over_ranks
from segnet.system.terminal import redraws
from segnet.tasks.segmentation import ClassProbabilities
from segnet.tasks.segmentation_score import ConfusionCounts
from segnet.tasks.task import Answers, AnswerType, Counts

LINE_EVERY = 60  # seconds


class EvaluationStopped(Exception):
    """An evaluation was told to stop before its end."""


def evaluate(model: Network, loader: DataLoader[Sample], inference: InferenceConfig | None = None) -> Scores:
    """The scores of a segmentation network on every image of `loader`, at the size of the masks.

    Under torchrun each rank counts its own images and all ranks get the scores of the sum, the same as those of one process.
    """
    counts = ConfusionCounts(model.num_classes)
    count_split(model, loader, inference or InferenceConfig(), ClassProbabilities(), counts)
    return counts.matrix.scores()


def count_split(
    model: Network,
    loader: DataLoader[Sample],
    inference: InferenceConfig,
    answers: Answers[AnswerType],
    counts: Counts[AnswerType],
    *,
    keep_mean: bool = False,
    watch: Callable[[Sample], Watch] | None = None,
    stop: Callable[[], object] = lambda: False,
) -> None:
    """Add the answers for every batch of `loader`, and those of the other ranks, to `counts`. It shows the progress.

    With `keep_mean` the answers have the averaged values, such as probabilities; `watch` of a batch gets them region by region.
    Raises EvaluationStopped, on all ranks, when `stop()` became true on one; it is asked before every batch.
    """
    model = prepare_to_predict(model, inference)
    with agreed(), explain_lost_worker():
        for batch in _with_progress(loader):
            if stop():
                break
            with explain_full_memory("lower inference.window, or set device=cpu"):
                seen = watch(batch) if watch else None
                answer = predict(model, batch.image, inference, answers, keep_mean=keep_mean, watch=seen)
            counts.add(batch, answer)
    if max_over_ranks(bool(stop())):
        raise EvaluationStopped
    counts.sum_over_ranks()


def _with_progress(loader: DataLoader[Sample]) -> Iterable[Sample]:
    """The batches of `loader`, with a progress bar; where there is no terminal, with a line about each minute."""
    if not is_main():
        return loader
    if redraws(sys.stderr):
        return tqdm(loader, "evaluate", unit="picture", leave=False, file=sys.stderr)
    return _with_lines(loader)


def _with_lines(loader: DataLoader[Sample]) -> Iterator[Sample]:
    said = time.monotonic()
    for done, batch in enumerate(loader):
        if time.monotonic() - said >= LINE_EVERY:
            said = time.monotonic()
            print(f"evaluate: {done} of {len(loader)} pictures", file=sys.stderr, flush=True)
        yield batch
