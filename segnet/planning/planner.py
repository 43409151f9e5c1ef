"""A plan: the dataset and the machine are measured, and each fact decides a key of the configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from segnet.config.architectures import read_architecture
from segnet.config.data_folder import load_data_folder
from segnet.config.named import MODELS
from segnet.config.sections import Config, DataConfig, ModelConfig
from segnet.config.validation import Source, validate
from segnet.config.yaml_files import Tree, merge
from segnet.models.initialization import build_model
from segnet.models.inspection import summarize
from segnet.planning.choices import (
    ENOUGH_FOR_SEGNET,
    Choice,
    Length,
    choose_batch,
    choose_channels,
    choose_length,
    choose_loss,
    choose_stages,
    choose_view,
    length_choices,
    recipe_choices,
)
from segnet.planning.machine import IN_NEW_PROCESSES, BatchCost, Measurements
from segnet.planning.survey import Survey, survey
from segnet.system.devices import choose_device, choose_precision, describe_device, memory_of
from segnet.system.errors import config_error, environment_error

NETWORKS = (MODELS / "segnet.yaml", MODELS / "segnet_small.yaml")  # from the largest
_AVERAGE = Choice("train.ema_decay", 0.9, "", "")  # in measurements: a moving average costs the same with any decay


class Budget(NamedTuple):
    """What a run may take."""

    hours: float
    memory: float | None = None  # GB; None: what is free
    weights: str | None = None  # of a VGG16, as model.encoder_weights takes them


class Plan(NamedTuple):
    """A configuration, the reasons for it, and what it will take."""

    choices: list[Choice]
    device: str
    length: Length
    memory: float  # GB, forecast


class _Candidate(NamedTuple):
    """A network, with the keys that it is measured with."""

    model: ModelConfig
    choices: list[Choice]  # but those of the network itself
    costs: Sequence[BatchCost]

    def pictures(self, seconds: float) -> float:
        """The pictures that so many seconds of steps take."""
        two = self.costs[-1]
        return seconds / two.seconds * two.pictures


def make_plan(
    root: Path,
    budget: Budget,
    *,
    networks: Sequence[Path] = NETWORKS,
    measure: Measurements = IN_NEW_PROCESSES,
) -> Plan:
    """The plan for a data folder with classes.yaml. It says on stderr what it is measuring.

    Raises UserError: (config, data) for faults of the folder, (config) where the time is too short, (environment) where the
    memory is too small, (checkpoint) where the weights do not fit.
    """
    data = load_data_folder(root)
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    memory = budget.memory or memory_of(device).free
    seconds = 3600 * budget.hours
    _say(f"reading the masks of {root}")
    facts = survey(data)
    chosen = _choose_network(facts, networks[:1] if budget.weights else networks, budget, measure)
    if chosen.costs[0].memory > memory:
        found = f"{chosen.costs[0].memory:.2f} GB for a single picture, {memory:.2f} GB are free"
        raise environment_error("memory", found, "give --memory if there is more, or free some")
    choices = [*chosen.choices, *choose_batch(chosen.costs, memory, seconds)]
    trial = build_config(data, [*choices, _AVERAGE])
    if budget.weights:
        build_model(trial.model, len(data.class_set), trial.data.channels)  # refuses weights that do not fit
    _say("timing ten steps and an evaluation")
    cost = measure.run(trial)
    length = choose_length(cost, trial.train.batch_size, facts.train, seconds)
    if length is None:
        found = f"{budget.hours:g}: one evaluation takes {cost.evaluation / 60:.1f} minutes, and a step {cost.step:.2g} seconds"
        raise config_error("--hours", found, "give more, or list fewer pictures in val")
    choices += length_choices(length, cost, facts)
    return Plan(choices, f"{describe_device(device)} in {precision}", length, cost.memory)


def _choose_network(facts: Survey, networks: Sequence[Path], budget: Budget, measure: Measurements) -> _Candidate:
    """The first of the networks that sees enough pictures in the time; else the last."""
    told = []
    for path in networks:
        _say(f"timing {path.stem} with one and with two pictures")
        candidate = _candidate(facts, path, budget, measure)
        pictures = candidate.pictures(3600 * budget.hours)
        two = candidate.costs[-1]
        told.append(f"{path.stem} takes {two.seconds / two.pictures:.3g} s a picture")
        enough = pictures >= ENOUGH_FOR_SEGNET
        if enough or budget.weights:
            break
    fact = f"{'; '.join(told)}: {pictures:,.0f} pictures in {budget.hours:g} h"
    if budget.weights:
        reason = "the network of these weights"
    elif enough:
        reason = f"{path.stem} learns from random weights with {ENOUGH_FOR_SEGNET:,} pictures or more"
    else:
        reason = f"fewer than {ENOUGH_FOR_SEGNET:,} are too few for a larger network from random weights"
    return candidate._replace(choices=[*_model_choices(candidate.model, fact, reason, budget.weights), *candidate.choices])


def _candidate(facts: Survey, path: Path, budget: Budget, measure: Measurements) -> _Candidate:
    model = read_architecture(path)
    zoom, view = choose_view(facts, model)
    stages, why = choose_stages(facts, len(model.encoder), zoom)
    if why:
        model = with_stages(model, stages)
        view = [why, *choose_view(facts, model)[1]]
    parameters = sum(part.parameters for part in summarize(model, len(facts.data.class_set), (64, 64)))
    pretrained = budget.weights is not None
    own = [*view, *choose_channels(facts, pretrained), *choose_loss(facts), *recipe_choices(parameters, pretrained)]
    trial = build_config(facts.data, [*_model_choices(model, "", "", None), *own, _AVERAGE])
    return _Candidate(model, own, measure.batches(trial))


def with_stages(model: ModelConfig, stages: int) -> ModelConfig:
    """`model` without its deepest stages, so that `stages` are left."""
    cut = len(model.decoder) - stages
    return model.model_copy(update={"encoder": model.encoder[:stages], "decoder": model.decoder[cut:]})


def _model_choices(model: ModelConfig, fact: str, reason: str, weights: str | None) -> list[Choice]:
    """The keys of the network that differ from their defaults."""
    tree: Tree = json.loads(model.model_dump_json(exclude_defaults=True))
    choices = [Choice(f"model.{key}", value, fact, reason) for key, value in tree.items()]
    if weights:
        choices.append(Choice("model.encoder_weights", weights, "--weights", "the encoder begins with these features"))
    if weights or len(model.encoder) > 4:
        choices.append(Choice("model.decoder_weights", "mirrored", "SegNet", "as in configs/camvid_segnet_cpu.yaml"))
    return choices


def build_config(data: DataConfig, choices: Sequence[Choice]) -> Config:
    """The configuration that `choices` describe for a dataset."""
    tree: Tree = {"data": json.loads(data.model_dump_json())}
    for choice in choices:
        if choice.key:
            section, key = choice.key.split(".")
            tree = merge(tree, {section: {key: choice.value}})
    return validate(Config, tree, Source(Path(data.root), {}))


def _say(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)
