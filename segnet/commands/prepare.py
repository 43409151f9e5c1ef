"""Prepare a dataset in the layout of Pascal VOC, check one, convert its masks, or divide it into splits.

examples:
  segnet prepare sample
  segnet prepare voc --from-archive VOCtrainval_11-May-2012.tar
  segnet prepare pictures photos --out data/photos

`convert` turns masks of other conventions (class colours, 0 and 255, other ids) into masks of class ids. `split` writes the
lists of train and val, balanced by class pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segnet.commands.check import add_to as add_check
from segnet.commands.choices import PUBLIC_SETS
from segnet.commands.convert import add_to as add_convert
from segnet.commands.import_labels import add_to as add_import
from segnet.commands.parsers import command_parser, parse, share
from segnet.commands.split import add_to as add_split
from segnet.system.command_line import count_up_to
from segnet.system.errors import ExitCode, config_error

if TYPE_CHECKING:
    from segnet.preparation.plan import Prepared


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command and of its subcommands."""
    parser = command_parser("prepare", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _define_sample(commands.add_parser("sample", help="generate pictures of balls, crates, cones, rings and stars"))
    for name, about in PUBLIC_SETS.items():
        _define_public(commands.add_parser(name, help=about), "data/camvid" if name == "camvid" else "data/voc")
    about = "copy folders of pictures into a data folder without masks, for task denoise"
    _define_pictures(commands.add_parser("pictures", help=about))
    for add in (add_check, add_convert, add_split, add_import):
        add(commands)
    return parser


def main(arguments: list[str] | None = None) -> ExitCode | None:
    """Prepare a data set, or run a subcommand."""
    given = parse(build_parser(), arguments)
    return given.run(given)


def _define_sample(sample: argparse.ArgumentParser) -> None:
    sample.add_argument("--root", type=Path, default=Path("data/sample"), metavar="DIR", help="default: data/sample")
    sample.add_argument(
        "--count", type=count_up_to(1_000_000, least=5), default=300, help="pictures, a fifth of them for val (default: 300)"
    )
    about = "pictures of 160·N × 120·N pixels (default: 1)"
    sample.add_argument("--zoom", type=count_up_to(16, least=1), default=1, metavar="N", help=about)
    sample.add_argument("--seed", type=count_up_to(2**31), default=0, help="the same seed gives the same pictures (default: 0)")

    def run(given: argparse.Namespace) -> None:
        from segnet.preparation.plan import Prepared
        from segnet.preparation.sample import generate_sample

        counts = generate_sample(given.root, seed=given.seed, count=given.count, zoom=given.zoom)
        _print_counts(given.root, Prepared(counts, changed=True))

    sample.set_defaults(run=run)


def _define_public(public: argparse.ArgumentParser, root: str) -> None:
    public.add_argument("--root", type=Path, default=Path(root), metavar="DIR", help=f"default: {root}")
    public.add_argument(
        "--from-archive",
        type=Path,
        action="append",
        metavar="FILE",
        help="read this archive instead of downloading it; repeatable",
    )
    public.set_defaults(run=_prepare_public)


def _prepare_public(given: argparse.Namespace) -> None:
    from segnet.preparation.unpacking import prepare

    archive, *others = given.from_archive or [None]
    if others:
        found = f"{1 + len(others)} archives; {given.command} has one"
        raise config_error("--from-archive", found, "give it once")
    _print_counts(given.root, prepare(given.command, given.root, archive))


def _print_counts(root: Path, done: Prepared) -> None:
    counts = ", ".join(f"{count} {split}" for split, count in done.counts.items())
    print(f"{root}: {counts}" + ("" if done.changed else " (complete already: nothing to do)"))


def _define_pictures(pictures: argparse.ArgumentParser) -> None:
    pictures.add_argument("train", type=Path, nargs="+", metavar="FOLDER", help="a folder of pictures to train on")
    pictures.add_argument(
        "--test",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="a folder of pictures for the test split; repeatable",
    )
    pictures.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data folder to write")
    about = "share of the FOLDER pictures that is held out as val (default: 0.1)"
    pictures.add_argument("--val", type=share, default=0.1, metavar="SHARE", help=about)
    about = "seed of the choice of the val pictures (default: 0)"
    pictures.add_argument("--seed", type=count_up_to(2**31), default=0, metavar="N", help=about)

    def run(given: argparse.Namespace) -> None:
        from segnet.commands.sources import warn_of_left_out
        from segnet.preparation.clean_pictures import copy_pictures

        done = copy_pictures(given.train, given.test, given.out, val=given.val, seed=given.seed)
        _print_counts(given.out, done)
        for folder in (*given.train, *given.test):
            warn_of_left_out(folder, arrays=True)

    pictures.set_defaults(run=run)
