"""Mistakes to plant in what cuda_audit.py runs, and the command that runs all.

    python tests/cuda_mistakes.py            a selection of the cases, and all mistakes
    python tests/cuda_mistakes.py --all      each recipe in each combination of precision, recomputation and optimizer

It prints a JSON object: a report for each name. Run it in a process of its own, since torch keeps some of what is pretended.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, NamedTuple
from unittest import mock

import torch
from cuda_audit import AVERAGE, BFLOAT16, DETERMINISTIC, Run, audit, cases, count_pooling, stop_and_resume, train_and_predict
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segnet.config.sections import InferenceConfig
from segnet.inference import answers
from segnet.layers import pooling
from segnet.losses import CrossEntropy
from segnet.runs import checkpoint
from segnet.training import loop, step


class Mistake(NamedTuple):
    """A planted mistake: `owner.attribute` is replaced while a case runs, and one of the findings has to hold `expected`."""

    name: str
    expected: str
    run: Run
    owner: Any
    attribute: str
    replacement: Any


def mistakes() -> list[Mistake]:
    """One mistake of each kind, or several where they are found by different rules."""
    small = train_and_predict("sample", BFLOAT16, steps=1)
    averaged = train_and_predict("sample", BFLOAT16, AVERAGE)
    sgd = train_and_predict("sample", BFLOAT16, "optim.name=sgd", steps=1)
    deterministic = train_and_predict("sample", BFLOAT16, DETERMINISTIC, steps=1)
    prediction = train_and_predict("sample", BFLOAT16, steps=0, views=InferenceConfig(precision="bfloat16"))
    run = stop_and_resume(BFLOAT16)
    place, corners, copy_to_cpu = pooling._place, pooling._corners, checkpoint.copy_to_cpu
    cross_entropy, zeros_like, to = nn.functional.cross_entropy, torch.zeros_like, Tensor.to

    def in_nchw(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: in_nchw(inner) for name, inner in value.items()}
        return value.contiguous() if isinstance(value, Tensor) else value

    def blocking(tensor: Tensor, *arguments: Any, non_blocking: bool = False, **options: Any) -> Tensor:
        return to(tensor, *arguments, **options)

    def to_nchw(tensor: Tensor, *arguments: Any, memory_format: object = None, **options: Any) -> Tensor:
        return to(tensor.contiguous(), *arguments, **options)

    def averaging(model: nn.Module, decay: float) -> AveragedModel:
        return AveragedModel(model, multi_avg_fn=lambda *_: None, use_buffers=True)

    def synchronizing(tensor: Tensor) -> Tensor:
        torch.cuda.synchronize()
        return tensor

    def summed(*arguments: Any, **options: Any) -> Tensor:
        return cross_entropy(*arguments, **options | {"reduction": "sum"})

    def reading_loss(training: loop.Training) -> None:
        float(training.state.loss_sum)

    return [
        Mistake("counts on the CPU", "on the same device", small, CrossEntropy, "counts", lambda *_: torch.ones(1)),
        Mistake("unpooling on the CPU", "on cpu", small, pooling, "_place", lambda *given: place(*given).cpu()),
        Mistake("a number read in a step", "reads a number", small, step, "sum_over_ranks", lambda x: x * float(x)),
        Mistake("a number read between steps", "reads a number", run, loop.Training, "_stop", reading_loss),
        Mistake("a mask that selects", "mask selects", small, nn.functional, "cross_entropy", lambda x, y, *_, **__: x[y > 0]),
        Mistake("a blocking copy", "blocking copy", small, Tensor, "to", blocking),
        Mistake("a synchronization", "synchronizes", small, step, "sum_over_ranks", synchronizing),
        Mistake("torch's moving average", "blocking copy", averaged, step, "MovingAverage", averaging),
        Mistake("unpooling to NCHW", "channels_last", small, pooling, "_place", lambda *given: place(*given).contiguous()),
        Mistake("images in NCHW", "channels_last", small, Tensor, "to", to_nchw),
        Mistake("a loss summed by torch", "no deterministic form", deterministic, nn.functional, "cross_entropy", summed),
        Mistake("momentum in NCHW", "_fused_sgd", sgd, torch, "zeros_like", lambda x, **kw: zeros_like(x.contiguous(), **kw)),
        Mistake("momentum saved in NCHW", "_fused_sgd", run, checkpoint, "copy_to_cpu", lambda x: in_nchw(copy_to_cpu(x))),
        Mistake("found_inf in float64", "_fused_adamw", small, Tensor, "float", Tensor.double),
        Mistake("no autocast", "computes in torch.float32", small, step, "autocast", lambda *_: contextlib.nullcontext()),
        Mistake("an answer on the GPU", "not on the CPU", prediction, answers, "_empty_like", lambda part, size: part),
        Mistake("copies in pooling", "pooling has", count_pooling, pooling, "_corners", lambda x: corners(x.clone())),
    ]


def main() -> None:
    reports = {case.name: audit(case.run) for case in cases(everything="--all" in sys.argv)}
    for mistake in mistakes():
        with mock.patch.object(mistake.owner, mistake.attribute, mistake.replacement):
            reports[mistake.name] = audit(mistake.run)
    print(json.dumps({name: report._asdict() for name, report in reports.items()}))


if __name__ == "__main__":
    main()
