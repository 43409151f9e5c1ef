"""Make a data set ready: the layout of Pascal VOC, proven.

examples:
  python scripts/prepare_data.py sample
  python scripts/prepare_data.py voc --from-archive VOCtrainval_11-May-2012.tar
  python scripts/prepare_data.py camvid --root data/camvid
"""

import argparse
from pathlib import Path

from segnet.errors import run_command
from segnet.preparation import PUBLIC_SETS, Prepared, generate_sample, prepare

ABOUT = {
    "voc": "Pascal VOC 2012: 1,464 train, 1,449 val (2 GB download)",
    "sbd": "add SBD to a prepared VOC: split trainaug with 10,582 pictures (1.4 GB download, needs scipy)",
    "camvid": "CamVid road scenes in the SegNet paper's split: 367 train, 101 val, 233 test",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sample = commands.add_parser("sample", help="generate pictures of balls, crates, cones, rings and stars")
    sample.add_argument("--root", type=Path, default=Path("data/sample"), metavar="DIR", help="default: data/sample")
    sample.add_argument("--count", type=int, default=300, help="pictures, a fifth of them for val (default: 300)")
    sample.add_argument("--seed", type=int, default=0, help="the same seed gives the same pictures (default: 0)")
    for name in PUBLIC_SETS:
        public, root = commands.add_parser(name, help=ABOUT[name]), "data/camvid" if name == "camvid" else "data/voc"
        public.add_argument("--root", type=Path, default=Path(root), metavar="DIR", help=f"default: {root}")
        public.add_argument("--from-archive", type=Path, action="append", metavar="FILE", help="instead of a download")
    arguments = parser.parse_args()
    if arguments.command == "sample":
        if arguments.count < 5 or arguments.seed < 0:
            parser.error("--count is 5 or more, so that a picture is left for val; --seed is 0 or more")
        done = Prepared(generate_sample(arguments.root, seed=arguments.seed, count=arguments.count), changed=True)
    else:
        archives = arguments.from_archive or [None]
        if len(archives) > 1:
            parser.error(f"{arguments.command} has one archive; give --from-archive once")
        done = prepare(arguments.command, arguments.root, archives[0])
    counts = ", ".join(f"{count} {split}" for split, count in done.counts.items())
    print(f"{arguments.root}: {counts}" + ("" if done.changed else " (complete already: nothing to do)"))


if __name__ == "__main__":
    run_command(main)
