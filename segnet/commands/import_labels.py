"""Write the labels of SOURCE exactly as masks, in a data folder with the layout of Pascal VOC.

examples:
  segnet import export.zip --out data/leaves --unlabelled background
  segnet import photos --masks 'labels/{name}_mask.png' --foreground --out data/leaves
  segnet import instances.json --pictures photos --out data/leaves --config configs/leaves.yaml

SOURCE is a folder, a zip, or a JSON or XML file. Its format is recognised by its files: CVAT segmentation mask 1.1, CVAT
for images 1.1, Pascal VOC, COCO JSON, LabelMe JSON, Roboflow semantic masks, Ultralytics polygons, Label Studio JSON,
Supervisely, Cityscapes, ADE20K scene parsing, or pairs of pictures and masks. If SOURCE has no lists of train
and val, all pictures are in the list `all`: divide it with `split`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from segnet.commands.choices import LABEL_FORMATS, OVERLAPS, UNLABELLED
from segnet.commands.parsers import Subcommands, add_command, command_parser, parse
from segnet.system.errors import ExitCode, UserError


def define(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser, to which the arguments of the command and what it runs are added."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a folder, a zip, or a JSON or XML file of labels")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data folder to write")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="the folder of the pictures, if SOURCE has none")
    parser.add_argument("--masks", default="", metavar="PATTERN", help="path in SOURCE of the mask of picture {name}")
    parser.add_argument("--foreground", action="store_true", help="every value of a mask above 0 is one class")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="the order of the classes: a name a line, or a YAML file")
    meant = "which shape gets the pixels where shapes of several classes overlap (default: the rule of the tool)"
    parser.add_argument("--overlap", choices=OVERLAPS, help=meant)
    meant = "make a picture without any label background, make it ignored (not trained, not scored), or skip it"
    parser.add_argument("--unlabelled", choices=UNLABELLED, help=meant)
    which = f"the format, if the files fit several: {', '.join(LABEL_FORMATS)}"
    parser.add_argument("--format", choices=LABEL_FORMATS, metavar="NAME", help=which)
    parser.add_argument("--config", type=Path, metavar="FILE", help="also write a configuration to train with")
    parser.add_argument("--verbose", action="store_true", help="name every fault, also those of one kind")

    def run(given: argparse.Namespace) -> None:
        from segnet.importing.class_file import read_class_file
        from segnet.importing.recipe import write_recipe
        from segnet.importing.report import import_table
        from segnet.importing.source import Choices, merged_error
        from segnet.importing.writing import import_set

        lines = read_class_file(given.classes) if given.classes else None
        choices = Choices(lines, given.overlap, given.pictures, given.masks, given.foreground)
        try:
            result = import_set(given.source, given.out, choices, unlabelled=given.unlabelled, name=given.format)
        except UserError as error:
            raise error if given.verbose else merged_error(error) from None
        print(import_table(result, given.out))
        if given.config:
            print(write_recipe(given.config, given.out, result))

    parser.set_defaults(run=run)
    return parser


def add_to(commands: Subcommands) -> None:
    """Add the command as a subcommand."""
    define(add_command(commands, "import", __doc__))


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command alone."""
    return define(command_parser("import", __doc__))


def main(arguments: list[str] | None = None) -> ExitCode | None:
    """Import a labelled set."""
    given = parse(build_parser(), arguments)
    return given.run(given)
