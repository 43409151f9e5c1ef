"""Train a network from a YAML file.

examples:
  python scripts/train.py configs/sample.yaml
  python scripts/train.py configs/voc_segnet.yaml train.epochs=5 device=cpu --run runs/short
  python scripts/train.py configs/voc_segnet.yaml --resume
"""

import argparse
from pathlib import Path

from segnet.config import load_config
from segnet.devices import choose_device, describe_device
from segnet.errors import run_command
from segnet.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file, e.g. configs/sample.yaml")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration overrides")
    parser.add_argument("--run", type=Path, metavar="DIR", help="run folder (default: runs/<name of CONFIG>)")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint of the run folder")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    run = arguments.run or Path("runs") / arguments.config.stem
    print(f"train {arguments.config} on {describe_device(choose_device(config.device))} into {run}", flush=True)
    best = train(config, run, resume=arguments.resume)
    print(f"best network: {best}\nscore it:     python scripts/evaluate.py {run}")
    print(f"use it:       python scripts/predict.py {run} PICTURES --out {run}/predictions --save mask,overlay")


if __name__ == "__main__":
    run_command(main)
