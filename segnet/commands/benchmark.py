"""Measure the speed of a configuration, beside a plain way of doing the same work.

examples:
  segnet benchmark train configs/camvid_segnet.yaml --size 224 224 --batch 2 --json train.json
  segnet benchmark data configs/voc_segnet.yaml data.workers=16 --gpu-rate 550
  segnet benchmark gpu configs/camvid_segnet.yaml --json gpu.json --minutes 10

`data`: pictures per second from files, and from decoded samples, to batches of uint8, against Pillow and NumPy to batches of
floats. "Per core" is per second of processor time of one thread, so that other programs on the machine disturb it little.
`inference` and `train`: one forward pass, and one training step, against the plain network in NCHW and float32 with the same
weights. Outputs are compared first; then all ways take turns. Quartiles are those of the ratio over the rounds. "Of peak" is the
fraction of the rate of the fastest large 3×3 convolution in the same precision. "Saved" is the memory that an image keeps for the
backward pass. Allocators matter: compare runs with the same variables in `environment`.
`gpu`: what a new GPU should show first, part by part: its tests, waits of a training step, deterministic training, losses beside
the CPU's, speeds, the loader and a large picture in little memory. Repeat the command to measure what is left; a page of
Markdown is written beside the JSON file. On a CPU (device=cpu) each part says what it left out.
The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from segnet.commands.choices import GPU_PARTS
from segnet.commands.parsers import above_zero, add_overrides, command_parser, complete_configs, parse
from segnet.system.command_line import count_up_to
from segnet.system.errors import ExitCode


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = command_parser("benchmark", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    count = count_up_to(1_000_000, least=1)
    what = {"inference": "from pictures to logits", "train": "a training step", "data": "reading and augmenting pictures"}
    what["gpu"] = "the first hour with a GPU, in parts"
    for name, text in what.items():
        command = commands.add_parser(name, help=text)
        complete_configs(
            command.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file, or a name such as sample")
        )
        add_overrides(command)
        rounds = 5 if name == "gpu" else 9
        command.add_argument("--rounds", type=count, default=rounds, metavar="N", help=f"rounds, each way in turn ({rounds})")
        needed = name == "gpu"
        command.add_argument(
            "--json", type=Path, required=needed, metavar="FILE", help="also write the JSON document into this file"
        )
        if name == "gpu":
            command.add_argument(
                "--slice", nargs="+", choices=GPU_PARTS, metavar="PART", help=f"only these: {', '.join(GPU_PARTS)}"
            )
            command.add_argument(
                "--minutes",
                type=above_zero,
                default=10,
                metavar="M",
                help="after M minutes give up the running part and start no other (default: 10)",
            )
            command.add_argument(
                "--steps", type=count, default=100, metavar="N", help="steps whose losses are compared (default: 100)"
            )
            command.add_argument(
                "--megapixels",
                type=above_zero,
                default=12,
                metavar="X",
                help="size of the large picture, megapixels (default: 12)",
            )
        elif name == "data":
            command.add_argument("--pictures", type=count, default=64, metavar="N", help="pictures per round (default: 64)")
            command.add_argument(
                "--gpu-rate",
                type=above_zero,
                metavar="R",
                help="pictures per second that a GPU takes; prints whether the workers can deliver them",
            )
        else:
            command.add_argument(
                "--size", type=count, nargs=2, metavar=("H", "W"), help="size of the pictures (default: augment.crop_size)"
            )
            default = "train.batch_size" if name == "train" else "1"
            command.add_argument("--batch", type=count, metavar="N", help=f"pictures in a batch (default: {default})")
            command.add_argument(
                "--compile", action="store_true", help="also measure torch.compile, which takes minutes to compile"
            )
            command.add_argument(
                "--emulated", action="store_true", help="also measure precisions that the device only emulates, slowly"
            )
    return parser


def main(arguments: list[str] | None = None) -> ExitCode:
    """Measure, and print the numbers as a table and as JSON."""
    given = parse(build_parser(), arguments)
    from segnet.commands.measuring import measure

    return measure(given)
