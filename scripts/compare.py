"""Compare two evaluations of one split: the differences of their measures, such as mIoU, with their intervals.

examples:
  python scripts/compare.py runs/first runs/second
  python scripts/compare.py runs/first runs/second --split test --json difference.json
  python scripts/compare.py runs/camvid/evaluation/val /tmp/scores --samples 100000

A and B are run folders that evaluate.py has scored, or folders that it wrote. The interval is a bootstrap over pictures: it
covers the choice of the pictures in the split, not the difference between two trainings with different seeds.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from segnet.evaluation.comparison import compare, comparison_json, comparison_table, refuse_unlike
from segnet.evaluation.restoration_comparison import (
    compare_restorations,
    refuse_unlike_restorations,
    restoration_comparison_json,
    restoration_comparison_table,
)
from segnet.evaluation.restoration_results import is_restoration, read_restoration
from segnet.evaluation.results import find_evaluation, read_counts
from segnet.system.command_line import count_up_to, run_command
from segnet.system.files import write_text
from segnet.system.streams import printing_is_the_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, metavar="A", help="a run folder, or a folder that evaluate.py wrote")
    parser.add_argument("b", type=Path, metavar="B", help="another, compared with A")
    parser.add_argument("--split", help="split of the run folders (default: val)")
    samples = count_up_to(1_000_000, least=1)
    parser.add_argument("--samples", type=samples, default=10_000, help="resamples of the bootstrap (default: 10000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers into this file")
    arguments = parser.parse_args()
    folders = [find_evaluation(path, arguments.split) for path in (arguments.a, arguments.b)]
    compared = _compare_restorations if any(map(is_restoration, folders)) else _compare_counts
    found = compared(arguments, *folders)
    if arguments.json:
        write_text(arguments.json, found.json)
    else:
        printing_is_the_result()
    print(f"A {arguments.a}\nB {arguments.b}\n{found.pictures} pictures of {found.split}, {arguments.samples} resamples")
    print(found.table)
    if arguments.json:
        print(f"written: {arguments.json}")


class _Compared(NamedTuple):
    """A comparison as text."""

    split: str
    pictures: int
    table: str
    json: str


def _compare_counts(arguments: argparse.Namespace, *_: Path) -> _Compared:
    a, b = (read_counts(path, arguments.split) for path in (arguments.a, arguments.b))
    refuse_unlike(a, b, arguments.b)
    comparison = compare(a, b, arguments.samples)
    return _Compared(a.split, len(a.ids), comparison_table(comparison), comparison_json(comparison))


def _compare_restorations(arguments: argparse.Namespace, *folders: Path) -> _Compared:
    a, b = map(read_restoration, folders)
    refuse_unlike_restorations(a, b, arguments.b)
    comparison = compare_restorations(a, b, arguments.samples)
    table, document = restoration_comparison_table(comparison), restoration_comparison_json(comparison)
    return _Compared(a.split, len(a.ids), table, document)


if __name__ == "__main__":
    run_command(main)
