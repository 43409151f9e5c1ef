"""Each measured fact decides its key: by rules whose bounds are stood on here from both sides."""

from __future__ import annotations

import math

import pytest
from helpers import model_config

from segnet.planning.choices import (
    Choice,
    choose_balance,
    choose_batch,
    choose_channels,
    choose_length,
    choose_loss,
    choose_stages,
    choose_view,
    length_choices,
    recipe_choices,
)
from segnet.planning.machine import BatchCost, RunCost

SEGNET = model_config("segnet")


def values_of(choices: list[Choice]) -> dict[str, object]:
    return {choice.key: choice.value for choice in choices if choice.key}


@pytest.mark.parametrize(
    ("size", "zoom", "crop"),
    [((120, 160), 1.0, [96, 160]), ((375, 500), 0.45, [160, 224]), ((360, 480), 0.47, [160, 224]), ((20, 500), 0.45, [32, 224])],
)
def test_a_large_picture_is_seen_smaller_and_whole(facts, size, zoom, crop) -> None:
    found, choices = choose_view(facts(size), SEGNET)
    assert (found, values_of(choices)["inference.scales"]) == (zoom, [zoom])
    assert values_of(choices)["augment.crop_size"] == crop
    low, high = values_of(choices)["augment.scale"]
    assert math.sqrt(low * high) == pytest.approx(zoom, rel=0.03)
    assert "inference.window" not in values_of(choices)


def test_thin_objects_keep_their_width_and_the_crop_the_field_of_view(facts) -> None:
    survey = facts((3000, 4000), soil=(1000, 100, 900, 2000), crack=(10, 100, 2, 3))
    zoom, choices = choose_view(survey, SEGNET)
    assert zoom == 0.5  # 3 pixels become 1.5
    assert values_of(choices)["augment.crop_size"] == [416, 416]  # 13 strides: 422 pixels are seen
    assert values_of(choices)["inference.window"] == 1536
    assert "half of crack is in objects narrower than 3.0 pixels (100 masks), which keep 1.5" in choices[0].reason


def test_pictures_of_many_sizes_are_zoomed_more(facts) -> None:
    alike, varied = ((300, 400),) * 50 + ((310, 420),) * 50, ((200, 300),) * 50 + ((400, 600),) * 50
    assert values_of(choose_view(facts(sizes=alike), SEGNET)[1])["augment.scale"] == [0.37, 0.83]
    assert values_of(choose_view(facts(sizes=varied), SEGNET)[1])["augment.scale"] == [0.25, 1.0]


@pytest.mark.parametrize(
    ("classes", "zoom", "stages"),
    [
        ({"wall": (900, 9, 300, 300), "crack": (9, 9, 3, 3)}, 1.0, 4),  # eight times 3 is 24: 16, not 32
        ({"wall": (900, 9, 300, 300), "crack": (9, 9, 4, 4)}, 1.0, 5),
        ({"wall": (900, 9, 300, 300), "crack": (9, 9, 4, 4)}, 0.5, 4),  # as it is seen
        ({"wall": (900, 9, 300, 300), "crack": (9, 9, 0.5, 0.5)}, 1.0, 3),  # never fewer
        ({"road": (900, 9, 70, 120), "pole": (9, 9, 1.7, 3.7), "car": (90, 9, 21, 74)}, 0.47, 5),  # the car needs them
        ({"wall": (900, 9, 300, 300), "crack": (0, 0, math.nan, math.nan)}, 1.0, 5),
    ],
)
def test_stages_that_lose_the_objects_of_every_class_are_left_out(facts, classes, zoom, stages) -> None:
    found, why = choose_stages(facts(**classes), 5, zoom)
    assert found == stages
    assert (why is None) == (stages == 5)
    if stages == 4:
        assert "5 poolings see 32 pixels as one; 4 see 16" in why.reason


@pytest.mark.parametrize(("pixels", "weighted"), [(240, True), (260, False)])
def test_uneven_classes_are_weighted(facts, pixels, weighted) -> None:
    chosen = values_of(choose_loss(facts(soil=(1000, 90, 9, 9), crop=(pixels, 90, 9, 9))))
    assert chosen == ({"loss.class_weights": "median_frequency", "loss.weight_power": 0.5} if weighted else {})


@pytest.mark.parametrize(
    ("pictures", "pretrained", "chosen"),
    [
        ((20, 3, False, False), False, {}),
        ((20, 3, True, False), False, {"data.channels": 1}),
        ((20, 3, True, False), True, {}),
        ((20, 3, True, True), False, {"data.channels": 1, "data.scale": "train"}),
        ((20, 3, False, True), False, {"data.scale": "train"}),
        ((20, 5, False, False), True, {"data.channels": 5, "data.scale": "train"}),
    ],
)
def test_bands_and_depth_decide_channels_and_scale(facts, pictures, pretrained, chosen) -> None:
    assert values_of(choose_channels(facts(pictures=pictures), pretrained)) == chosen


@pytest.mark.parametrize(
    ("pixels", "zoom", "crop", "balance"),
    [(50, 0.5, (250, 500), 0.5), (60, 0.5, (250, 500), None), (50, 0.5, (252, 500), None), (50, 1.0, (500, 1000), 0.5)],
)
def test_crops_that_mostly_miss_a_rare_class_are_placed_around_it(facts, pixels, zoom, crop, balance) -> None:
    survey = facts((1000, 2000), wall=(950, 90, 9, 9), crack=(pixels, 90, 9, 9))
    assert values_of(choose_balance(survey, zoom, crop)).get("data.balance") == balance


def test_classes_in_few_pictures_are_named(facts) -> None:
    remarks = [c.fact for c in choose_loss(facts(a=(9, 90, 9, 9), b=(9, 5, 9, 9), c=(9, 4, 9, 9), d=(0, 0, math.nan, math.nan)))]
    assert remarks == ["c is in 4 of 100 training pictures", "d is in 0 of 100 training pictures"]


@pytest.mark.parametrize(("seconds", "batch"), [(64_001, 16), (63_999, 8), (32_001, 8), (31_999, 4), (10, 4)])
def test_the_batch_is_as_large_as_the_number_of_steps_allows(seconds, batch) -> None:
    costs = [BatchCost(1, 1.5, 1.0), BatchCost(2, 2.0, 1.1)]  # a second a picture
    assert values_of(choose_batch(costs, 100.0, seconds)) == {"train.batch_size": batch}


@pytest.mark.parametrize(("memory", "parts"), [(3.0, None), (2.5, 2), (1.5, 4), (1.01, 16)])
def test_a_batch_that_does_not_fit_is_accumulated(memory, parts) -> None:
    """1 GB with one picture, 0.13 GB more with each: 16 need 2.95 GB."""
    costs = [BatchCost(1, 1.5, 1.0), BatchCost(2, 2.0, 1.13)]
    assert values_of(choose_batch(costs, memory, 1e6)).get("train.accumulate") == (
        2 if parts == 3 else 4 if parts == 8 else parts
    )


COST = RunCost(start=2.0, step=0.5, evaluation=10.0, save=1.0, memory=1.0)


@pytest.mark.parametrize("seconds", [60, 300, 3600])
def test_a_run_ends_in_time_and_spends_little_of_it_on_scores(seconds) -> None:
    length = choose_length(COST, 4, 100, seconds)
    assert 0.9 * seconds < 60 * length.minutes <= 0.95 * seconds + COST.step
    assert length.evaluations == max(1, min(10, int(0.15 * (0.95 * seconds - 2) / 11)))
    assert length.steps == math.ceil(length.epochs * 100 / 4)


def test_a_run_that_is_too_short_is_none_and_one_of_few_pictures_is_not_too_long() -> None:
    assert choose_length(COST, 4, 100, 24) is None  # 2 + 11 seconds leave less than ten for steps
    assert choose_length(COST, 4, 100, 25) is not None
    assert choose_length(COST, 4, 10, 3600).epochs == 300


def test_the_length_is_written_so_that_it_has_its_evaluations(facts) -> None:
    length = choose_length(COST, 4, 100, 600)
    chosen = values_of(length_choices(length, COST, facts()))
    steps_between = round(chosen["train.eval_every_epochs"] * 100 / 4)
    assert length.steps // steps_between in (length.evaluations - 1, length.evaluations)
    assert chosen["train.ema_decay"] == pytest.approx(1 - 1 / (length.steps // 20), abs=1e-4)


def test_a_pretrained_encoder_learns_slower() -> None:
    assert values_of(recipe_choices(30_000_000, pretrained=True))["optim.encoder_lr_factor"] == 0.3
    assert "optim.encoder_lr_factor" not in values_of(recipe_choices(800_000, pretrained=False))
