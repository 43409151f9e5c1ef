"""Train recipes with several seeds, score them, and write the table of results: mean ± standard deviation, and what it cost.

examples:
  segnet results configs/camvid_segnet.yaml configs/camvid_segnet_plain.yaml --seeds 0 1 2
  segnet results configs/camvid_segnet_cpu.yaml --splits val test --tta
  segnet results configs/leaves.yaml --folds 5 --minutes 9

A recipe is a configuration. This command trains and evaluates each one by the commands train and evaluate, which it prints.
What is complete is not repeated: give the same command again to continue, or to add recipes, seeds and splits. With --minutes
it stops in time and prints how many runs are left. Choose recipes on val; score test once. With --folds K every seed is
trained K times, on the lists train_0, val_0, … that `segnet split DIR --folds K` writes. The table then has the mean ±
standard deviation of the folds, and the score of the sum of their confusion matrices, in which every picture counts once. It
writes under --out: <recipe>/seed<N> or seed<N>-fold<F>, the run folders; results.json, with every number and the curves;
results.md, the table. Two evaluations are compared by `segnet compare`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from segnet.commands.parsers import command_parser, complete_configs, parse
from segnet.system.command_line import count_up_to


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("results", __doc__)
    recipes = parser.add_argument(
        "recipes", nargs="+", metavar="CONFIG|KEY=VALUE", help="recipes: YAML files or names; KEY=VALUE overrides all of them"
    )
    complete_configs(recipes)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides", help=argparse.SUPPRESS)
    parser.add_argument(
        "--seeds",
        type=count_up_to(2**31),
        nargs="+",
        default=[0],
        metavar="N",
        help="seeds; each trains every recipe once (default: 0)",
    )
    parser.add_argument(
        "--folds", type=count_up_to(100, least=2), default=0, metavar="K", help="train on each of K folds of the data"
    )
    parser.add_argument("--splits", nargs="+", default=["val"], metavar="NAME", help="splits to score on (default: val)")
    parser.add_argument("--tta", action="store_true", help="score also with test-time augmentation: three scales, mirrored")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), metavar="N", help="stop after N minutes; the same command continues"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/results"),
        metavar="DIR",
        help="folder of the runs and the table (default: runs/results)",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Train and score what is not done yet, and print the table."""
    parser = build_parser()
    given = parse(parser, arguments, mixed=True)
    from segnet.benchmarks.recipes import Comparison, Row
    from segnet.config.arguments import split_overrides
    from segnet.config.loading import load_config
    from segnet.system.errors import config_error

    names, overrides = split_overrides(given.recipes)
    overrides += given.overrides
    if not names:
        parser.error("name a CONFIG")
    configs = {Path(name): load_config(name, overrides) for name in names}
    for recipe, config in configs.items():
        if config.task != "segmentation":
            remedy = "train it with segnet train CONFIG seed=N for each seed, and compare two of its runs with segnet compare"
            raise config_error(recipe, f"task: {config.task}, whose measures this table does not have", remedy)
    views = [False, True] if given.tta else [False]
    comparison = Comparison(
        configs=configs,
        overrides=overrides,
        seeds=given.seeds,
        rows=[Row(recipe, split, tta) for recipe in configs for split in given.splits for tta in views],
        out=given.out,
        folds=given.folds,
    )
    waiting = comparison.run(time.monotonic() + 60 * given.minutes)
    runs = len(configs) * len(comparison.trials)
    print(f"{waiting} of {runs} runs wait: give the command again" if waiting else "complete")
