"""Prepare a dataset in the layout of Pascal VOC, check one, convert its masks, or divide it into splits.

examples:
  python scripts/prepare_data.py sample
  python scripts/prepare_data.py voc --from-archive VOCtrainval_11-May-2012.tar
  python scripts/prepare_data.py check configs/sample.yaml

`convert` turns masks of other conventions (class colours, 0 and 255, other ids) into masks of class ids. `split` writes the
lists of train and val, balanced by class pixels.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from segnet.classes import ClassSet
from segnet.config.advice import zoom_warnings
from segnet.config.data_folder import class_warnings, lists_folder, load_data_folder
from segnet.config.loading import load_config
from segnet.config.sections import DataConfig
from segnet.data.check_report import fault_lines, report_json, report_table
from segnet.data.checking import CheckReport, check_dataset, list_splits, lists_that_lack, other_texts
from segnet.data.listing import left_out, left_out_warning, list_pictures
from segnet.data.sample_files import merge_alike
from segnet.importing.class_file import read_class_file
from segnet.importing.recipe import write_recipe
from segnet.importing.recognition import FORMATS, NAMES
from segnet.importing.report import import_table
from segnet.importing.source import Choices, Overlap, merged_error
from segnet.importing.writing import Unlabelled, import_set
from segnet.preparation.clean_pictures import copy_pictures
from segnet.preparation.mask_values import list_values, proposed_command, values_table
from segnet.preparation.masks import conversion_json, conversion_lines, convert_masks, parse_rules
from segnet.preparation.plan import Prepared
from segnet.preparation.public_sets import PUBLIC_SETS
from segnet.preparation.sample import generate_sample
from segnet.preparation.splitting import split_dataset, split_table
from segnet.preparation.unpacking import prepare
from segnet.preparation.written_lists import Existing, SplitOptions
from segnet.system.command_line import count_up_to, run_command
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
    about = "copy folders of pictures into a data folder without masks, for task denoise"
    _define_pictures(commands.add_parser("pictures", help=about))
    about = "name every fault of a data set at once (exit code 3), and count its classes"
    _define_check(commands.add_parser("check", help=about))
    about = "make masks of colours, of 0 and 255 or of other ids fit; exact or refused"
    _define_convert(commands.add_parser("convert", help=about))
    about = "write the lists of train and val, of test, of folds: balanced by class pixels, groups kept together"
    _define_split(commands.add_parser("split", help=about))
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


def _define_pictures(pictures: argparse.ArgumentParser) -> None:
    pictures.add_argument("train", type=Path, nargs="+", metavar="FOLDER", help="of pictures to train on")
    pictures.add_argument("--test", type=Path, action="append", default=[], metavar="FOLDER", help="of others; repeatable")
    pictures.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data folder to write")
    about = "of the pictures to train on, held out for validation (default: 0.1)"
    pictures.add_argument("--val", type=_share, default=0.1, metavar="SHARE", help=about)
    about = "another seed, other pictures held out (default: 0)"
    pictures.add_argument("--seed", type=count_up_to(2**31), default=0, metavar="N", help=about)

    def run(arguments: argparse.Namespace) -> None:
        done = copy_pictures(arguments.train, arguments.test, arguments.out, val=arguments.val, seed=arguments.seed)
        _print_counts(arguments.out, done)
        for folder in (*arguments.train, *arguments.test):
            _warn_of_left_out(folder, arrays=True)

    pictures.set_defaults(run=run)


def _define_check(check: argparse.ArgumentParser) -> None:
    check.add_argument("source", type=Path, metavar="CONFIG|DIR", help="a configuration, or a data folder with classes.yaml")
    check.add_argument("--split", action="append", help="only this split; repeatable (default: train and val; of a DIR: all)")
    check.add_argument("--verbose", action="store_true", help="a line for every fault, also where many have one cause")
    check.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")

    def run(arguments: argparse.Namespace) -> ExitCode | None:
        data = _data_of(arguments.source)
        root = Path(data.root)
        named = [data.train_split, data.val_split]
        if arguments.source.is_dir():
            there = list_splits(root)
            named = [*there, *lists_that_lack(there)]
        disjoint = (data.train_split, data.val_split)
        report = check_dataset(
            root, arguments.split or named, data.class_set, bands=data.bands, disjoint=disjoint, train=data.train_split
        )
        zooms = [] if _is_folder(arguments.source) else zoom_warnings(load_config(arguments.source))
        warnings = [*class_warnings(data), *zooms, *report.warnings]
        if arguments.source.is_dir() and not arguments.split:
            found, remedy = "names no picture, so it is no list of a split", "if it is one, name it with --split"
            warnings += [data_error(path, found, remedy) for path in other_texts(root)]
        report = report._replace(warnings=warnings)
        if arguments.json:
            write_text(arguments.json, report_json(report))
        elif not report.faults:
            printing_is_the_result()
        _print_report(report, verbose=arguments.verbose)
        return ExitCode.DATA if report.faults else None

    check.set_defaults(run=run)


def _print_report(report: CheckReport, *, verbose: bool) -> None:
    """The table on stdout, faults and warnings on stderr."""
    print(report_table(report), flush=True)
    for line in fault_lines(report, verbose=verbose):
        print(line, file=sys.stderr)
    print(f"{len(report.faults)} faults" if report.faults else "no faults", flush=True)


def _define_convert(convert: argparse.ArgumentParser) -> None:
    convert.add_argument("masks", type=Path, metavar="MASKS", help="a folder of masks, which stays as it is")
    convert.add_argument("--out", type=Path, metavar="DIR", help="where the palette PNGs go")
    convert.add_argument("--list", action="store_true", help="only list the ids or colours, and propose the command")
    convert.add_argument("--classes", type=Path, metavar="CONFIG|DIR", help="whose colours become ids")
    about = "id, range of ids (1-254) or R,G,B to id; '*' is every other value but 0 and black; repeatable"
    convert.add_argument("--map", action="append", default=[], metavar="OLD=NEW", help=about)
    meant = "what is meant where a palette's numbers and colours disagree, and the mask does not tell"
    convert.add_argument("--palette", choices=["index", "color"], help=meant)
    about = "greys from N on become 1, others 0, also of JPEG; tells how many pixels moved"
    convert.add_argument("--threshold", type=count_up_to(65535, least=1), metavar="N", help=about)
    about = "colours become the nearest class colour, also of JPEG; tells how many pixels moved"
    convert.add_argument("--nearest", action="store_true", help=about)
    convert.add_argument("--overwrite", action="store_true", help="replace masks in DIR that differ")
    convert.add_argument("--keep-going", action="store_true", help="write the others where a mask fails; else none is written")
    convert.add_argument("--verbose", action="store_true", help="a line for every mask that fails")
    convert.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON too")

    def run(arguments: argparse.Namespace) -> ExitCode | None:
        classes = _data_of(arguments.classes).mask_classes if arguments.classes else None
        if arguments.list:
            return _list_values(arguments.masks, classes, f"--classes {arguments.classes}")
        if not arguments.out:
            convert.error("give --out DIR, or --list")
        if not (arguments.classes or arguments.map or arguments.threshold):
            convert.error("give --classes, --map or --threshold; --list proposes one")
        options = {"palette": arguments.palette, "threshold": arguments.threshold, "nearest": arguments.nearest}
        rules = parse_rules(classes, arguments.map, **options)
        go_on = arguments.keep_going
        done = convert_masks(arguments.masks, arguments.out, rules, overwrite=arguments.overwrite, keep_going=go_on)
        if arguments.json:
            write_text(arguments.json, conversion_json(done))
        counts = f"{done.written} masks written, {done.same} were there already, {len(done.failed)} failed"
        stopped = bool(done.failed) and not go_on
        more = "; nothing was written: mend them, or write the others with --keep-going" if stopped else ""
        print(f"{arguments.out}: {counts}{more}", flush=True)
        _warn_of_left_out(arguments.masks, arrays=False)
        for line in conversion_lines(done, arguments.masks, verbose=arguments.verbose):
            print(line, file=sys.stderr)
        if done.failed:
            return ExitCode.DATA if stopped else ExitCode.SOME_FAILED
        return None

    convert.set_defaults(run=run)


def _warn_of_left_out(folder: Path, *, arrays: bool) -> None:
    """Warn of files that look like pictures or masks and are not read; without `arrays`, of .npy files too."""
    if left := left_out(list_pictures(folder, arrays=arrays)):
        print(f"warning: {left_out_warning(left)}", file=sys.stderr)


def _list_values(folder: Path, classes: ClassSet | None, source: str) -> ExitCode | None:
    """Print the values of the masks in a folder and the command that would convert them."""
    printing_is_the_result()
    found = list_values(folder)
    for error in merge_alike(found.failed, lambda _: folder):
        print(f"error: {error}", file=sys.stderr)
    _warn_of_left_out(folder, arrays=True)
    if found.masks:
        command, why = proposed_command(found, classes, source)
        print(f"{values_table(found)}\n{why}:\n  {command}", flush=True)
    return ExitCode.DATA if found.failed else None


def _define_split(split: argparse.ArgumentParser) -> None:
    split.add_argument("source", type=Path, metavar="DIR", help="a data folder with classes.yaml, or a configuration")
    split.add_argument("--val", type=_share, default=0.0, metavar="SHARE", help="of the pictures, e.g. 0.2; the rest is train")
    split.add_argument("--test", type=_share, default=0.0, metavar="SHARE", help="of the pictures, e.g. 0.1 (default: none)")
    split.add_argument("--folds", type=count_up_to(100, least=2), default=0, metavar="K", help="write train_0, val_0, train_1, …")
    meant = "what ids have in common that belong together, e.g. a video, a patient: the first group of a regular expression, "
    split.add_argument("--group", metavar="REGEX|folder", help=meant + "or its whole match; or their folder")
    split.add_argument("--seed", type=count_up_to(2**31), default=0, metavar="N", help="another seed, other lists (default: 0)")
    lists = split.add_mutually_exclusive_group()
    lists.add_argument("--keep", action="store_true", help="lists that are there keep their pictures, whoever wrote them")
    lists.add_argument("--overwrite", action="store_true", help="lists that are there are replaced")

    def run(arguments: argparse.Namespace) -> None:
        if not (arguments.val or arguments.folds):
            split.error("give --val, --folds or both")
        if arguments.val + arguments.test >= 1:
            split.error("--val and --test leave nothing for train")
        data = _data_of(arguments.source)
        options = SplitOptions(arguments.val, arguments.test, arguments.folds, arguments.group, arguments.seed)
        existing: Existing = "keep" if arguments.keep else "overwrite" if arguments.overwrite else "extend"
        done = split_dataset(Path(data.root), data.class_set, options, existing)
        print(split_table(done, data.class_set))
        counts = ", ".join(f"{name} {len(members):,} (+{done.added[name]:,})" for name, members in done.lists.items())
        print(f"{lists_folder(Path(data.root))}: {counts}", flush=True)
        if done.held_out:
            print(f"test.txt stays as it is, and its {done.held_out:,} pictures are in none of these lists", flush=True)
        for warning in done.warnings:
            print(f"warning: {warning}", file=sys.stderr)

    split.set_defaults(run=run)


def _share(text: str) -> float:
    """An argparse type: a share above 0 and below 1."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a share between 0 and 1, such as 0.2")
    return share


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
    return load_data_folder(source) if _is_folder(source) else load_config(source).data


def _is_folder(source: Path) -> bool:
    """Whether CONFIG|DIR means a folder, also one that is not there."""
    return source.is_dir() or not (source.suffix or source.exists())


if __name__ == "__main__":
    run_command(main)
