"""Measure the speed of a configuration, beside a plain way of doing the same work.

examples:
  python scripts/benchmark.py train configs/camvid_segnet.yaml --size 224 224 --batch 2 --json train.json
  python scripts/benchmark.py data configs/voc_segnet.yaml data.workers=16 --gpu-rate 550
  python scripts/benchmark.py gpu configs/camvid_segnet.yaml --json gpu.json --minutes 10

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

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import PIL
import torch
import torchvision

from segnet.benchmarks.data import benchmark_data, print_rates, print_workers, workers_needed
from segnet.benchmarks.gpu import PARTS, Plan, as_markdown, earlier_parts, run_parts, unfinished_parts
from segnet.benchmarks.network import benchmark_inference, benchmark_training
from segnet.benchmarks.timing import Facts, print_table
from segnet.config.loading import load_config, override_config
from segnet.config.sections import Config
from segnet.system.command_line import run_command
from segnet.system.devices import choose_device, describe_device, describe_instructions, explain_full_memory
from segnet.system.errors import ExitCode, config_error
from segnet.system.files import write_text
from segnet.system.streams import printing_is_the_result


def main() -> None:
    arguments = _arguments()
    if not arguments.json:
        printing_is_the_result()
    config = load_config(arguments.config, arguments.overrides)
    if config.task != "segmentation":
        found = f"task: {config.task}, whose steps and pictures are not compared with plain PyTorch's"
        raise config_error(arguments.config, found, "name a configuration of a segmentation")
    conditions = _conditions(arguments, config)
    versions = ", ".join(f"{package} {version}" for package, version in conditions["versions"].items())
    print(f"benchmark {arguments.command} {arguments.config} on {conditions['device']}\n{versions}", flush=True)
    if arguments.command == "gpu":
        sys.exit(_measure_gpu(arguments, config, conditions))
    if arguments.command == "data":
        measured = benchmark_data(config, arguments.pictures, arguments.rounds)
        print_rates(measured)
        if arguments.gpu_rate:
            measured["gpu"] = workers_needed(measured["per_core"], arguments.gpu_rate)
            print_workers(measured["gpu"])
        document = {**conditions, **measured}
    else:
        measured = _benchmark_network(arguments, config)
        print_table(measured)
        if "native_kernel" in measured:
            print(f"native kernel: {measured['native_kernel']}")
        if "auto" in measured:
            print(f"inference.precision=auto: {measured['auto']}")
        document = {**conditions, **_surroundings(), **measured}
    if arguments.json:
        write_text(arguments.json, json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    what = {"inference": "from pictures to logits", "train": "a training step", "data": "reading and augmenting pictures"}
    what["gpu"] = "the first hour with a GPU, in parts"
    for name, text in what.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("config", type=Path, metavar="CONFIG")
        command.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
        rounds = 5 if name == "gpu" else 9
        command.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"rounds, each way in turn ({rounds})")
        needed = name == "gpu"
        command.add_argument("--json", type=Path, required=needed, metavar="FILE", help="write the JSON document there too")
        if name == "gpu":
            command.add_argument("--slice", nargs="+", choices=PARTS, metavar="PART", help=f"only these: {', '.join(PARTS)}")
            command.add_argument("--minutes", type=float, default=10, metavar="M", help="begin and measure no longer (10)")
            command.add_argument("--steps", type=int, default=100, metavar="N", help="steps whose losses are compared (100)")
            command.add_argument("--megapixels", type=float, default=12, metavar="X", help="size of the large picture (12)")
        elif name == "data":
            command.add_argument("--pictures", type=int, default=64, metavar="N", help="pictures per round (64)")
            command.add_argument("--gpu-rate", type=float, metavar="R", help="pictures/s that a GPU takes: can they be fed?")
        else:
            command.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of the pictures (augment.crop_size)")
            default = "train.batch_size" if name == "train" else "1"
            command.add_argument("--batch", type=int, metavar="N", help=f"pictures at once ({default})")
            command.add_argument("--compile", action="store_true", help="also torch.compile, which takes minutes first")
            command.add_argument("--emulated", action="store_true", help="also what the device emulates, slowly")
    arguments = parser.parse_args()
    options = ("rounds", "pictures", "gpu_rate", "steps")
    if any((getattr(arguments, option, None) or 1) < 1 or getattr(arguments, option, None) == 0 for option in options):
        parser.error("--rounds, --pictures, --gpu-rate and --steps are 1 or more")
    return arguments


def _conditions(arguments: argparse.Namespace, config: Config) -> Facts:
    """The configuration, the device and the versions that are measured."""
    device = torch.device("cpu") if arguments.command == "data" else choose_device(config.device)
    return {
        "benchmark": arguments.command,
        "config": str(arguments.config),
        "overrides": arguments.overrides,
        "device": f"{describe_device(device)}; instruction sets: {describe_instructions()}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "pillow": PIL.__version__,
        },
    }


def _measure_gpu(arguments: argparse.Namespace, config: Config, conditions: Facts) -> int:
    """Measure the parts that are left into the JSON document, and write its page. Returns the exit code."""
    path: Path = arguments.json
    document = {**conditions, **_surroundings(), "parts": earlier_parts(path, conditions)}

    def save(parts: Facts) -> None:
        write_text(path, json.dumps({**document, "parts": parts}, indent=1) + "\n")
        write_text(path.with_suffix(".md"), as_markdown({**document, "parts": parts}))

    tests = Path(__file__).resolve().parent.parent / "tests"
    plan = Plan(tests, steps=arguments.steps, rounds=arguments.rounds, megapixels=arguments.megapixels)
    parts = arguments.slice or unfinished_parts(document["parts"])
    left = run_parts(config, plan, parts, minutes=arguments.minutes, done=document["parts"], save=save)
    if left:
        print(f"left for another run of this command: {', '.join(left)}")
    print(f"written: {path} {path.with_suffix('.md')}\n{json.dumps(document)}")
    return ExitCode.SOME_FAILED if any("error" in part for part in document["parts"].values()) else ExitCode.DONE


def _benchmark_network(arguments: argparse.Namespace, config: Config) -> Facts:
    """The numbers of the inference or the training benchmark."""
    height, width = arguments.size or config.augment.crop_size
    training = arguments.command == "train"
    batch = arguments.batch or (config.train.batch_size if training else 1)
    changes = ["train.accumulate=1", f"train.batch_size={batch}", f"augment.crop_size=[{height},{width}]"]
    config = override_config(config, changes)
    benchmark = benchmark_training if training else benchmark_inference
    with explain_full_memory("lower --batch or --size"):
        return benchmark(config, rounds=arguments.rounds, compiled=arguments.compile, emulated=arguments.emulated)


def _surroundings() -> Facts:
    """Settings that change the speed: threads, backends, and environment variables that choose an allocator."""
    prefixes = ("MALLOC_", "LD_PRELOAD", "OMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "PYTORCH_", "TORCH_", "CUDA_", "NVIDIA_")
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "threads": torch.get_num_threads(),
        "environment": {key: value for key, value in sorted(os.environ.items()) if key.startswith(prefixes)},
        "backends": {
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "cuda": torch.version.cuda,
            "cudnn": cudnn.version(),
            "cudnn.benchmark": cudnn.benchmark,
            "cudnn.deterministic": cudnn.deterministic,
            "cudnn.allow_tf32": cudnn.allow_tf32,
            "matmul.allow_tf32": matmul.allow_tf32,
        },
    }


if __name__ == "__main__":
    run_command(main)
