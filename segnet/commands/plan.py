"""Measure a data set and this machine, and write a configuration whose every key has a reason.

examples:
  segnet plan data/leaves > configs/leaves.yaml
  segnet plan data/leaves --hours 0.5 --memory 8 --weights vgg16 > configs/leaves.yaml
  segnet plan --check runs/leaves

The configuration goes to stdout, the facts and what was chosen because of them to stderr. DATA is a folder in VOC's layout with
classes.yaml, as `prepare` and `import` write it. --check compares the forecast with what a run took.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from segnet.commands.parsers import above_zero, command_parser, parse


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("plan", __doc__)
    parser.add_argument(
        "source", type=Path, nargs="?", metavar="DATA", help="a data folder; with --check, the file that plan wrote for the run"
    )
    parser.add_argument(
        "--hours",
        type=above_zero,
        default=1.0,
        metavar="H",
        help="hours that training may take, evaluations included (default: 1)",
    )
    parser.add_argument(
        "--memory", type=above_zero, metavar="GB", help="memory that training may use, GB (default: what is free)"
    )
    parser.add_argument(
        "--weights", metavar="FILE|vgg16", help="initial weights of the encoder, those of a VGG16; the network is then SegNet"
    )
    parser.add_argument(
        "--check", type=Path, metavar="RUN", help="compare the forecast with the time and memory that this run took"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Print a configuration, or with --check what came of its forecast."""
    parser = build_parser()
    given = parse(parser, arguments)
    from segnet.planning.planner import Budget, make_plan
    from segnet.planning.review import review
    from segnet.planning.writing import plan_table, plan_yaml
    from segnet.system.streams import printing_is_the_result

    printing_is_the_result()
    if given.check:
        print(review(given.check, given.source))
        return
    if not given.source:
        parser.error("give DATA, or --check RUN")
    plan = make_plan(given.source, Budget(given.hours, given.memory, given.weights))
    print(plan_table(plan), file=sys.stderr, flush=True)
    sys.stdout.write(plan_yaml(plan, given.source))
