"""Score a trained network on a split, and every picture: IoU per class, boundaries and calibration; of denoising PSNR and SSIM.

examples:
  python scripts/evaluate.py runs/sample
  python scripts/evaluate.py runs/camvid --split test inference.flip=horizontal
  python scripts/evaluate.py runs/camvid/last.pt --out /tmp/scores device=cpu

It writes metrics.json, pictures.csv, of a segmentation confusion.csv, and report.html, a page to look at. Two evaluations of one
split are compared by scripts/compare.py. Under torchrun the ranks share the pictures.
"""

import argparse
import datetime
import sys
from pathlib import Path

import torch

from segnet.config.data_folder import class_warnings
from segnet.config.sections import InferenceConfig
from segnet.data.dataset import warn
from segnet.data.loader import build_loader
from segnet.evaluation.scoring import count_split
from segnet.evaluation.writers import Scored, build_writer
from segnet.inference.loaded_model import load_model
from segnet.inference.precision import precision_of
from segnet.system.command_line import count_up_to, run_command
from segnet.system.devices import choose_device, describe_device, explain_full_memory, warn_if_emulated
from segnet.system.distributed import agreed, is_main, process_group
from segnet.system.files import make_folder
from segnet.system.processes import stop_signals_interrupt
from segnet.tasks.choice import build_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help="a run folder (its best checkpoint) or a checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides, e.g. inference.flip=horizontal")
    parser.add_argument("--split", help="split to score (default: data.val_split)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN/evaluation/<split>)")
    pictures = count_up_to(10_000)
    parser.add_argument("--pictures", type=pictures, default=24, help="in the report, the worst and the best (default: 24)")
    arguments = parser.parse_intermixed_args()
    with stop_signals_interrupt(), process_group(torch.device("cpu")):  # ranks exchange counts alone, and these are on the CPU
        with agreed(), explain_full_memory("set device=cpu"):
            model, _, config, checkpoint, *_ = load_model(arguments.source, arguments.overrides)
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
            print(f"evaluate {checkpoint} on {split}, {describe_device(device)} in {precision}", flush=True)
            warn_if_emulated(precision, "inference.precision")
        loader = build_loader(dataset, workers=config.data.workers, timeout=config.data.worker_timeout)
        counts = task.evaluation_counts(dataset)
        writer = build_writer(config)
        seen = writer.watch(counts, arguments.pictures)
        count_split(model, loader, config.inference, task.answers, seen)
        evaluation = counts.evaluation()
    if not is_main():
        return
    paths = writer.save(out, evaluation, split=split)
    print(writer.table(evaluation), flush=True)
    for warning in evaluation.warnings():
        print(f"warning: {warning}", file=sys.stderr)
    usual = dict(InferenceConfig())
    facts = {
        "checkpoint": str(checkpoint),
        "data": f"{config.data.root}, {split}",
        "inference": ", ".join(f"{key} {value}" for key, value in config.inference if value != usual[key]) or "one view, whole",
        "device": describe_device(device),
        "precision": str(precision),
        "torch": torch.__version__,
        "evaluated": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    title = f"{checkpoint.resolve().parent.name} on {split}"
    scored = Scored(model, dataset, config.inference, seen, arguments.pictures, checkpoint.parent / "metrics.csv")
    writer.report(out / "report.html", evaluation, scored, title=title, facts=facts)
    print("written:", *paths, out / "report.html")


if __name__ == "__main__":
    run_command(main)
