"""Trainings, predictions and evaluations on a pretended GPU: what has to run there without breaking a rule."""

from __future__ import annotations

import contextlib
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from fake_cuda import GPU, PretendedGpu, pretended_gpu
from helpers import CLASSES, ROOT, recipes, tiny_config_for, tiny_mask, write_pair, write_split
from torch import Tensor, nn

from segnet.classes import class_set
from segnet.config.loading import load_config, override_config
from segnet.config.sections import InferenceConfig
from segnet.data.dataset import Sample
from segnet.evaluation.scoring import evaluate
from segnet.inference.answers import predict
from segnet.losses import ImageError
from segnet.system.devices import use_deterministic_algorithms
from segnet.tasks.choice import build_task
from segnet.tasks.segmentation import criterion_of
from segnet.tasks.task import Criterion
from segnet.training import loop, step

Run = Callable[[PretendedGpu], None]

RECIPES = [path.stem for path in recipes() if path.parent == ROOT / "configs"]
PRECISIONS = ("bfloat16", "float16", "float32")
RECOMPUTE = ("nothing", "activations", "stages")
OPTIMIZERS = ("adamw", "sgd")
VIEWS: tuple[dict[str, Any], ...] = ({"flip": "horizontal", "window": 48}, {"scales": (0.5, 1.0)}, {"dropout_samples": 2}, {})
BFLOAT16, AVERAGE, DETERMINISTIC = "train.precision=bfloat16", "train.ema_decay=0.9", "train.deterministic=true"
COLORS = ("augment.brightness=0.4", "augment.contrast=0.4", "augment.saturation=0.4", "augment.hue=0.05", "augment.blur=1")
POOLING_LAUNCHES = 210  # in a step of SegNet with eight images of 360×480 in bfloat16
POOLING_BYTES = 6_029_967_460  # read and written by them


class Report(NamedTuple):
    """What one case showed."""

    findings: list[str]  # the rules that were broken
    waits: int  # of the host for the GPU, in steps of training
    pooling_launches: int
    pooling_bytes: int
    seconds: float


class Case(NamedTuple):
    """What runs on the pretended GPU, without findings."""

    name: str
    run: Run


def train_and_predict(
    recipe: str,
    *changes: str,
    views: InferenceConfig | None = None,
    steps: int = 2,
    shape: tuple[int, int, int] = (3, 75, 53),
    any_layout: bool = False,
) -> Run:
    """So many steps of a recipe on a batch of `shape` (B, H, W); with `views`, a prediction and an evaluation of that batch."""

    def run(gpu: PretendedGpu) -> None:
        gpu.any_layout = any_layout
        config = load_config(ROOT / "configs" / f"{recipe}.yaml", ["model.encoder_weights=null", *changes])
        use_deterministic_algorithms(config.train.deterministic)
        task = build_task(config)
        with mock.patch.multiple(nn.init, kaiming_normal_=lambda x, **_: x, kaiming_uniform_=lambda x, **_: x):  # takes seconds
            state = step.build_state(config, task.channels, GPU)
        weight = torch.ones(task.channels).to(GPU) if config.loss.class_weights != "none" else None
        image = torch.zeros(*shape, config.data.channels, dtype=torch.uint8).permute(0, 3, 1, 2)  # channels_last, from the loader
        restores = config.task == "denoise"
        criterion: Criterion = ImageError() if restores else criterion_of(config.loss, weight)
        batch: Any = Sample(image.float() if restores else image, image if restores else image[:, 0].clone(), "")
        gpu.convolutions_in = getattr(torch, config.train.precision)
        for _ in range(steps):
            step.train_step(state, step.to_device(batch, GPU), criterion, lr=1e-3, config=config)
        if views:
            gpu.convolutions_in = getattr(torch, views.precision)
            found = predict(state.scored_model, batch.image, views, task.answers, keep_mean=True)
            if any(answer is not None and type(answer) is not Tensor for answer in found):
                gpu.findings.add("an answer is not on the CPU")
            if not restores:
                evaluate(state.scored_model, [batch], views)  # type: ignore[arg-type]

    return run


def stop_and_resume(*changes: str) -> Run:
    """A run that is stopped after its first step and resumed until its end, with log lines, evaluation and checkpoints."""

    def run(_: PretendedGpu) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for split, count in (("train", 4), ("val", 1)):
                names = [f"{split}_{number}" for number in range(count)]
                for seed, name in enumerate(names):
                    write_pair(root / "data", name, tiny_mask(seed=seed), class_set(CLASSES))
                write_split(root / "data", split, names)
            config = override_config(tiny_config_for(root / "data"), ["device=cuda", "train.log_every_steps=2", *changes])
            loop.train(override_config(config, ["train.max_minutes=1e-9"]), root / "run")
            loop.train(config, root / "run", resume=True)

    return run


def count_pooling(gpu: PretendedGpu) -> None:
    """One step of full size, whose pooling must not move more than it did."""
    train_and_predict("camvid_segnet", BFLOAT16, steps=1, shape=(8, 360, 480))(gpu)
    if gpu.pooling_launches > POOLING_LAUNCHES or gpu.pooling_bytes > POOLING_BYTES:
        gpu.findings.add(f"pooling has {gpu.pooling_launches} launches and moves {gpu.pooling_bytes} bytes")


def recipes() -> Iterator[Case]:
    """Each recipe in each combination. The first len(RECIPES) cases have every recipe, and every pair of the three choices."""
    combinations = list(itertools.product(PRECISIONS, RECOMPUTE, OPTIMIZERS))
    for turn, (number, recipe) in itertools.product(range(len(combinations)), enumerate(RECIPES)):
        precision, recompute, optimizer = combinations[(7 * number + turn) % len(combinations)]
        views = InferenceConfig(precision=PRECISIONS[(number + turn) % 3], **VIEWS[number % len(VIEWS)])  # type: ignore[arg-type]
        keys = (f"train.precision={precision}", f"train.recompute={recompute}", f"optim.name={optimizer}", AVERAGE)
        yield Case(f"{recipe}, {precision}, recompute {recompute}, {optimizer}", train_and_predict(recipe, *keys, views=views))


def cases(*, everything: bool) -> list[Case]:
    """All cases, or a selection with every value of every choice."""
    views = InferenceConfig(precision="bfloat16")

    def variant(*changes: str, any_layout: bool = False) -> Run:
        return train_and_predict("sample", BFLOAT16, AVERAGE, *changes, views=views, any_layout=any_layout)

    return [
        *itertools.islice(recipes(), None if everything else len(RECIPES)),
        Case("deterministic", variant(DETERMINISTIC, "loss.label_smoothing=0.1", "loss.lovasz=0.5")),
        Case("deterministic, bilinear upsampling", variant(DETERMINISTIC, "model.upsampling=bilinear", any_layout=True)),
        Case("upsampling by deconvolution", variant("model.upsampling=deconvolution", any_layout=True)),
        Case("decoder of convolutions", variant("model.decoder_operation=convolution", "model.kernel_size=1")),
        Case("SGD without momentum", variant("optim.name=sgd", "optim.momentum=0", "optim.clip_norm=0")),
        Case("a batch in three parts", variant("train.accumulate=3", "train.batch_size=3", "train.recompute=activations")),
        Case("a run, resumed", stop_and_resume(AVERAGE, BFLOAT16, "optim.name=adamw")),
        Case("a run with changes of colour, resumed", stop_and_resume(BFLOAT16, *COLORS)),
        Case("a run in float16, resumed", stop_and_resume("train.precision=float16")),
        Case("pooling of a step of full size", count_pooling),
    ]


def audit(run: Run) -> Report:
    """The report of a case. An error of torch is a finding."""
    started = time.perf_counter()
    silence = io.StringIO()  # values that were never computed are no news
    with pretended_gpu() as gpu, contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        try:
            run(gpu)
        except RuntimeError as error:
            gpu.findings.add(" ".join(str(error).split()))
    seconds = time.perf_counter() - started
    return Report(sorted(gpu.findings), gpu.waits, gpu.pooling_launches, gpu.pooling_bytes, round(seconds, 1))
