"""Make a data set ready: the layout of Pascal VOC, checked.

examples:
  python scripts/prepare_data.py sample
  python scripts/prepare_data.py sample --root data/more --count 1000 --seed 1
  python scripts/prepare_data.py sample --count 20 --root /tmp/few
"""

import argparse
from pathlib import Path

from segnet.errors import run_command
from segnet.preparation import generate_sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sample = commands.add_parser("sample", help="generate pictures of balls, crates, cones, rings and stars")
    sample.add_argument("--root", type=Path, default=Path("data/sample"), metavar="DIR", help="default: data/sample")
    sample.add_argument("--count", type=int, default=300, help="pictures, a fifth of them for val (default: 300)")
    sample.add_argument("--seed", type=int, default=0, help="the same seed gives the same pictures (default: 0)")
    arguments = parser.parse_args()
    if arguments.count < 5 or arguments.seed < 0:
        parser.error("--count is 5 or more, so that a picture is left for val; --seed is 0 or more")
    counts = generate_sample(arguments.root, seed=arguments.seed, count=arguments.count)
    print(f"{arguments.root}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))


if __name__ == "__main__":
    run_command(main)
