"""Train a network from a YAML file.

examples:
  segnet train configs/sample.yaml
  segnet train configs/voc_segnet.yaml train.epochs=5 device=cpu --run runs/short
  segnet train configs/voc_segnet.yaml --resume

`torchrun --standalone --nproc-per-node 4 -m -- segnet train …` divides each batch among four GPUs (or processes). With
torchrun's option --max-restarts 1, a training that failed continues by itself from the newest checkpoint. docs/slurm.md
describes training on a cluster.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from shlex import quote

from segnet.commands.parsers import add_overrides, command_parser, complete_configs, parse
from segnet.system.command_line import count_up_to
from segnet.system.invocation import as_started

OVERFIT = "--overfit-one-batch"
STEPS = 200  # of it


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("train", __doc__)
    config = parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="a YAML file, or the name of one that comes with the program, e.g. sample"
    )
    complete_configs(config)
    add_overrides(parser)
    parser.add_argument("--run", type=Path, metavar="DIR", help="run folder (default: runs/<name of CONFIG>)")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint of the run folder")
    parser.add_argument(
        OVERFIT,
        type=count_up_to(1_000_000, least=1),
        nargs="?",
        const=STEPS,
        metavar="STEPS",
        help=f"train on one batch alone to see whether the network can learn it; writes nothing (default: {STEPS} steps)",
    )
    return parser


def with_steps(arguments: list[str]) -> list[str]:
    """`arguments` with STEPS behind an --overfit-one-batch that has another argument, such as KEY=VALUE, behind it."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=False)
    added = [
        [text, str(STEPS)] if text == OVERFIT and not follower.lstrip("-").isdecimal() else [text] for text, follower in pairs
    ]
    return [text for texts in added for text in texts]


def main(arguments: list[str] | None = None) -> None:
    """Train, or overfit one batch."""
    given = parse(build_parser(), with_steps(sys.argv[1:] if arguments is None else arguments))
    from segnet.config.loading import load_config
    from segnet.prediction.outputs import shown_outputs
    from segnet.system.devices import choose_device, describe_device, keep_freed_memory
    from segnet.system.distributed import is_main, restarted
    from segnet.system.errors import ExitCode, UserError
    from segnet.tasks.choice import build_task
    from segnet.training.loop import train
    from segnet.training.overfitting import overfit_one_batch
    from segnet.training.precision import describe_arithmetic
    from segnet.training.reporting import describe_best

    config = load_config(given.config, given.overrides)
    run = given.run or Path("runs") / given.config.stem
    device = choose_device(config.device)
    keep_freed_memory()
    where = f"{describe_device(device)} in {describe_arithmetic(config.train, device)}"
    if given.overfit_one_batch:
        print(f"overfit one batch of {given.config} on {where}", flush=True)
        measure, learnt = overfit_one_batch(config, given.overfit_one_batch)
        print(f"{measure.text} on that batch after {given.overfit_one_batch} steps")
        if not learnt:
            remedy = "give it more STEPS or another optim.lr; if that does not help, look at the pictures and masks"
            raise UserError(ExitCode.NUMERIC, given.config, "the network did not learn a single batch", remedy)
        return
    if is_main():
        print(f"train {given.config} on {where} into {run}", flush=True)
    best = train(config, run, resume=given.resume or restarted())
    if is_main() and best.exists():
        print(f"best network: {best} ({describe_best(run, build_task(config).best)})")
        print(as_started(f"score it:     segnet evaluate {quote(str(run))}"))
        outputs, predictions = ",".join(shown_outputs(config.task)), quote(f"{run}/predictions")
        print(as_started(f"use it:       segnet predict {quote(str(run))} PICTURES --out {predictions} --save {outputs}"))
