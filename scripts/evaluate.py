"""Score a trained network on a split: IoU, precision and recall per class, boundaries, calibration, and every picture.

examples:
  python scripts/evaluate.py runs/sample
  python scripts/evaluate.py runs/camvid --split test inference.flip=true
  python scripts/evaluate.py runs/camvid/last.pt --out /tmp/scores device=cpu

Two evaluations of one split are compared by scripts/compare.py. Under torchrun the ranks share the pictures.
"""

import argparse
from pathlib import Path

import torch

from segnet.checkpoint import find_checkpoint, load_model
from segnet.datasets import build_loader, open_split
from segnet.devices import choose_device, describe_device, explain_full_memory
from segnet.distributed import agreed, is_main, process_group
from segnet.errors import run_command
from segnet.evaluation import evaluation_table, examine, save_evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help="a run folder (its best checkpoint) or a checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration overrides, e.g. inference.flip=true")
    parser.add_argument("--split", help="split to score (default: data.val_split)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN/evaluation/<split>)")
    arguments = parser.parse_intermixed_args()
    with process_group(torch.device("cpu")):  # ranks exchange counts alone, and these are on the CPU
        with agreed(), explain_full_memory("set device=cpu"):
            model, classes, config = load_model(arguments.source, arguments.overrides)
            device = choose_device(config.device)
            model.to(device)
            split = arguments.split or config.data.val_split
            dataset = open_split(config.data, split)
        checkpoint = find_checkpoint(arguments.source)
        if is_main():
            print(f"evaluate {checkpoint} on {split}, {describe_device(device)}", flush=True)
        loader = build_loader(dataset, workers=config.data.workers, timeout=config.data.worker_timeout)
        evaluation = examine(model, loader, config.inference)
    if not is_main():
        return
    print(evaluation_table(evaluation, classes), flush=True)
    out = arguments.out or checkpoint.parent / "evaluation" / split
    print("written:", *save_evaluation(out, evaluation, classes, split=split))


if __name__ == "__main__":
    run_command(main)
