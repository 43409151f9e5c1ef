"""Convert masks of colours, of 0 and 255 or of other ids into PNGs of class ids, exactly or not at all.

examples:
  segnet convert labels --list
  segnet convert labels --out masks --classes configs/camvid_segnet.yaml
  segnet convert labels --out masks --map 0=0 --map 255=1

MASKS is a folder, which is not changed. --list prints the values in it and proposes the command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from segnet.commands.parsers import Subcommands, add_command, command_parser, parse
from segnet.system.command_line import count_up_to
from segnet.system.errors import ExitCode

if TYPE_CHECKING:
    from segnet.classes import ClassSet


def define(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser, to which the arguments of the command and what it runs are added."""
    parser.add_argument("masks", type=Path, metavar="MASKS", help="a folder of masks, which is not changed")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder for the converted masks, palette PNGs")
    parser.add_argument("--list", action="store_true", help="only list the ids or colours, and propose the command")
    parser.add_argument(
        "--classes", type=Path, metavar="CONFIG|DIR", help="the configuration or data folder whose class colours become ids"
    )
    about = (
        "OLD is an id, a range of ids (1-254), R,G,B or '*', which is every value without a rule of its own, except 0 and black; "
        "NEW is an id; repeatable"
    )
    parser.add_argument("--map", action="append", default=[], metavar="OLD=NEW", help=about)
    meant = "read palette masks by their numbers or by their colours, where the two disagree and the mask does not tell"
    parser.add_argument("--palette", choices=["index", "color"], help=meant)
    about = "greys from N on become 1, others 0, also of JPEG; prints how many pixels were neither black nor white"
    parser.add_argument("--threshold", type=count_up_to(65535, least=1), metavar="N", help=about)
    about = "each colour becomes the nearest class colour, also of JPEG; prints how many pixels had no class colour"
    parser.add_argument("--nearest", action="store_true", help=about)
    parser.add_argument("--overwrite", action="store_true", help="replace masks in DIR that differ")
    parser.add_argument(
        "--keep-going", action="store_true", help="where a mask fails, write the others; without it nothing is written"
    )
    parser.add_argument("--verbose", action="store_true", help="print a line for every mask that fails")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON too")

    def run(given: argparse.Namespace) -> ExitCode | None:
        from segnet.commands.sources import data_of, warn_of_left_out
        from segnet.preparation.masks import conversion_json, conversion_lines, convert_masks, parse_rules
        from segnet.system.files import write_text

        classes = data_of(given.classes).mask_classes if given.classes else None
        if given.list:
            return _list_values(given.masks, classes, f"--classes {given.classes}")
        if not given.out:
            parser.error("give --out DIR, or --list")
        if not (given.classes or given.map or given.threshold):
            parser.error("give --classes, --map or --threshold; --list proposes one")
        options = {"palette": given.palette, "threshold": given.threshold, "nearest": given.nearest}
        rules = parse_rules(classes, given.map, **options)
        go_on = given.keep_going
        done = convert_masks(given.masks, given.out, rules, overwrite=given.overwrite, keep_going=go_on)
        if given.json:
            write_text(given.json, conversion_json(done))
        counts = f"{done.written} masks written, {done.same} were there already, {len(done.failed)} failed"
        stopped = bool(done.failed) and not go_on
        more = "; nothing was written: mend them, or write the others with --keep-going" if stopped else ""
        print(f"{given.out}: {counts}{more}", flush=True)
        warn_of_left_out(given.masks, arrays=False)
        for line in conversion_lines(done, given.masks, verbose=given.verbose):
            print(line, file=sys.stderr)
        if done.failed:
            return ExitCode.DATA if stopped else ExitCode.SOME_FAILED
        return None

    parser.set_defaults(run=run)
    return parser


def add_to(commands: Subcommands) -> None:
    """Add the command as a subcommand."""
    define(add_command(commands, "convert", __doc__))


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command alone."""
    return define(command_parser("convert", __doc__))


def main(arguments: list[str] | None = None) -> ExitCode | None:
    """Convert a folder of masks, or list its values."""
    given = parse(build_parser(), arguments)
    return given.run(given)


def _list_values(folder: Path, classes: ClassSet | None, source: str) -> ExitCode | None:
    """Print the values of the masks in a folder and the command that would convert them."""
    from segnet.commands.sources import warn_of_left_out
    from segnet.data.sample_files import merge_alike
    from segnet.preparation.mask_values import list_values, proposed_command, values_table
    from segnet.system.streams import printing_is_the_result

    printing_is_the_result()
    found = list_values(folder)
    for error in merge_alike(found.failed, lambda _: folder):
        print(f"error: {error}", file=sys.stderr)
    warn_of_left_out(folder, arrays=True)
    if found.masks:
        command, why = proposed_command(found, classes, source)
        print(f"{values_table(found)}\n{why}:\n  {command}", flush=True)
    return ExitCode.DATA if found.failed else None
