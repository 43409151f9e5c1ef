"""The work of `commands.predict`: from the arguments to the files that are written."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Generator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import torch
from tqdm import tqdm

from segnet.classes import ClassSet
from segnet.commands.predicting_video import predict_videos
from segnet.commands.sources import networks_of
from segnet.config.arguments import split_overrides
from segnet.data.listing import left_out_warning
from segnet.evaluation.temperature import read_temperature
from segnet.inference.predictor import Predictor
from segnet.prediction.areas import TABLE as AREAS
from segnet.prediction.areas import collect_areas
from segnet.prediction.collected import collect_polygons
from segnet.prediction.inputs import passed_over, plan_jobs, plan_split
from segnet.prediction.manifest import require_own_table
from segnet.prediction.outputs import Options, outputs_of
from segnet.prediction.pipeline import predict_jobs
from segnet.prediction.ranking import TABLE as RANKING
from segnet.prediction.ranking import collect_ranking
from segnet.prediction.summary import Result, Summary, failure_table, summarize
from segnet.prediction.video import is_video
from segnet.runs.checkpoint import find_checkpoint
from segnet.system.devices import describe_device, warn_if_emulated
from segnet.system.distributed import agreed, is_main, process_group, this_ranks_part
from segnet.system.errors import ExitCode, config_error
from segnet.system.files import lock_folder
from segnet.system.processes import stop_signals_interrupt
from segnet.vectors.formats import FORMATS


def predict(arguments: argparse.Namespace, named: list[str] | None) -> ExitCode:
    """Predict the pictures of the `arguments` of `commands.predict`; `named` are the kinds of output, None: the usual one."""
    out = Path(arguments.out)
    last_words = "stopping takes too long: leaving at once; the same command goes on from here"
    patience = timedelta(days=30)  # between the two exchanges of the ranks, at the beginning and at the end
    with stop_signals_interrupt(last_words), process_group(torch.device("cpu"), patience=patience):
        with agreed():
            inputs, overrides = split_overrides(arguments.inputs)
            if arguments.split and inputs:
                raise config_error(inputs[0], f"a picture beside --split {arguments.split}", "give one of them")
            sources = networks_of(arguments.source)
            if any(map(is_video, inputs)):
                return predict_videos(Predictor(sources, overrides), inputs, arguments, named) if is_main() else ExitCode.DONE
            jobs = [] if arguments.split else plan_jobs(inputs, out, keep_suffix=arguments.keep_suffix)
            left = passed_over(inputs, out)
            predictor = Predictor(sources, overrides)
            require_task_of_options(arguments, predictor.config.task)
            save = choose_outputs(named, predictor.config.task)
            if arguments.below and not any(text.startswith("inference.temperature=") for text in overrides):
                if sources[1:]:
                    remedy = "evaluate them together with --calibrate, and give inference.temperature=T"
                    raise config_error("--below", "no temperature of several runs", remedy)
                use_fitted_temperature(predictor, find_checkpoint(Path(sources[0])).parent)
            if arguments.split:
                jobs = plan_split(predictor.config.data, arguments.split, out)
        noun = "picture" if len(jobs) == 1 else "pictures"
        if is_main():
            print(f"predict {len(jobs)} {noun} on {describe_device(predictor.device)} in {predictor.precision}", flush=True)
            warn_if_emulated(predictor.precision, "inference.precision")
            if left:
                print(f"warning: {left_out_warning(left)}", file=sys.stderr)
        with agreed():
            for name in tables(arguments, save):
                require_own_table(out, name)
        started = time.monotonic()
        options = Options(tolerance=arguments.simplify, below=arguments.below)
        results = predict_jobs(predictor, jobs, out, save=save, options=options, overwrite=arguments.overwrite)
        summary = summarize_with_progress(results, len(this_ranks_part(jobs)))
    if is_main():
        if len(jobs) == 1 and summary.failures:
            raise summary.failures[0]  # as the error of the command: there is no other picture
        sys.stderr.write(failure_table(summary.failures))
        rate = f", {summary.written / (time.monotonic() - started):.1f} pictures/s" if summary.written else ""
        skipped = f"; {summary.skipped} were there already" if summary.skipped else ""
        passed = f"; {len(left)} left out" if left else ""
        print(f"{summary.written} of {len(jobs)} {noun} written to {arguments.out}{rate}{skipped}{passed}")
        write_tables(arguments, save, predictor.classes)
    return ExitCode.SOME_FAILED if summary.failures else ExitCode.DONE


def require_task_of_options(arguments: argparse.Namespace, task: str) -> None:
    """Raise UserError (config) for an option that is for masks where the task has none."""
    for option, given in (("--polygons", arguments.polygons), ("--rank", arguments.rank), ("--below", arguments.below)):
        if given and task != "segmentation":
            raise config_error(option, f"is for masks, and the network is for task {task}", "leave it out")


def choose_outputs(named: list[str] | None, task: str) -> list[str]:
    """The kinds of output that are `named`, or the usual one of the task. Raises UserError (config) for those of other tasks."""
    offered = outputs_of(task)
    if odd := [kind for kind in named or () if kind not in offered]:
        raise config_error(f"--save {odd[0]}", f"not an output of task {task}", f"choose from {', '.join(offered)}")
    return named or [next(iter(offered))]


def use_fitted_temperature(predictor: Predictor, run: Path) -> None:
    """Predict with the temperature that `segnet evaluate` fitted. Raises UserError (data) where it did not."""
    config = predictor.config
    folder = run / "evaluation" / config.data.val_split
    temperature = read_temperature(folder, config.inference, predictor.weights_digest)
    predictor.config = config.model_copy(update={"inference": config.inference.model_copy(update={"temperature": temperature})})
    if is_main():
        print(f"temperature {temperature:.3f} of {folder}")


def tables(arguments: argparse.Namespace, save: list[str]) -> list[str]:
    """The files about all pictures that the command writes at its end."""
    named = [name for kind, name in (("areas", AREAS), ("ranking", RANKING)) if kind in save]
    return [*named, *([FORMATS[arguments.polygons].file] if arguments.polygons else [])]


def write_tables(arguments: argparse.Namespace, save: list[str], classes: ClassSet) -> None:
    """Write the files about all pictures, and say where they are."""
    out = Path(arguments.out)
    with lock_folder(out, wait=True):
        if "areas" in save:
            print(f"areas: {collect_areas(out, arguments.pixel_size)}")
        if "ranking" in save:
            print(f"ranking: {collect_ranking(out)}")
        if arguments.polygons or ("polygons" in save and arguments.simplify):
            found = collect_polygons(out, arguments.polygons, classes)
            if found.path:
                print(f"polygons: {found.path}")
            if found.kept and found.worst:
                lost = f"IoU {found.kept.iou:.4f} with the exact outlines, least for {found.worst[0]}: {found.worst[1]:.4f}"
                print(f"--simplify {arguments.simplify:g}: {lost}")


def summarize_with_progress(results: Generator[Result, None, None], count: int) -> Summary:
    """The summary of `results`, with a progress bar over `count` pictures. Ctrl-C prints how many were done."""
    disable = None if is_main() else True  # None: no bar without a terminal
    with closing(results), tqdm(results, "predict", count, unit="picture", disable=disable) as progress:
        try:
            return summarize(progress)
        except KeyboardInterrupt:
            print(f"\nstopped after {progress.n} of {progress.total} pictures; the same command goes on", file=sys.stderr)
            raise
