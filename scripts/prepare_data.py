"""Prepare a dataset in the layout of Pascal VOC, check one, or convert its masks.

examples:
  python scripts/prepare_data.py sample
  python scripts/prepare_data.py voc --from-archive VOCtrainval_11-May-2012.tar
  python scripts/prepare_data.py check configs/sample.yaml

`convert` turns masks of other conventions (class colours, 0 and 255, other ids) into masks of class ids.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from segnet.config.data_folder import class_warnings, load_data_folder
from segnet.config.loading import load_config
from segnet.config.sections import DataConfig
from segnet.data.check_report import fault_lines, report_json, report_table
from segnet.data.checking import DISJOINT, CheckReport, check_dataset, list_splits, other_texts
from segnet.data.listing import left_out, left_out_warning, list_pictures
from segnet.importing.class_file import read_class_file
from segnet.importing.recipe import write_recipe
from segnet.importing.recognition import FORMATS, NAMES
from segnet.importing.report import import_table
from segnet.importing.source import Choices, Overlap, merged_error
from segnet.importing.writing import Unlabelled, import_set
from segnet.preparation.masks import convert_masks, parse_rules
from segnet.preparation.plan import Prepared
from segnet.preparation.public_sets import PUBLIC_SETS
from segnet.preparation.sample import generate_sample
from segnet.preparation.unpacking import prepare
from segnet.system.command_line import run_command
from segnet.system.errors import ExitCode, UserError, data_error
from segnet.system.files import write_text
from segnet.system.streams import printing_is_the_result

ABOUT = {
    "voc": "Pascal VOC 2012: 1,464 train, 1,449 val (2 GB download)",
    "sbd": "add SBD to a prepared VOC: split trainaug with 10,582 pictures (1.4 GB download, needs scipy)",
    "camvid": "CamVid road scenes in the SegNet paper's split: 367 train, 101 val, 233 test",
}


ABOUT_IMPORT = """\
examples:
  python scripts/prepare_data.py import export.zip --out data/leaves --unlabelled background
  python scripts/prepare_data.py import photos --masks 'labels/{name}_mask.png' --foreground --out data/leaves
  python scripts/prepare_data.py import instances.json --pictures photos --out data/leaves --config configs/leaves.yaml

Write the labels of SOURCE exactly as masks, in the layout of Pascal VOC. SOURCE is a folder, a zip or a JSON file. Its format is
recognised by its files: %s, or pairs of pictures and masks. A set without lists gets the list all, which `split` divides."""


def main() -> ExitCode | None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    _define_sample(commands.add_parser("sample", help="generate pictures of balls, crates, cones, rings and stars"))
    for name in PUBLIC_SETS:
        _define_public(commands.add_parser(name, help=ABOUT[name]), "data/camvid" if name == "camvid" else "data/voc")
    about = "name every fault of a data set at once (exit code 3), and count its classes"
    _define_check(commands.add_parser("check", help=about))
    about = "make masks of colours, of 0 and 255 or of other ids fit; exact or refused"
    _define_convert(commands.add_parser("convert", help=about))
    about = "make a data folder of what a labelling tool exported, exactly"
    _define_import(commands.add_parser("import", help=about, formatter_class=parser.formatter_class))
    arguments = parser.parse_args()
    code: ExitCode | None = arguments.run(arguments)
    return code


def _define_sample(sample: argparse.ArgumentParser) -> None:
    sample.add_argument("--root", type=Path, default=Path("data/sample"), metavar="DIR", help="default: data/sample")
    sample.add_argument("--count", type=int, default=300, help="pictures, a fifth of them for val (default: 300)")
    sample.add_argument("--seed", type=int, default=0, help="the same seed gives the same pictures (default: 0)")

    def run(arguments: argparse.Namespace) -> None:
        if arguments.count < 5 or arguments.seed < 0:
            sample.error("--count is 5 or more, so that a picture is left for val; --seed is 0 or more")
        counts = generate_sample(arguments.root, seed=arguments.seed, count=arguments.count)
        _print_counts(arguments.root, Prepared(counts, changed=True))

    sample.set_defaults(run=run)


def _define_public(public: argparse.ArgumentParser, root: str) -> None:
    public.add_argument("--root", type=Path, default=Path(root), metavar="DIR", help=f"default: {root}")
    public.add_argument("--from-archive", type=Path, action="append", metavar="FILE", help="instead of a download")
    public.set_defaults(run=_prepare_public)


def _prepare_public(arguments: argparse.Namespace) -> None:
    archive, *others = arguments.from_archive or [None]
    if others:
        found = f"{1 + len(others)} archives; {arguments.command} has one"
        raise UserError(ExitCode.CONFIG, "--from-archive", found, "give it once")
    _print_counts(arguments.root, prepare(arguments.command, arguments.root, archive))


def _print_counts(root: Path, done: Prepared) -> None:
    counts = ", ".join(f"{count} {split}" for split, count in done.counts.items())
    print(f"{root}: {counts}" + ("" if done.changed else " (complete already: nothing to do)"))


def _define_check(check: argparse.ArgumentParser) -> None:
    check.add_argument("source", type=Path, metavar="CONFIG|DIR", help="a configuration, or a data folder with classes.yaml")
    check.add_argument("--split", action="append", help="only this split; repeatable (default: train and val; of a DIR: all)")
    check.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")

    def run(arguments: argparse.Namespace) -> ExitCode | None:
        data = _data_of(arguments.source)
        root = Path(data.root)
        named = list_splits(root) if arguments.source.is_dir() else [data.train_split, data.val_split]
        disjoint = (*DISJOINT, data.train_split, data.val_split)
        report = check_dataset(root, arguments.split or named, data.class_set, disjoint=disjoint, train=data.train_split)
        warnings = [*class_warnings(data), *report.warnings]
        if arguments.source.is_dir() and not arguments.split:
            found, remedy = "names no picture, so it is no list of a split", "if it is one, name it with --split"
            warnings += [data_error(path, found, remedy) for path in other_texts(root)]
        report = report._replace(warnings=warnings)
        if arguments.json:
            write_text(arguments.json, report_json(report))
        elif not report.faults:
            printing_is_the_result()
        _print_report(report)
        return ExitCode.DATA if report.faults else None

    check.set_defaults(run=run)


def _print_report(report: CheckReport) -> None:
    """The table on stdout, faults and warnings on stderr."""
    print(report_table(report), flush=True)
    for fault in fault_lines(report):
        print(f"error: {fault}", file=sys.stderr)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{len(report.faults)} faults" if report.faults else "no faults", flush=True)


def _define_convert(convert: argparse.ArgumentParser) -> None:
    convert.add_argument("masks", type=Path, metavar="MASKS", help="a folder of masks, which stays as it is")
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the palette PNGs go")
    convert.add_argument("--classes", type=Path, metavar="CONFIG|DIR", help="whose colours become ids")
    convert.add_argument("--map", action="append", default=[], metavar="OLD=NEW", help="id (or R,G,B) to id; repeatable")
    meant = "what is meant where a palette's numbers and colours disagree, and the mask does not tell"
    convert.add_argument("--palette", choices=["index", "color"], help=meant)
    convert.add_argument("--overwrite", action="store_true", help="replace masks in DIR that differ")

    def run(arguments: argparse.Namespace) -> ExitCode | None:
        if not arguments.classes and not arguments.map:
            convert.error("give --classes, --map or both")
        classes = _data_of(arguments.classes).class_set if arguments.classes else None
        rules = parse_rules(classes, arguments.map, palette=arguments.palette)
        done = convert_masks(arguments.masks, arguments.out, rules, overwrite=arguments.overwrite)
        print(f"{arguments.out}: {done.written} masks written, {done.same} were there already, {len(done.failed)} failed")
        if left := left_out(list_pictures(arguments.masks)):
            print(f"warning: {left_out_warning(left)}", file=sys.stderr)
        for error in done.failed:
            print(f"error: {error}", file=sys.stderr)
        return ExitCode.SOME_FAILED if done.failed else None

    convert.set_defaults(run=run)


def _define_import(importing: argparse.ArgumentParser) -> None:
    importing.description = ABOUT_IMPORT % ", ".join(known.title for known in FORMATS.values())
    importing.add_argument("source", type=Path, metavar="SOURCE", help="a folder, a zip, or a JSON file of labels")
    importing.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data folder to write")
    importing.add_argument("--pictures", type=Path, metavar="DIR", help="the pictures, where SOURCE has none")
    importing.add_argument("--masks", default="", metavar="PATTERN", help="where the mask of picture {name} is, from SOURCE")
    importing.add_argument("--foreground", action="store_true", help="every value of a mask above 0 is one class")
    importing.add_argument("--classes", type=Path, metavar="FILE", help="the order of the classes: a name a line, or a YAML file")
    meant = "whose pixels they are where shapes of several classes overlap (default: the rule of the tool)"
    importing.add_argument("--overlap", choices=get_args(Overlap), help=meant)
    meant = "what a picture without any label becomes: background, not scored, or left out"
    importing.add_argument("--unlabelled", choices=get_args(Unlabelled), help=meant)
    importing.add_argument("--format", choices=NAMES, help="where the files tell of several")
    importing.add_argument("--config", type=Path, metavar="FILE", help="write a configuration to train with")
    importing.add_argument("--verbose", action="store_true", help="name every fault, also those of one kind")

    def run(arguments: argparse.Namespace) -> None:
        lines = read_class_file(arguments.classes) if arguments.classes else None
        choices = Choices(lines, arguments.overlap, arguments.pictures, arguments.masks, arguments.foreground)
        try:
            result = import_set(arguments.source, arguments.out, choices, unlabelled=arguments.unlabelled, name=arguments.format)
        except UserError as error:
            raise error if arguments.verbose else merged_error(error) from None
        print(import_table(result, arguments.out))
        if arguments.config:
            print(write_recipe(arguments.config, arguments.out, result))

    importing.set_defaults(run=run)


def _data_of(source: Path) -> DataConfig:
    """The data section of a configuration, or one for a data folder with a classes.yaml."""
    folder = source.is_dir() or not (source.suffix or source.exists())
    return load_data_folder(source) if folder else load_config(source).data


if __name__ == "__main__":
    run_command(main)
