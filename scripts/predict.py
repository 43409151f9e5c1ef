"""Predict masks for pictures: a picture, a folder (searched recursively) or a quoted glob.

examples:
  python scripts/predict.py runs/sample street.jpg --out masks
  python scripts/predict.py runs/sample data/sample/JPEGImages --out masks --save mask,overlay --set inference.flip=true
  python scripts/predict.py runs/camvid/last.pt "drive/**/*.png" --out masks --save mask,uncertainty --overwrite
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from segnet.devices import describe_device
from segnet.errors import ExitCode, run_command
from segnet.prediction import WRITERS, Predictor, plan_jobs, predict_jobs


def main() -> ExitCode:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help="a run folder (its best checkpoint) or a checkpoint")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="a picture, a folder or a quoted glob")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the masks go")
    parser.add_argument("--save", default="mask", metavar="KINDS", help=f"of {', '.join(WRITERS)}, comma-separated (mask)")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides: inference.flip=true device=cpu")
    arguments = parser.parse_args()
    save = [kind for kind in arguments.save.split(",") if kind]
    unknown = [kind for kind in save if kind not in WRITERS]
    if unknown or not save:
        parser.error(f"--save {arguments.save}: choose of {', '.join(WRITERS)}")
    jobs = plan_jobs(arguments.inputs, arguments.out)
    predictor = Predictor(arguments.source, arguments.set)
    print(f"predict {len(jobs)} pictures on {describe_device(predictor.device)}", flush=True)
    results = predict_jobs(predictor, jobs, save, overwrite=arguments.overwrite)
    failures = [error for _, error in tqdm(results, "predict", len(jobs), unit="picture", disable=None) if error]
    for error in failures:
        print(f"failed: {error}", file=sys.stderr)
    print(f"{len(jobs) - len(failures)} of {len(jobs)} pictures written to {arguments.out}")
    return ExitCode.SOME_FAILED if failures else ExitCode.DONE


if __name__ == "__main__":
    run_command(main)
