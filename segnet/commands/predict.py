"""Predict masks of pictures and videos, or restore pictures.

examples:
  segnet predict runs/sample street.jpg --out masks
  segnet predict runs/sample data/sample/JPEGImages --out masks --save mask,overlay inference.flip=horizontal
  segnet predict runs/camvid/last.pt "drive/**/*.png" --out masks --save mask,uncertainty,json --overwrite

An input is a picture, a video, a folder (searched recursively) or a quoted glob. If the command was stopped, give it again to
continue. Under torchrun the ranks share the pictures.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from segnet.commands.choices import OUTPUTS, POLYGON_FORMATS, RESTORED_OUTPUTS
from segnet.commands.parsers import command_parser, parse
from segnet.system.errors import ExitCode

if TYPE_CHECKING:
    from segnet.prediction.areas import PixelSize


_OF_DENOISING = f"of denoising {', '.join(RESTORED_OUTPUTS)}"


def _pixel_size(text: str) -> PixelSize:
    from segnet.prediction.areas import PixelSize

    return PixelSize.of(text)


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("predict", __doc__)
    source_help = "a run folder (its best checkpoint) or a checkpoint; of several, A,B,C, the probabilities are averaged"
    parser.add_argument("source", metavar="RUN|CHECKPOINT", help=source_help)
    inputs_help = (
        "a picture, a folder, a quoted glob or a video; KEY=VALUE overrides the configuration: inference.flip=horizontal"
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT|KEY=VALUE", help=inputs_help)
    parser.add_argument("--split", metavar="NAME", help="predict the pictures of this split of the run's data, e.g. val")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the outputs")
    save_help = f"comma-separated kinds of output: {', '.join(OUTPUTS)} (default: mask); {_OF_DENOISING}"
    parser.add_argument("--save", metavar="KINDS", help=save_help)
    polygons_help = f"also write the polygons of all pictures for another tool: {', '.join(POLYGON_FORMATS)}"
    parser.add_argument("--polygons", choices=POLYGON_FORMATS, metavar="FORMAT", help=polygons_help)
    simplify_help = (
        "leave out corners of polygons that are at most PX pixels from the simplified outline; prints the IoU that is lost"
    )
    parser.add_argument("--simplify", type=float, default=0.0, metavar="PX", help=simplify_help)
    size_help = "side of a pixel with its unit, such as 0.05mm; areas.csv then also has the areas in that unit"
    parser.add_argument("--pixel-size", type=_pixel_size, metavar="SIZE", help=size_help)
    rank_help = "also write ranking.csv, the pictures to label next: the least certain first, pictures like an earlier one last"
    parser.add_argument("--rank", action="store_true", help=rank_help)
    below_help = "pseudo-labels: pixels of the mask with a confidence below P become 255; needs evaluate RUN --calibrate"
    parser.add_argument("--below", type=float, default=0.0, metavar="P", help=below_help)
    suffix_help = "name the mask of a.jpg a.jpg.png instead of a.png, for folders that also hold a picture a.png"
    parser.add_argument("--keep-suffix", action="store_true", help=suffix_help)
    parser.add_argument("--overwrite", action="store_true", help="predict every picture again and replace existing outputs")
    return parser


def main(arguments: list[str] | None = None) -> ExitCode:
    """Predict every picture that has no output yet."""
    given, named = parse_arguments(arguments)
    from segnet.commands.predicting import predict

    return predict(given, named)


def parse_arguments(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str] | None]:
    """The arguments, and the kinds of output that --save names; None without it."""
    parser = build_parser()
    given = parse(parser, arguments, mixed=True)
    save = None if given.save is None else [kind for kind in given.save.split(",") if kind]
    if save is not None and not (save and set(save) <= {*OUTPUTS, *RESTORED_OUTPUTS}):
        parser.error(f"--save {given.save}: choose from {', '.join(OUTPUTS)}, {_OF_DENOISING}")
    for wanted, kind in ((given.polygons, "polygons"), (given.rank, "ranking")):
        if wanted:
            save = ["mask"] if save is None else save
            save += [] if kind in save else [kind]
    if not 0 <= given.below <= 1:
        parser.error(f"--below {given.below:g}: expected 0 to 1")
    if not 0 <= given.simplify <= 1000:
        parser.error(f"--simplify {given.simplify:g}: expected 0 to 1000 pixels")
    changing = ("--simplify", "polygons", given.simplify), ("--pixel-size", "areas", given.pixel_size)
    for option, kind, value in (*changing, ("--below", "mask", given.below)):
        if value and kind not in (["mask"] if save is None else save):
            parser.error(f"{option} changes {kind} alone: add {kind} to --save")
    if not given.out:
        parser.error("--out: an empty name; . is this folder")
    return given, save
