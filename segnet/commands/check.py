"""Name every fault of a data set at once (exit code 3), and count its classes.

examples:
  segnet check configs/sample.yaml
  segnet check data/leaves
  segnet check configs/voc_segnet.yaml --split val --json report.json

CONFIG is a configuration; DIR a data folder with a classes.yaml, all of whose splits are checked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from segnet.commands.parsers import Subcommands, add_command, add_overrides, command_parser, complete_configs, parse
from segnet.system.errors import ExitCode

if TYPE_CHECKING:
    from segnet.data.checking import CheckReport


def define(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser, to which the arguments of the command and what it runs are added."""
    source = parser.add_argument(
        "source", type=Path, metavar="CONFIG|DIR", help="a configuration, or a data folder with classes.yaml"
    )
    complete_configs(source)
    add_overrides(parser)
    parser.add_argument(
        "--split", action="append", help="check only this split; repeatable (default: train and val; for a DIR all)"
    )
    parser.add_argument("--verbose", action="store_true", help="print a line for every fault, also where many have one cause")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")

    def run(given: argparse.Namespace) -> ExitCode | None:
        from segnet.commands.sources import data_of, is_folder
        from segnet.config.advice import zoom_warnings
        from segnet.config.data_folder import class_warnings
        from segnet.config.loading import load_config
        from segnet.data.check_report import report_json
        from segnet.data.checking import check_dataset, list_splits, lists_that_lack, other_texts
        from segnet.system.errors import config_error, data_error
        from segnet.system.files import write_text
        from segnet.system.streams import printing_is_the_result

        data = data_of(given.source, given.overrides)
        if data.classes == "none":
            remedy = "train it: segnet train and segnet evaluate name pictures and pairs that they cannot use"
            raise config_error(given.source, "has no masks to check: it is for task denoise", remedy)
        root = Path(data.root)
        named = [data.train_split, data.val_split]
        if given.source.is_dir():
            there = list_splits(root)
            named = [*there, *lists_that_lack(there)]
        disjoint = (data.train_split, data.val_split)
        report = check_dataset(
            root, given.split or named, data.class_set, bands=data.bands, disjoint=disjoint, train=data.train_split
        )
        zooms = [] if is_folder(given.source) else zoom_warnings(load_config(given.source, given.overrides))
        warnings = [*class_warnings(data), *zooms, *report.warnings]
        if given.source.is_dir() and not given.split:
            found, remedy = "names no picture, so it is no list of a split", "if it is one, name it with --split"
            warnings += [data_error(path, found, remedy) for path in other_texts(root)]
        report = report._replace(warnings=warnings)
        if given.json:
            write_text(given.json, report_json(report))
        elif not report.faults:
            printing_is_the_result()
        _print_report(report, verbose=given.verbose)
        return ExitCode.DATA if report.faults else None

    parser.set_defaults(run=run)
    return parser


def add_to(commands: Subcommands) -> None:
    """Add the command as a subcommand."""
    define(add_command(commands, "check", __doc__))


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command alone."""
    return define(command_parser("check", __doc__))


def main(arguments: list[str] | None = None) -> ExitCode | None:
    """Check, and print a table and the faults."""
    given = parse(build_parser(), arguments)
    return given.run(given)


def _print_report(report: CheckReport, *, verbose: bool) -> None:
    """The table on stdout, faults and warnings on stderr."""
    from segnet.data.check_report import fault_lines, report_table

    if table := report_table(report):
        print(table, flush=True)
    for line in fault_lines(report, verbose=verbose):
        print(line, file=sys.stderr)
    count = len(report.faults)
    print(f"{count or 'no'} fault{'' if count == 1 else 's'}", flush=True)
