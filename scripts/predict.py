"""Predict masks for pictures: a picture, a folder (searched recursively) or a quoted glob.

examples:
  python scripts/predict.py runs/sample street.jpg --out masks
  python scripts/predict.py runs/sample data/sample/JPEGImages --out masks --save mask,overlay --set inference.flip=true
  python scripts/predict.py runs/camvid/last.pt "drive/**/*.png" --out masks --save mask,uncertainty,json --overwrite

A command that was stopped goes on when it is given again. `torchrun` shares the pictures out over its processes.
"""

import argparse
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm

from segnet.devices import describe_device
from segnet.distributed import is_main, process_group, share
from segnet.errors import ExitCode, run_command
from segnet.jobs import WRITERS, failure_table, plan_jobs, predict_jobs, summarize
from segnet.prediction import Predictor
from segnet.stopping import sigterm_interrupts


def main() -> ExitCode:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN|CHECKPOINT", help="a run folder (its best checkpoint) or a checkpoint")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="a picture, a folder or a quoted glob")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the masks go")
    parser.add_argument("--save", default="mask", metavar="KINDS", help=f"of {', '.join(WRITERS)}, comma-separated (mask)")
    parser.add_argument("--overwrite", action="store_true", help="predict all again and replace outputs that exist")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides: inference.flip=true device=cpu")
    arguments = parser.parse_args()
    save = [kind for kind in arguments.save.split(",") if kind]
    unknown = [kind for kind in save if kind not in WRITERS]
    if unknown or not save:
        parser.error(f"--save {arguments.save}: choose of {', '.join(WRITERS)}")
    jobs = plan_jobs(arguments.inputs, arguments.out)
    predictor = Predictor(arguments.source, arguments.set)
    if is_main():
        print(f"predict {len(jobs)} pictures on {describe_device(predictor.device)}", flush=True)
    started = time.monotonic()
    with sigterm_interrupts(), process_group(predictor.device, patience=timedelta(days=30)):
        results = predict_jobs(predictor, jobs, arguments.out, save=save, overwrite=arguments.overwrite)
        quiet = None if is_main() else True  # None: plain where there is no terminal
        with closing(results), tqdm(results, "predict", len(share(jobs)), unit="picture", disable=quiet) as progress:
            summary = summarize(progress)
    if is_main():
        if len(jobs) == 1 and summary.failures:
            raise summary.failures[0]  # nothing else that could have gone well
        sys.stderr.write(failure_table(summary.failures))
        rate = f", {summary.written / (time.monotonic() - started):.1f} pictures/s" if summary.written else ""
        skipped = f"; {summary.skipped} were there already" if summary.skipped else ""
        print(f"{summary.written} of {len(jobs)} pictures written to {arguments.out}{rate}{skipped}")
    return ExitCode.SOME_FAILED if summary.failures else ExitCode.DONE


if __name__ == "__main__":
    run_command(main)
