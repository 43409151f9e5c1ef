"""Run folders: which of their checkpoints can be loaded, what was left behind, and how they are damaged."""

from __future__ import annotations

import os
import random
import re
import shutil
import tempfile
from pathlib import Path

from segnet.runs.checkpoint import load_checkpoint
from segnet.system.errors import ExitCode, UserError

CHECKPOINTS = ("last.pt", "previous.pt")  # what --resume may continue from


def flip(data: bytes, bit: int) -> bytes:
    """`data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def load_damaged(path: Path, flips: int, truncations: int, *, seed: int) -> int:
    """Load damaged copies of `path`; prints each that is not refused as it should be. Exit status 0: all were."""
    dice, data, status = random.Random(seed), path.read_bytes(), 0
    damages = [(f"bit {bit} flipped", flip(data, bit)) for bit in (dice.randrange(8 * len(data)) for _ in range(flips))]
    damages += [(f"cut to {size} bytes", data[:size]) for size in (dice.randrange(len(data)) for _ in range(truncations))]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "last.pt"
        for what, damaged in damages:
            copy.write_bytes(damaged)
            try:
                load_checkpoint(copy)
                print(f"loaded: {what} of {len(data)} bytes")
                status = 1
            except UserError as error:
                if error.code != ExitCode.CHECKPOINT or str(copy) not in str(error):
                    print(f"refused wrongly: {what}: {error}")
                    status = 2
            if sorted(os.listdir(folder)) != ["last.pt"] or copy.read_bytes() != damaged:
                print(f"folder changed: {what}")
                status = 2
    return status


def newest_valid(run: Path) -> int | None:
    """The step of the newest checkpoint that --resume can continue from; None: there is none."""
    steps = []
    for name in CHECKPOINTS:
        try:
            steps.append(load_checkpoint(run / name).step)
        except UserError:
            continue
    return max(steps, default=None)


def damaged(run: Path) -> list[str]:
    """The checkpoints in `run` that cannot be loaded: a kill leaves none."""
    bad = []
    for path in sorted(run.glob("*.pt")):
        try:
            load_checkpoint(path)
        except UserError as error:
            bad.append(str(error))
    return bad


def temporaries(run: Path) -> list[str]:
    """What unfinished writes left."""
    return [path.name for path in run.glob("*.tmp")] + [path.name for path in run.glob(".*.tmp")]


def first_step_printed(output: str) -> int | None:
    """The first step of which a run printed its loss."""
    found = re.search(r"^step (\d+)/", output, re.MULTILINE)
    return int(found[1]) if found else None


def copy_run(source: Path, target: Path) -> Path:
    """A copy of a run folder, to try something on."""
    return Path(shutil.copytree(source, target))
