"""Score a trained network on a split: IoU of each class, boundaries, calibration; for denoising PSNR and SSIM.

examples:
  segnet evaluate runs/sample
  segnet evaluate runs/camvid --split test inference.flip=horizontal
  segnet evaluate runs/camvid/last.pt --out /tmp/scores device=cpu

It writes metrics.json, pictures.csv with a row for each picture, report.html to look at, and for segmentation confusion.csv.
`segnet compare` compares two evaluations of one split. Under torchrun the ranks share the pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from segnet.commands.parsers import command_parser, parse
from segnet.system.command_line import count_up_to


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("evaluate", __doc__)
    source_help = "a run folder (its best checkpoint) or a checkpoint; of several, the probabilities are averaged"
    parser.add_argument("source", metavar="RUN|CHECKPOINT", help=source_help)
    overrides_help = "further runs to average with; overrides of the configuration, e.g. inference.flip=horizontal"
    parser.add_argument("overrides", nargs="*", default=[], metavar="RUN|KEY=VALUE", help=overrides_help)
    parser.add_argument("--split", help="split to score (default: data.val_split)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN/evaluation/<split>)")
    pictures = count_up_to(10_000)
    parser.add_argument(
        "--pictures", type=pictures, default=24, help="number of the worst and of the best pictures in the report (default: 24)"
    )
    calibrate_help = (
        "instead of scoring, fit inference.temperature, so that a confidence of 0.8 is right 8 times in 10; for predict --below"
    )
    parser.add_argument("--calibrate", action="store_true", help=calibrate_help)
    cleanup_help = "instead of scoring, find the inference.min_region and fill_holes with the best score"
    parser.add_argument("--tune-cleanup", action="store_true", help=cleanup_help)
    suspects_help = "list regions where a confident network and the label disagree: suspects.csv, and crops in the report"
    parser.add_argument("--suspects", action="store_true", help=suspects_help)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Score a split, or tune on it what needs no training."""
    parser = build_parser()
    given = parse(parser, arguments, mixed=True)
    if given.calibrate and given.tune_cleanup:
        parser.error("--calibrate and --tune-cleanup: one after the other")
    from segnet.commands.evaluating import evaluate

    evaluate(given)
