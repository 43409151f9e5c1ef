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
from segnet.config.sections import InferenceConfig
from segnet.data.dataset import SegmentationDataset, warn
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


def evaluate(arguments: argparse.Namespace) -> None:
    """Score a split, fit the temperature or try clean-ups, as the `arguments` of `commands.evaluate` say."""
    with stop_signals_interrupt(), process_group(torch.device("cpu")):  # ranks exchange counts alone, and these are on the CPU
        with agreed(), explain_full_memory("set device=cpu"):
            sources, overrides = split_overrides([arguments.source, *arguments.overrides])
            model, _, config, checkpoint, *_ = load_models(sources, overrides)
            if sources[1:] and not arguments.out:
                raise config_error("--out", "missing", "name a folder for the evaluation of several runs")
            name = ", ".join(sources) if sources[1:] else str(checkpoint)
            device = choose_device(config.device)
            model.to(device)
            precision = precision_of(config.inference, model)
            split = arguments.split or config.data.val_split
            task = build_task(config)
            dataset = task.open_split(split)
            warn(class_warnings(config.data))
            out = arguments.out or checkpoint.parent / "evaluation" / split
            if is_main():
                make_folder(out)  # before the work, not after it
        if is_main():
            print(f"evaluate {name} on {split}, {describe_device(device)} in {precision}", flush=True)
            warn_if_emulated(precision, "inference.precision")
        loader = build_loader(dataset, workers=config.data.workers, timeout=config.data.worker_timeout)
        if (arguments.calibrate or arguments.tune_cleanup or arguments.suspects) and config.task != "segmentation":
            options = "--calibrate, --tune-cleanup, --suspects"
            raise config_error(options, f"a network for task {config.task}", "they are for segmentation")
        if arguments.calibrate or arguments.tune_cleanup:
            assert isinstance(dataset, SegmentationDataset)
            tune = calibrate if arguments.calibrate else tune_cleanup
            tune(Tuned(model, loader, config.inference, dataset, out))
            return
        counts = task.evaluation_counts(dataset)
        writer = build_writer(config)
        seen = writer.watch(counts, arguments.pictures)
        suspects = None
        if arguments.suspects:
            shown, temperature = min(SHOWN, arguments.pictures), config.inference.temperature
            suspects = SuspectCounts(seen, task.channels, temperature=temperature, shown=shown)
        watch = suspects.watch if suspects else None
        count_split(model, loader, config.inference, task.answers, suspects or seen, watch=watch)
        evaluation = counts.evaluation()
    if not is_main():
        return
    usual = dict(InferenceConfig())
    conditions = {
        "checkpoint": name,
        "data": f"{config.data.root}, {split}",
        "inference": ", ".join(f"{key} {value}" for key, value in config.inference if value != usual[key]) or "one view, whole",
        "device": describe_device(device),
        "precision": str(precision),
        "torch": torch.__version__,
    }
    paths = writer.save(out, evaluation, split=split, conditions=conditions)
    print(writer.table(evaluation), flush=True)
    if suspects:
        paths.append(save_suspects(out, suspects, config.data.class_set.names))
        print(suspects.summary(), flush=True)
    for warning in evaluation.warnings():
        print(f"warning: {warning}", file=sys.stderr)
    facts = conditions | {"evaluated": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")}
    title = f"{name if sources[1:] else checkpoint.resolve().parent.name} on {split}"
    curves = None if sources[1:] else checkpoint.parent / "metrics.csv"
    scored = Scored(model, dataset, config.inference, seen, arguments.pictures, curves, suspects)
    writer.report(out / "report.html", evaluation, scored, title=title, facts=facts)
    print(f"written: {', '.join(path.name for path in paths)} in {out}\nlook at: {out / 'report.html'}")
    renew_model_card_of(out)


class Tuned(NamedTuple):
    """A network, the split on which it is tuned, and the folder of the files."""

    model: Network
    loader: Loader
    inference: InferenceConfig
    dataset: SegmentationDataset
    out: Path


def calibrate(scored: Tuned) -> None:
    """Fit the temperature, print and keep it."""
    counts, inference = TemperatureCounts(), scored.inference.model_copy(update={"temperature": 1.0})
    digest = digest_of_weights(scored.model)
    count_split(scored.model, scored.loader, inference, ClassProbabilities(), counts, keep_mean=True)
    if is_main():
        fit = counts.fit()
        errors = f"{100 * fit.error_before:.2f} % -> {100 * fit.error_after:.2f} %"
        print(f"temperature {fit.temperature:.3f}: expected calibration error {errors}")
        print("written:", save_temperature(scored.out, fit, scored.inference, digest))
        renew_model_card_of(scored.out)


def tune_cleanup(scored: Tuned) -> None:
    """Try every clean-up, print the best, and write all of them."""
    counts = CleanupCounts(scored.dataset.ids, scored.dataset.classes, scored.dataset.split)
    plain = scored.inference.model_copy(update={"min_region": 0, "fill_holes": 0})
    count_split(scored.model, scored.loader, plain, ClassProbabilities(), counts)
    if is_main():
        tried, path = counts.tried(), scored.out / "cleanup.json"
        print(cleanup_advice(tried))
        write_text(path, tuning_json(tried))
        print("written:", path)
