"""The work of `commands.benchmark`: from the arguments to numbers."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import PIL
import torch
import torchvision

from segnet.benchmarks.data import benchmark_data, print_rates, print_workers, workers_needed
from segnet.benchmarks.gpu import Plan, as_markdown, earlier_parts, run_parts, unfinished_parts
from segnet.benchmarks.network import benchmark_inference, benchmark_training
from segnet.benchmarks.timing import Facts, print_table
from segnet.config.loading import load_config, override_config
from segnet.config.sections import Config
from segnet.system.devices import choose_device, describe_device, describe_instructions, explain_full_memory
from segnet.system.errors import ExitCode, config_error
from segnet.system.files import write_text
from segnet.system.streams import printing_is_the_result


def measure(arguments: argparse.Namespace) -> ExitCode:
    """Measure what the `arguments` of `commands.benchmark` say, and print it."""
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
        return _measure_gpu(arguments, config, conditions)
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
    return ExitCode.DONE


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


def _measure_gpu(arguments: argparse.Namespace, config: Config, conditions: Facts) -> ExitCode:
    """Measure the parts that are left into the JSON document, and write its page. Returns the exit code."""
    path: Path = arguments.json
    document = {**conditions, **_surroundings(), "parts": earlier_parts(path, conditions)}

    def save(parts: Facts) -> None:
        write_text(path, json.dumps({**document, "parts": parts}, indent=1) + "\n")
        write_text(path.with_suffix(".md"), as_markdown({**document, "parts": parts}))

    tests = Path(__file__).resolve().parents[2] / "tests"
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
