"""The command `segnet`, also `python -m segnet`: chooses the command that is run, and prints the list of all."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from segnet.commands.benchmark import main as benchmark
from segnet.commands.check import main as check
from segnet.commands.compare import main as compare
from segnet.commands.convert import main as convert
from segnet.commands.doctor import main as doctor
from segnet.commands.evaluate import main as evaluate
from segnet.commands.export import main as export
from segnet.commands.import_labels import main as import_labels
from segnet.commands.parsers import complete
from segnet.commands.plan import main as plan
from segnet.commands.predict import main as predict
from segnet.commands.prepare import main as prepare
from segnet.commands.results import main as results
from segnet.commands.serve import main as serve
from segnet.commands.show import main as show
from segnet.commands.split import main as split
from segnet.commands.train import main as train
from segnet.system.command_line import run_command
from segnet.system.errors import ExitCode, config_error
from segnet.system.streams import printing_is_the_result
from segnet.system.version import program_version

Main = Callable[[list[str] | None], ExitCode | None]
GROUPS: dict[str, dict[str, tuple[Main, str]]] = {
    "data": {
        "prepare": (prepare, "make or download a data set: sample, voc, sbd, camvid, pictures"),
        "import": (import_labels, "write labels of other tools as masks: CVAT, COCO, LabelMe, …"),
        "convert": (convert, "turn masks of colours or of other ids into masks of class ids"),
        "split": (split, "write lists of train, val and test, balanced by class pixels"),
        "check": (check, "name every fault of a data set, and count its classes"),
        "plan": (plan, "write a configuration for a data set and this machine"),
    },
    "training and scores": {
        "train": (train, "train a network"),
        "evaluate": (evaluate, "score a network on a split, with a report"),
        "compare": (compare, "compare the scores of two evaluations, with intervals"),
        "results": (results, "train and score recipes with several seeds, and write a table"),
    },
    "use": {
        "predict": (predict, "write masks of pictures and videos, or restored pictures"),
        "serve": (serve, "serve a page to try a network, and answer programs over HTTP"),
        "export": (export, "write a network as ONNX, OpenVINO, torch.export or a page"),
    },
    "a look inside": {
        "show": (show, "print or draw a configuration, a network, activations, samples"),
        "benchmark": (benchmark, "measure the speed and the memory of a configuration"),
        "doctor": (doctor, "this machine: versions, device, packages, what will be slow"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, (command, _) in group.items()}
OTHER_WORDS = {
    "fit": "train",
    "eval": "evaluate",
    "test": "evaluate",
    "score": "evaluate",
    "infer": "predict",
    "download": "prepare",
}
EXAMPLES = """\
examples:
  segnet prepare sample
  segnet train sample
  segnet predict runs/sample PICTURES --out masks
"""


def main(arguments: list[str]) -> ExitCode | None:
    """Run the command that the first argument names with the others. Raises UserError (config) for an unknown name."""
    name, *others = arguments or ["--help"]
    if name in {"-h", "--help", "--version"}:
        printing_is_the_result()
    if name in ("-h", "--help"):
        print(help_text(), end="")
        return None if arguments else ExitCode.CONFIG
    if name == "--version":
        print(version_text())
        return None
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = OTHER_WORDS.get(name) or next(iter(close), None)
        raise config_error(name, "no such command", f"did you mean {meant}?" if meant else "segnet --help lists them")
    return COMMANDS[name](others)


def help_text() -> str:
    """A line for each command, in groups."""
    lines = ["usage: segnet COMMAND …   also: segnet COMMAND --help, segnet --version", "", EXAMPLES]
    for title, group in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:<11}{about}" for name, (_, about) in group.items()), ""]
    return "\n".join(lines)


def version_text() -> str:
    """The versions of this program and of torch, and the commit of a clone."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "not installed"
    return f"segnet {program_version()}, torch {torch}"


def answer_shell(line: str) -> None:
    """Print the completions of a command line that ends at the cursor, and end the process; argcomplete reads it anew."""
    words = f"{line}|".split()  # the last one is begun
    if len(words) > 2 and words[1] in COMMANDS:
        os.environ["_ARGCOMPLETE"] = "2"  # the word with which the arguments of the command's own parser begin
        COMMANDS[words[1]]([])
        return
    parser = argparse.ArgumentParser(prog="segnet")
    parser.add_argument("command", choices=list(COMMANDS))
    complete(parser)


def start() -> None:
    """Run `segnet` and end the process with its exit code."""
    if "_ARGCOMPLETE" in os.environ:
        answer_shell(os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])])
    else:
        run_command(lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    start()
