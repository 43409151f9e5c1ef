"""The classes that a network did not learn, what it takes them for, and what to try."""

from __future__ import annotations

import math
from collections.abc import Sequence

from segnet.classes import ClassSet
from segnet.config.sections import Config, LossConfig
from segnet.metrics.confusion import Scores

_SHARE_OF_MIOU = 0.5  # a class with less than this share of the mIoU was not learnt
_NAMED = 3  # classes, the worst
_FEW_STEPS = 1000  # the shortest recipe in configs/, that of the sample, makes 1,920
_MOST = 0.75  # share of the classes from which on no single one is the trouble


def weak_class_lines(scores: Scores, classes: ClassSet, config: Config, steps: int) -> list[str]:
    """A line for each of the worst three classes of the truth whose IoU is below half of the mIoU; then the number of others.
    Where these are more than three quarters of the classes, as after a short training, their number alone.

    A class whose recall is at most its precision is missed: the line says what it is taken for. Otherwise other classes are taken
    for it. After few `steps` of training the cure is more of them, except for a network that began with another's weights.
    Without any such class there is no line.
    """
    truths = [sum(row) for row in scores.confusion]
    bound = _SHARE_OF_MIOU * scores.miou
    weak = [k for k, iou in enumerate(scores.class_iou) if truths[k] and iou < bound]
    short = f"train longer, {steps:,} steps are few (train.epochs={config.train.epochs:g})" if steps < _FEW_STEPS else ""
    cure = "" if config.model.weights else short
    if len(weak) > max(_NAMED, _MOST * len(classes)):
        return [f"{len(weak)} of {len(classes)} classes have an IoU below half of the mIoU: {cure or 'train longer'}"]
    weak.sort(key=lambda k: scores.class_iou[k])
    lines = [_line(k, scores, classes, config, cure) for k in weak[:_NAMED]]
    if weak[_NAMED:]:
        others = len(weak) - _NAMED
        lines.append(f"{others} more of {len(classes)} classes have an IoU below half of the mIoU: {cure or 'train longer'}")
    return lines


def _line(k: int, scores: Scores, classes: ClassSet, config: Config, cure: str) -> str:
    """The line about class `k`; `cure` is what to try, empty where that follows from the kind of the mistake."""
    name, recall, precision = classes.names[k], scores.class_accuracy[k], scores.class_precision[k]
    start = f"{name}: IoU {100 * scores.class_iou[k]:.1f}"
    if math.isnan(precision) or recall <= precision:
        share, other = _largest_other(scores.confusion[k], k)
        cure = cure or f"{_more_weight(config)} or label more of it"
        return f"{start}, {share:.0%} of it predicted as {classes.names[other]}: {cure}"
    share, other = _largest_other([row[k] for row in scores.confusion], k)
    what = f"{share:.0%} of what is predicted as {name} is {classes.names[other]}"
    cure = cure or f"{_less_weight(config.loss)}label more of {classes.names[other]}, or see whether the masks agree"
    return f"{start}, {what}: {cure}"


def _largest_other(counts: Sequence[int], k: int) -> tuple[float, int]:
    """The largest share of `counts` apart from place `k`, and its place."""
    other = max((place for place in range(len(counts)) if place != k), key=lambda place: counts[place])
    return counts[other] / sum(counts), other


def _more_weight(config: Config) -> str:
    """What shows a rare class more often, or gives it more weight in the loss."""
    loss, cures = config.loss, list[str]()
    if loss.class_weights == "none":
        cures.append("set loss.class_weights=median_frequency")
    elif loss.weight_power < 1:
        cures.append(f"raise loss.weight_power ({loss.weight_power:g})")
    if config.data.balance < 1:
        cures.append(f"raise data.balance ({config.data.balance:g})")
    return f"{', '.join(cures)}," if cures else "train longer"


def _less_weight(loss: LossConfig) -> str:
    """What gives a class that is predicted too often less weight in the loss; empty where the loss has no weights."""
    return f"lower loss.weight_power ({loss.weight_power:g}), " if loss.class_weights != "none" and loss.weight_power else ""
