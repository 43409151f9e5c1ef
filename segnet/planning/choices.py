"""From measured facts to the keys of a configuration, each with the fact and the reason. Nothing is read or measured here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from segnet.config.advice import zoom_to_see
from segnet.config.sections import ModelConfig
from segnet.config.yaml_files import Value
from segnet.inference.answers import WINDOW
from segnet.models.field_of_view import field_of_view
from segnet.planning.machine import BatchCost, RunCost
from segnet.planning.survey import ClassFacts, Survey

FEW_PICTURES = 5  # a class in fewer training pictures is warned about
_LEAST_ZOOM = 0.1  # of the configuration
_LEAST_WIDTH = 1.5  # pixels that the middle object of each class keeps at the zoom, as CamVid's poles at its best zoom
_OBJECTS_A_STEP = 8  # a pixel of the deepest stage may be so many times as wide as the narrow objects
_LEAST_STAGES = 3
_SMALL_CROP = 0.25  # of a picture, at most, where crops are placed around pixels of rare classes
_RARE = 0.05  # of the pixels, at most, for a class to be rare there
_UNEVEN = 4.0  # ratio of the pixels of two classes from which the loss is weighted
_STEPS_WISHED = 4000  # the batch is smaller where the time does not allow so many steps of a larger one
_BATCHES = (16, 8, 4)  # from the largest; 2 did not help on CamVid
ENOUGH_FOR_SEGNET = 12_000  # pictures of the run: with 35 epochs of CamVid's 367, SegNet reached 52.7 from random weights
_EVALUATIONS = 10  # at most
_SHARE_OF_EVALUATIONS = 0.15  # of the time, at most, unless a single evaluation takes more
_MOST_EPOCHS = 300
_MARGIN = 0.95  # of the time, because a machine is not always as fast as it was in the measurement
_LEAST_STEPS = 20


class Choice(NamedTuple):
    """A key of the configuration and its value; or, with an empty key, a remark."""

    key: str
    value: Value
    fact: str  # what was measured
    reason: str


def choose_view(survey: Survey, model: ModelConfig) -> tuple[float, list[Choice]]:
    """The zoom, and the keys of zoom and crop, so that a picture fits into the field of view and its objects keep their shape."""
    height, width = survey.size
    zoom = zoom_to_see(max(height, width), least=_LEAST_ZOOM)
    size = f"pictures of {width:g}×{height:g} in the middle, {_range(survey.widths)}×{_range(survey.heights)}"
    smaller = "SegNet's field of view holds about 224 pixels, so larger pictures are seen smaller"
    reason = smaller if zoom < 1 else "seen as they are"
    thinnest = min(survey.present, key=_middle)
    needed = min(1.0, math.ceil(100 * _LEAST_WIDTH / _middle(thinnest)) / 100)
    if needed > zoom:
        zoom = needed
        thin = f"half of {thinnest.name} is in objects narrower than {thinnest.middle:.1f} pixels ({survey.measured} masks)"
        reason = f"{thin}, which keep {zoom * thinnest.middle:.1f}"
    longer = [max(sides) for sides in zip(survey.heights, survey.widths, strict=True)]
    varied = _share(longer, 0.95) / _share(longer, 0.05) > 1.5
    spread = 2.0 if varied else 1.5
    scale: list[Value] = [max(_LEAST_ZOOM, round(zoom / spread, 2)), round(zoom * spread, 2)]
    stride, most = 2 ** len(model.encoder), max(224, 2 * field_of_view(model))
    crop = [max(16, stride, int(min(most, zoom * side)) // stride * stride) for side in (height, width)]
    alike = "whose sizes vary" if varied else "of about one size"
    middle = f"the middle size at that zoom, at most {most} pixels"
    choices = [
        Choice("inference.scales", [zoom], size, reason),
        Choice("augment.scale", scale, f"pictures {alike}", f"around that zoom, by {spread:g} to each side"),
        Choice("augment.crop_size", [*crop], f"a stride of {stride} pixels", middle),
    ]
    if height * width > WINDOW**2:
        why = "a whole picture would take memory in proportion"
        choices.append(Choice("inference.window", WINDOW, f"{height * width / 1e6:.1f} megapixels", why))
    return zoom, [*choices, *choose_balance(survey, zoom, crop)]


def choose_channels(survey: Survey, pretrained: bool) -> list[Choice]:
    """The bands and the scale of their values, where the pictures are not RGB of 8 bits.

    Pretrained weights are for R, G and B: grey pictures stay three equal channels for them.
    """
    found, choices = survey.pictures, list[Choice]()
    fact = f"{found.opened} pictures opened"
    if found.channels != 3:
        choices.append(Choice("data.channels", found.channels, f"{fact}, all of {found.channels} bands", "the network sees all"))
    elif found.grey and not pretrained:
        choices.append(Choice("data.channels", 1, f"{fact}, all of them grey", "R, G and B would be the same"))
    if found.deep or found.channels != 3:
        deep = "of more than 8 bits" if found.deep else "of other bands than R, G, B"
        reason = "a value means the same in every picture, and the percentiles of each band become 0 and 255"
        choices.append(Choice("data.scale", "train", f"{fact}, some {deep}", reason))
    return choices


def choose_stages(survey: Survey, stages: int, zoom: float) -> tuple[int, Choice | None]:
    """The number of stages, at most `stages`, and the reason where it is less.

    It is less where the narrow objects of every class but the largest would be lost in a pixel of the deepest stage.
    """
    largest = max(survey.present, key=lambda facts: facts.pixels)
    others = [facts for facts in survey.present if facts is not largest and not math.isnan(facts.narrow)]
    if not others:
        return stages, None
    widest = max(others, key=lambda facts: facts.narrow)
    seen = widest.narrow * zoom
    fewer = stages
    while fewer > _LEAST_STAGES and 2**fewer > _OBJECTS_A_STEP * seen:
        fewer -= 1
    if fewer == stages:
        return stages, None
    fact = f"{widest.name} is {seen:.1f} pixels wide where it is seen, and no class but {largest.name} is wider"
    return fewer, Choice("", None, fact, f"{stages} poolings see {2**stages} pixels as one; {fewer} see {2**fewer}")


def choose_loss(survey: Survey) -> list[Choice]:
    """Class weights where the classes have uneven shares of the pixels; remarks about classes in few pictures."""
    total = sum(facts.pixels for facts in survey.present)
    most, least = (pick(survey.present, key=lambda facts: facts.pixels) for pick in (max, min))
    choices = []
    if most.pixels > _UNEVEN * least.pixels:
        fact = f"{most.name} has {_percent(most.pixels / total)} of the pixels, {least.name} {_percent(least.pixels / total)}"
        choices.append(Choice("loss.class_weights", "median_frequency", fact, "rare classes count more"))
        choices.append(Choice("loss.weight_power", 0.5, "the same", "square roots of the weights were the best on CamVid"))
    for facts in survey.classes:
        if facts.pictures < FEW_PICTURES:
            shown = f"{facts.name} is in {facts.pictures} of {survey.train} training pictures"
            choices.append(Choice("", None, shown, "too few to learn it: label more, or join it by data.merge"))
    return choices


def choose_balance(survey: Survey, zoom: float, crop: Sequence[int]) -> list[Choice]:
    """Crops around rare classes, where a crop is a small part of a picture and would mostly miss them."""
    height, width = survey.size
    shown = min(1.0, crop[0] * crop[1] / (zoom**2 * height * width))
    rarest = min(survey.present, key=lambda facts: facts.pixels)
    share = rarest.pixels / sum(facts.pixels for facts in survey.present)
    if shown > _SMALL_CROP or share > _RARE:
        return []
    fact = f"a crop shows {_percent(shown)} of a picture, {rarest.name} has {_percent(share)} of the pixels"
    return [Choice("data.balance", 0.5, fact, "half of the crops lie around a pixel of a class, of rare classes more often")]


def choose_batch(costs: Sequence[BatchCost], memory: float, seconds: float) -> list[Choice]:
    """The batch and its parts, from the costs of one and two pictures, the GB that are free, and the time of the run."""
    one, two = costs
    each = max(0.0, two.memory - one.memory)
    fits = max(1, math.floor((memory - one.memory) / each) + 1) if each else _BATCHES[0]
    pace = two.seconds / two.pictures
    pictures = seconds / pace
    batch = next((size for size in _BATCHES if pictures / size >= _STEPS_WISHED), _BATCHES[-1])
    speed = f"{pace:.3g} s a picture, so {pictures:,.0f} in the time"
    why = f"{_STEPS_WISHED:,} steps or more" if pictures / batch >= _STEPS_WISHED else "a smaller one did not help on CamVid"
    choices = [Choice("train.batch_size", batch, speed, why)]
    parts = -(-batch // fits)
    if parts > 1:
        fact = f"{one.memory:.2f} GB with one picture, {each:.2f} GB with each more, {memory:.2f} GB free"
        choices.append(Choice("train.accumulate", parts, fact, f"{fits} pictures fit at once"))
    return choices


class Length(NamedTuple):
    """The length of a run."""

    steps: int
    epochs: float
    evaluations: int
    minutes: float  # forecast


def choose_length(cost: RunCost, batch: int, train: int, seconds: float) -> Length | None:
    """The longest run that fits into so many seconds; None where there is no time for a score and a few steps."""
    room = _MARGIN * seconds - cost.start
    each = cost.evaluation + cost.save
    evaluations = max(1, min(_EVALUATIONS, math.floor(_SHARE_OF_EVALUATIONS * room / each)))
    steps = math.floor((room - evaluations * each) / cost.step)
    if steps < _LEAST_STEPS:
        return None
    epochs = min(_MOST_EPOCHS, _rounded_down(steps * batch / train))
    steps = max(1, math.ceil(epochs * train / batch))
    evaluations = min(evaluations, steps)
    return Length(steps, epochs, evaluations, cost.seconds(steps, evaluations) / 60)


def length_choices(length: Length, cost: RunCost, survey: Survey) -> list[Choice]:
    """The keys of the length of a run."""
    fact = f"{cost.step:.3g} s a step, {cost.evaluation:.3g} s an evaluation of {survey.val} pictures"
    enough = "as long as any recipe" if length.epochs >= _MOST_EPOCHS else "what fits into the time"
    every = math.ceil(1000 * length.epochs / length.evaluations) / 1000
    count = f"{length.evaluations} evaluations" if length.evaluations > 1 else "one evaluation"
    interval = f"{count} of {cost.evaluation:.3g} s"
    choices = [
        Choice("train.epochs", length.epochs, fact, f"{length.steps:,} steps: {enough}"),
        Choice("train.eval_every_epochs", every, interval, f"at most {_SHARE_OF_EVALUATIONS:.0%} of the time, or a single one"),
        Choice("train.save_every_epochs", every, f"{cost.save:.2g} s a checkpoint", "with each evaluation"),
    ]
    if length.steps >= 5 * _LEAST_STEPS:
        steps = min(1000, length.steps // 20)
        fact = f"{length.steps:,} steps"
        choices.append(Choice("train.ema_decay", round(1 - 1 / steps, 4), fact, f"an average of about {steps} steps"))
    return choices


def recipe_choices(parameters: int, pretrained: bool) -> list[Choice]:
    """The optimizer, which is not measured but that of the recipes in configs/, by the size of the network."""
    small = parameters < 5_000_000
    source = "segnet import writes it" if small else "in configs/training/camvid_cpu.yaml"
    fact = f"{parameters:,} parameters"
    values: dict[str, Value] = {"name": "adamw", "lr": 2e-3 if small else 1e-3}
    if pretrained:
        values["encoder_lr_factor"] = 0.3
    values |= {"schedule": "cosine", "warmup": 0.1 if small else 0.05, "weight_decay": 0.02 if small else 0.01, "clip_norm": 5}
    return [Choice(f"optim.{key}", value, fact, f"as {source}") for key, value in values.items()]


def _middle(facts: ClassFacts) -> float:
    return math.inf if math.isnan(facts.middle) else facts.middle


def _share(values: Sequence[float], share: float) -> float:
    """The value below which this share of `values` lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g}–{high:g}"


def _rounded_down(value: float) -> float:
    """`value` with three digits, not above it."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return round(math.floor(value / unit) * unit, 6)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
