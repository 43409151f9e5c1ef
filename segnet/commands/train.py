"""Train a network from a YAML file.

examples:
  segnet train configs/sample.yaml
  segnet train configs/voc_segnet.yaml train.epochs=5 device=cpu --run runs/short
  segnet train configs/voc_segnet.yaml --resume

`torchrun --standalone --nproc-per-node 4 -m segnet train …` divides each batch among four GPUs (or processes). After a
failure its --max-restarts=1 continues by itself from the newest checkpoint; docs/slurm.md says more of clusters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from segnet.commands.parsers import command_parser
from segnet.system.invocation import as_started


def _steps(text: str) -> int:
    steps = int(text)
    if steps < 1:
        raise argparse.ArgumentTypeError(f"{steps} steps; at least 1")
    return steps


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("train", __doc__)
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="a YAML file, or the name of one that comes with the program, e.g. sample"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration overrides")
    parser.add_argument("--run", type=Path, metavar="DIR", help="run folder (default: runs/<name of CONFIG>)")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint of the run folder")
    parser.add_argument(
        "--overfit-one-batch", type=_steps, nargs="?", const=200, metavar="STEPS", help="see whether it can learn one batch (200)"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Train, or overfit one batch."""
    given = build_parser().parse_intermixed_args(arguments)
    from segnet.config.loading import load_config
    from segnet.prediction.outputs import shown_outputs
    from segnet.system.devices import choose_device, describe_device, keep_freed_memory
    from segnet.system.distributed import is_main, restarted
    from segnet.system.errors import ExitCode, UserError
    from segnet.tasks.choice import build_task
    from segnet.training.loop import train
    from segnet.training.overfitting import overfit_one_batch
    from segnet.training.precision import choose_train_precision
    from segnet.training.reporting import describe_best

    config = load_config(given.config, given.overrides)
    run = given.run or Path("runs") / given.config.stem
    device = choose_device(config.device)
    keep_freed_memory()
    where = f"{describe_device(device)} in {choose_train_precision(config.train, device)}"
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
        print(as_started(f"score it:     segnet evaluate {run}"))
        outputs = ",".join(shown_outputs(config.task))
        print(as_started(f"use it:       segnet predict {run} PICTURES --out {run}/predictions --save {outputs}"))
