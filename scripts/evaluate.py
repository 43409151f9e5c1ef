"""Score a trained network on a split: IoU per class, mIoU, accuracies.

examples:
  python scripts/evaluate.py runs/sample
  python scripts/evaluate.py runs/camvid --split test inference.flip=true
  python scripts/evaluate.py runs/camvid/last.pt --out /tmp/scores device=cpu
"""

import argparse
from pathlib import Path

from segnet.checkpoint import find_checkpoint, load_model
from segnet.datasets import build_loader, open_split
from segnet.devices import choose_device, describe_device
from segnet.distributed import is_main, process_group
from segnet.errors import run_command
from segnet.evaluation import evaluate, save_scores, scores_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help="a run folder (its best checkpoint) or a checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration overrides, e.g. inference.flip=true")
    parser.add_argument("--split", help="split to score (default: data.val_split)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN/evaluation/<split>)")
    arguments = parser.parse_intermixed_args()
    model, classes, config = load_model(arguments.source, arguments.overrides)
    device = choose_device(config.device)
    split = arguments.split or config.data.val_split
    if is_main():
        print(f"evaluate {find_checkpoint(arguments.source)} on {split}, {describe_device(device)}", flush=True)
    dataset = open_split(config.data, split)
    loader = build_loader(dataset, workers=config.data.workers, timeout=config.data.worker_timeout)
    with process_group(device):
        scores = evaluate(model.to(device), loader, config.inference)
    if not is_main():
        return
    out = arguments.out or find_checkpoint(arguments.source).parent / "evaluation" / split
    print(scores_table(scores, classes), flush=True)
    save_scores(out, scores, classes)
    print(f"written: {out}/metrics.json, {out}/confusion.csv")


if __name__ == "__main__":
    run_command(main)
