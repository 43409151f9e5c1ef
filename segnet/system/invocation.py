"""How this process was started, as the command `segnet` or from a script: help texts and messages spell commands likewise."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "scripts"  # of a clone; an installation has none
_SCRIPTS = {
    "train": "train.py",
    "evaluate": "evaluate.py",
    "predict": "predict.py",
    "prepare": "prepare_data.py",
    "check": "prepare_data.py check",
    "convert": "prepare_data.py convert",
    "split": "prepare_data.py split",
    "import": "prepare_data.py import",
    "plan": "plan.py",
    "show": "show.py",
    "export": "export.py",
    "serve": "serve.py",
    "compare": "compare.py",
    "benchmark": "benchmark.py",
    "results": "results.py",
}


def is_segnet() -> bool:
    """Whether this process is the command `segnet`, or there are no scripts that it could be instead."""
    started = Path(sys.argv[0])
    return started.name == "segnet" or started.parts[-2:] == ("segnet", "__main__.py") or not _FOLDER.is_dir()


def as_started(text: str) -> str:
    """`text` with its commands `segnet NAME …` spelled as `python scripts/NAME.py …`, unless this process is `segnet`."""
    if is_segnet():
        return text
    commands = rf"(?<!-m )(?<!-m -- )\bsegnet ({'|'.join(_SCRIPTS)})\b"  # a module of torchrun has no other spelling
    return re.sub(commands, lambda found: f"python scripts/{_SCRIPTS[found[1]]}", text)
