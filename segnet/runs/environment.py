"""The record of the machine and the versions with which a run was made."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision

from segnet.system.devices import describe_device
from segnet.system.distributed import world_size
from segnet.system.files import write_text

_SECONDS_FOR_GIT = 10


def record_environment(path: Path, device: torch.device, *, precision: Mapping[str, str], resumed_at: int | None) -> None:
    """Write what a number needs beside it to be believed, or add it for a resumption: versions, device, precision of training
    and inference, commit, command.

    Says so when a run goes on under another version of torch or on another device, since its bits may then differ.
    """
    now = {
        "command": " ".join(sys.argv),
        "commit": _commit(),
        "device": describe_device(device),
        "precision": precision,
        "ranks": world_size(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    record = _earlier_record(path) if resumed_at is not None else {}
    for key in ("torch", "device", "ranks"):
        if record.get(key, now[key]) != now[key]:
            print(f"note: the run began with {key} {record[key]}; its numbers may differ in the last digits from here on")
    record = {**record, "resumed": [*record["resumed"], {"step": resumed_at, **now}]} if record else {**now, "resumed": []}
    write_text(path, json.dumps(record, indent=1) + "\n")


def _earlier_record(path: Path) -> dict[str, Any]:
    """What stands in environment.json; nothing where it is gone or was edited into something else: the record begins anew."""
    try:
        record = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("resumed"), list) else {}


def _commit() -> str:
    """The commit of this program, or "unknown": a machine needs no git, no repository and no answer from it to train."""
    command = ["git", "describe", "--always", "--dirty"]
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, cwd=here, check=True, timeout=_SECONDS_FOR_GIT
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.decode(errors="replace").strip() or "unknown"
