"""The work of `commands.evaluate`: from the arguments to a score and its report."""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from segnet.config.arguments import split_overrides
from segnet.config.data_folder import class_warnings
from segnet.config.sections import Config, InferenceConfig
from segnet.data.dataset import SplitDataset, warn
from segnet.data.loader import Loader, build_loader
from segnet.evaluation.cleanup_tuning import CleanupCounts, cleanup_advice, tuning_json
from segnet.evaluation.model_card import renew_model_card_of
from segnet.evaluation.scoring import count_split
from segnet.evaluation.suspect_gallery import SHOWN
from segnet.evaluation.suspects import SuspectCounts, save_suspects
from segnet.evaluation.temperature import TemperatureCounts, save_temperature
from segnet.evaluation.writers import Scored, build_writer
from segnet.inference.exported import Network
from segnet.inference.loaded_model import load_models
from segnet.inference.precision import precision_of
from segnet.inference.predictor import digest_of_weights
from segnet.system.devices import choose_device, describe_device, explain_full_memory, warn_if_emulated
from segnet.system.distributed import agreed, is_main, process_group
from segnet.system.errors import config_error
from segnet.system.files import make_folder, write_text
from segnet.system.processes import stop_signals_interrupt
from segnet.tasks.choice import build_task
from segnet.tasks.segmentation import ClassProbabilities
from segnet.tasks.task import Score


class Subject(NamedTuple):
    """A network, the split on which it is scored or tuned, and the folder of the files."""

    name: str  # the path of its checkpoint; of several networks, of each run
    model: Network
    config: Config
    dataset: SplitDataset
    split: str
    out: Path
    run: Path | None  # the folder of the checkpoint; None for several networks
    steps: int  # of training

    def conditions(self) -> dict[str, str]:
        """What is scored and how, for the files and the report."""
        config, usual = self.config, dict(InferenceConfig())
        changed = [f"{key} {value}" for key, value in config.inference if value != usual[key]]
        return {
            "checkpoint": self.name,
            "data": f"{config.data.root}, {self.split}",
            "inference": ", ".join(changed) or "one view, whole",
            "device": describe_device(choose_device(config.device)),
            "precision": str(precision_of(config.inference, self.model)),
            "torch": torch.__version__,
        }


def evaluate(arguments: argparse.Namespace) -> None:
    """Score a split, fit the temperature or try clean-ups, as the `arguments` of `commands.evaluate` say."""
    with stop_signals_interrupt(), process_group(torch.device("cpu")):  # ranks exchange counts alone, and these are on the CPU
        with agreed(), explain_full_memory("set device=cpu"):
            subject = open_subject(arguments)
        data = subject.config.data
        loader = build_loader(subject.dataset, workers=data.workers, timeout=data.worker_timeout)
        if arguments.calibrate:
            calibrate(subject, loader)
            return
        if arguments.tune_cleanup:
            tune_cleanup(subject, loader)
            return
        evaluation, scored = score(subject, loader, pictures=arguments.pictures, with_suspects=arguments.suspects)
    if is_main():
        write_results(subject, evaluation, scored)


def open_subject(arguments: argparse.Namespace) -> Subject:
    """The network on its device and the split; the main rank makes the folder, too. Raises UserError for what cannot be used."""
    sources, overrides = split_overrides([arguments.source, *arguments.overrides])
    model, _, config, checkpoint, steps, _ = load_models(sources, overrides)
    several = len(sources) > 1
    if several and not arguments.out:
        raise config_error("--out", "missing", "name a folder for the evaluation of several runs")
    if (arguments.calibrate or arguments.tune_cleanup or arguments.suspects) and config.task != "segmentation":
        options = "--calibrate, --tune-cleanup, --suspects"
        raise config_error(options, f"a network for task {config.task}", "they are for segmentation")
    device = choose_device(config.device)
    model.to(device)
    precision = precision_of(config.inference, model)
    split = arguments.split or config.data.val_split
    dataset = build_task(config).open_split(split)
    warn(class_warnings(config.data))
    name = ", ".join(sources) if several else str(checkpoint)
    out = arguments.out or checkpoint.parent / "evaluation" / split
    if is_main():
        make_folder(out)  # before the work, not after it
        print(f"evaluate {name} on {split}, {describe_device(device)} in {precision}", flush=True)
        warn_if_emulated(precision, "inference.precision")
    return Subject(name, model, config, dataset, split, out, None if several else checkpoint.parent, steps)


def score(subject: Subject, loader: Loader, *, pictures: int, with_suspects: bool) -> tuple[Score, Scored]:
    """The score of the split, and what a report with so many of the worst and of the best `pictures` shows of it."""
    task, inference = build_task(subject.config), subject.config.inference
    counts = task.evaluation_counts(subject.dataset)
    seen = build_writer(subject.config, subject.steps).watch(counts, pictures)
    suspects = None
    if with_suspects:
        suspects = SuspectCounts(seen, task.channels, temperature=inference.temperature, shown=min(SHOWN, pictures))
    watch = suspects.watch if suspects else None
    count_split(subject.model, loader, inference, task.answers, suspects or seen, watch=watch)
    curves = subject.run / "metrics.csv" if subject.run else None
    return counts.evaluation(), Scored(subject.model, subject.dataset, inference, seen, pictures, curves, suspects)


def write_results(subject: Subject, evaluation: Score, scored: Scored) -> None:
    """Print the score, and write its files and its report."""
    writer, out, conditions = build_writer(subject.config, subject.steps), subject.out, subject.conditions()
    paths = writer.save(out, evaluation, split=subject.split, conditions=conditions)
    print(writer.table(evaluation), flush=True)
    if scored.suspects:
        paths.append(save_suspects(out, scored.suspects, subject.config.data.class_set.names))
        print(scored.suspects.summary(), flush=True)
    for warning in evaluation.warnings():
        print(f"warning: {warning}", file=sys.stderr)
    facts = conditions | {"evaluated": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")}
    title = f"{subject.run.resolve().name if subject.run else subject.name} on {subject.split}"
    writer.report(out / "report.html", evaluation, scored, title=title, facts=facts)
    print(f"written: {', '.join(path.name for path in paths)} in {out}\nlook at: {out / 'report.html'}")
    renew_model_card_of(out)


def calibrate(subject: Subject, loader: Loader) -> None:
    """Fit the temperature, print and keep it."""
    inference = subject.config.inference
    counts, digest = TemperatureCounts(), digest_of_weights(subject.model)
    plain = inference.model_copy(update={"temperature": 1.0})
    count_split(subject.model, loader, plain, ClassProbabilities(), counts, keep_mean=True)
    if is_main():
        fit = counts.fit()
        errors = f"{100 * fit.error_before:.2f} % -> {100 * fit.error_after:.2f} %"
        print(f"temperature {fit.temperature:.3f}: expected calibration error {errors}")
        print("written:", save_temperature(subject.out, fit, inference, digest))
        renew_model_card_of(subject.out)


def tune_cleanup(subject: Subject, loader: Loader) -> None:
    """Try every clean-up, print the best, and write all of them."""
    counts = CleanupCounts(subject.dataset.ids, subject.config.data.class_set, subject.split)
    plain = subject.config.inference.model_copy(update={"min_region": 0, "fill_holes": 0})
    count_split(subject.model, loader, plain, ClassProbabilities(), counts)
    if is_main():
        tried, path = counts.tried(), subject.out / "cleanup.json"
        print(cleanup_advice(tried))
        write_text(path, tuning_json(tried))
        print("written:", path)
