"""Compare two evaluations of one split: the differences of their measures, such as mIoU, with their intervals.

examples:
  segnet compare runs/first runs/second
  segnet compare runs/first runs/second --split test --json difference.json
  segnet compare runs/camvid/evaluation/val /tmp/scores --samples 100000

A and B are run folders that evaluate has scored, or folders that it wrote. The interval is a bootstrap over pictures: it
covers the choice of the pictures in the split, not the difference between two trainings with different seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from segnet.commands.parsers import command_parser, parse
from segnet.system.command_line import count_up_to


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("compare", __doc__)
    parser.add_argument("a", type=Path, metavar="A", help="a run folder, or a folder that evaluate wrote")
    parser.add_argument("b", type=Path, metavar="B", help="another one; the differences are B - A")
    parser.add_argument("--split", help="split whose evaluations are compared (default: data.val_split of each run)")
    samples = count_up_to(1_000_000, least=1)
    parser.add_argument("--samples", type=samples, default=10_000, help="number of bootstrap resamples (default: 10000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers into this file")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Compare, and print the table."""
    given = parse(build_parser(), arguments)
    from segnet.evaluation.restoration_results import is_restoration
    from segnet.evaluation.results import find_evaluation
    from segnet.system.files import write_text
    from segnet.system.streams import printing_is_the_result

    folders = [find_evaluation(path, given.split) for path in (given.a, given.b)]
    compared = _compare_restorations if any(map(is_restoration, folders)) else _compare_counts
    found = compared(given, *folders)
    if given.json:
        write_text(given.json, found.json)
    else:
        printing_is_the_result()
    print(f"A {given.a}\nB {given.b}\n{found.pictures} pictures of {found.split}, {given.samples} resamples")
    print(found.table)
    if given.json:
        print(f"written: {given.json}")


class _Compared(NamedTuple):
    """A comparison as text."""

    split: str
    pictures: int
    table: str
    json: str


def _compare_counts(given: argparse.Namespace, *_: Path) -> _Compared:
    from segnet.evaluation.comparison import compare, comparison_json, comparison_table, refuse_unlike
    from segnet.evaluation.results import read_counts

    a, b = (read_counts(path, given.split) for path in (given.a, given.b))
    refuse_unlike(a, b, given.b)
    comparison = compare(a, b, given.samples)
    return _Compared(a.split, len(a.ids), comparison_table(comparison), comparison_json(comparison))


def _compare_restorations(given: argparse.Namespace, *folders: Path) -> _Compared:
    from segnet.evaluation.restoration_comparison import (
        compare_restorations,
        refuse_unlike_restorations,
        restoration_comparison_json,
        restoration_comparison_table,
    )
    from segnet.evaluation.restoration_results import read_restoration

    a, b = map(read_restoration, folders)
    refuse_unlike_restorations(a, b, given.b)
    comparison = compare_restorations(a, b, given.samples)
    table, document = restoration_comparison_table(comparison), restoration_comparison_json(comparison)
    return _Compared(a.split, len(a.ids), table, document)
