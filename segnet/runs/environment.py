"""environment.json: the command, the versions and the machine of a run."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision

from segnet.system.devices import describe_device, gpu_facts
from segnet.system.distributed import world_size
from segnet.system.files import read_json_object, write_text
from segnet.system.version import program_commit


def record_environment(
    path: Path,
    device: torch.device,
    *,
    precision: Mapping[str, str],
    resumed_at: int | None,
    weights: Mapping[str, object] | None = None,
    data: Mapping[str, object] | None = None,
) -> None:
    """Write command, commit, device, precision, ranks and versions to `path`; with `resumed_at`, a step, add them to the file.

    `precision` holds that of training and that of inference, `weights` the origin of the first weights where they are those of an
    earlier run, `data` the number of pictures and their digest. Prints a note when a run resumes with another version of torch,
    on another device or with another number of ranks: its numbers may then differ in the last bits.
    """
    now = {
        "command": " ".join(sys.argv),
        "commit": program_commit(),
        "device": describe_device(device),
        **gpu_facts(device),
        "precision": precision,
        "ranks": world_size(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        **({"weights": weights} if weights else {}),
    }
    record = _earlier_record(path) if resumed_at is not None else {}
    for key in ("torch", "device", "cudnn", "ranks"):
        if key in now and record.get(key, now[key]) != now[key]:
            print(f"note: the run began with {key} {record[key]}; its numbers may differ in the last digits from here on")
    record = {**record, "resumed": [*record["resumed"], {"step": resumed_at, **now}]} if record else {**now, "resumed": []}
    if data:
        record["data"] = data  # of a resumed run the same
    write_text(path, json.dumps(record, indent=1) + "\n")


def _earlier_record(path: Path) -> dict[str, Any]:
    """The content of environment.json; empty when it is missing or not of this program, and then the record begins anew."""
    record = read_json_object(path)
    return record if isinstance(record.get("resumed"), list) else {}
