"""Compare two evaluations of one split: the differences of mIoU, accuracy and each class's IoU, with their intervals.

examples:
  python scripts/compare.py runs/first runs/second
  python scripts/compare.py runs/first runs/second --split test --json difference.json
  python scripts/compare.py runs/camvid/evaluation/val /tmp/scores --samples 100000

A and B are run folders that evaluate.py has scored, or folders that it wrote. The interval is a bootstrap over pictures: it
covers the choice of the pictures in the split, not the difference between two trainings with different seeds.
"""

import argparse
from pathlib import Path

from segnet.evaluation.comparison import compare, comparison_json, comparison_table, refuse_unlike
from segnet.evaluation.results import read_counts
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
    a, b = (read_counts(path, arguments.split) for path in (arguments.a, arguments.b))
    refuse_unlike(a, b, arguments.b)
    comparison = compare(a, b, arguments.samples)
    if arguments.json:
        write_text(arguments.json, comparison_json(comparison))
    else:
        printing_is_the_result()
    print(f"A {arguments.a}\nB {arguments.b}\n{len(a.ids)} pictures of {a.split}, {arguments.samples} resamples")
    print(comparison_table(comparison))
    if arguments.json:
        print(f"written: {arguments.json}")


if __name__ == "__main__":
    run_command(main)
