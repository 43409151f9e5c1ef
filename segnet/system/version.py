"""The version of this program, and the commit of a clone."""

from __future__ import annotations

import subprocess
from pathlib import Path

VERSION = "0.1.0"
_SECONDS_FOR_GIT = 10


def program_commit() -> str:
    """The commit of this program; "unknown" without git, outside of a clone or when git fails: nothing needs it."""
    command = ["git", "describe", "--always", "--dirty"]
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():  # installed, perhaps inside the repository of another program
        return "unknown"
    try:
        told = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, cwd=here, check=True, timeout=_SECONDS_FOR_GIT
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.decode(errors="replace").strip() or "unknown"


def program_version() -> str:
    """The version, and the commit of a clone."""
    commit = program_commit()
    return VERSION if commit == "unknown" else f"{VERSION} (commit {commit})"
