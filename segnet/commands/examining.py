"""What `segnet doctor` tells: the facts of this machine, and what will be slow because of them."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

from segnet.layers.native import find_compiler, find_kernel
from segnet.layers.winograd import describe_kernel
from segnet.system.devices import (
    choose_device,
    choose_precision,
    describe_device,
    describe_instructions,
    driver_version,
    memory_of,
    usable_cores,
)
from segnet.system.version import program_version

_REQUIRED = ("torch", "torchvision", "numpy", "pillow", "pydantic", "tensorboard")
_OPTIONAL = {
    "onnx": "export to .onnx",
    "onnxscript": "export to .onnx",
    "onnxruntime": "predict with a .onnx file",
    "openvino": "export to .xml, and predict with it",
    "nncf": "export --int8",
    "scipy": "prepare sbd",
    "tifffile": "TIFF pictures that Pillow does not read: deep, many bands",
    "imagecodecs": "compressed TIFF pictures of that kind",
    "imageio-ffmpeg": "predict videos",
    "mlflow": "training shown in MLflow",
    "wandb": "training shown in Weights & Biases",
    "argcomplete": "completion in the shell",
}
_ABSENT = "not installed"
_LITTLE = 4.0  # GB of free memory or disk, below which a full-size training or a download of a public set does not fit


class Facts(NamedTuple):
    """What was found, each by its name."""

    versions: dict[str, str]
    machine: dict[str, str]
    packages: dict[str, str]  # optional ones: the version, or that there is none
    slow: list[str]  # sentences: what will be slow, or will not fit, and why


def examine() -> Facts:
    """The facts of this machine."""
    device = choose_device("auto")
    memory, disk = memory_of(device), shutil.disk_usage(Path.cwd())
    kernel = find_kernel()
    machine = {
        "system": platform.platform(),
        "device": describe_device(device),
        "precision": str(choose_precision("auto", device)),
        "instructions": describe_instructions(),
        "threads": f"{torch.get_num_threads()} of {usable_cores()} cores",
        "memory": f"{memory.free:.1f} of {memory.total:.1f} GB free" + (" on the GPU" if device.type == "cuda" else ""),
        "disk": f"{disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB free in {Path.cwd()}",
        "compiler": find_compiler(),
        "native kernel": describe_kernel(),
    }
    versions = {"segnet": program_version(), "python": platform.python_version()}
    versions |= {name: _version(name) for name in _REQUIRED}
    versions["CUDA of torch"] = torch.version.cuda or "none: torch is built without"
    packages = {name: _version(name) for name in _OPTIONAL}
    return Facts(versions, machine, packages, _slow(device, kernel.kernel is not None, memory.free, disk.free / 1e9))


def as_text(facts: Facts) -> str:
    """The facts as aligned lines."""
    sections = {"versions": facts.versions, "this machine": facts.machine}
    lines = [line for title, rows in sections.items() for line in (title, *(f"  {key:<15}{rows[key]}" for key in rows))]
    lines.append("optional packages")
    lines += [f"  {name:<15}{found:<15}{_OPTIONAL[name]}" for name, found in facts.packages.items()]
    lines.append("what will be slow" if facts.slow else "nothing here will be slow")
    return "\n".join([*lines, *(f"  {sentence}" for sentence in facts.slow)])


def _slow(device: torch.device, has_kernel: bool, memory: float, disk: float) -> list[str]:
    """What will be slow or will not fit, and why."""
    found = []
    if device.type == "cpu":
        found.append("training at full size: there is no GPU; sample and the recipes named *_cpu are made for processors")
        if driver_version() is not None:
            found.append("the GPU is not used: there is a driver, and torch finds no device; see CUDA of torch above")
        if not has_kernel:
            found.append("convolutions in float32: the native kernel is not there, torch's operations are slower")
        if choose_precision("auto", device).name == "float32":
            found.append("training: the processor has no fast bfloat16, so it computes in float32")
    elif choose_precision("auto", device).name == "float32":
        found.append("training: the GPU has no tensor cores, so it computes in float32")
    if torch.get_num_threads() < usable_cores():
        found.append(f"all on the CPU: torch uses {torch.get_num_threads()} of {usable_cores()} cores; see OMP_NUM_THREADS")
    if memory < _LITTLE:
        found.append(f"large pictures and batches: {memory:.1f} GB of memory are free; lower train.batch_size")
    if disk < _LITTLE:
        found.append(f"public data sets do not fit: {disk:.1f} GB of the disk are free")
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _ABSENT
