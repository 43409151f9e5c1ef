"""The version of this program, and the commit of a clone."""

from __future__ import annotations

import subprocess
from pathlib import Path

VERSION = "0.1.0"
_SECONDS_FOR_GIT = 10


def program_commit() -> str:
    """The commit of this program; "unknown" without git, without a repository or when git fails: nothing needs it."""
    command = ["git", "describe", "--always", "--dirty"]
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, cwd=here, check=True, timeout=_SECONDS_FOR_GIT
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.decode(errors="replace").strip() or "unknown"
