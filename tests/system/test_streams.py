"""A lost output does not stop a command, unless its output is its result; every text is printable."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

PRELUDE = """
import importlib.util, sys, types
spec = importlib.util.find_spec("segnet")
sys.modules["segnet"] = importlib.util.module_from_spec(spec)  # without torch, which takes seconds to import
sys.modules["segnet.system.distributed"] = types.SimpleNamespace(is_main=lambda: True)
from segnet.system.command_line import run_command
from segnet.system.streams import printing_is_the_result
"""
WORK = f"""{PRELUDE}
import contextlib, os

def main():
    for number in range(2000):
        print("line", number)
    sys.stdout.flush()
    print("message", file=sys.stderr)
    with open(sys.argv[1], "w") as file:
        with contextlib.suppress(OSError):
            os.write(1, b"stray")
        file.write("whole")

run_command(main)
"""
SHOW = WORK.replace("def main():", "def main():\n    printing_is_the_result()")


def shell(script: str, redirections: str, path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """`script` in a process of its own, with the shell's redirections.

    Its file 9 is a pipe that nobody reads.
    """
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    command = ["bash", "-c", f'exec "$0" -c "$1" "$2" 9>&{writing} {redirections}', sys.executable, script, str(path)]
    try:
        return subprocess.run(
            command, env=environment, pass_fds=[writing], capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        os.close(writing)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("redirections", "messages"),
    [
        (">/dev/full", ["warning: standard output: No space left on device; the work goes on without it", "message"]),
        (">&9", ["warning: standard output: Broken pipe; the work goes on without it", "message"]),
        (">/dev/full 2>&1", []),
        (">&-", ["message"]),
        ("<&- >&- 2>&-", []),
    ],
)
def test_work_goes_on_without_its_output(tmp_path: Path, redirections: str, messages: list[str], unbuffered: str) -> None:
    found = shell(WORK, redirections, tmp_path / "result", PYTHONUNBUFFERED=unbuffered)
    assert (found.returncode, found.stderr.splitlines()) == (0, messages)
    assert (tmp_path / "result").read_text() == "whole"  # and nothing that was meant for a closed stream


def test_work_goes_on_without_its_messages(tmp_path: Path) -> None:
    found = shell(WORK, "2>/dev/full", tmp_path / "result")
    assert found.returncode == 0
    assert "warning: standard error: No space left on device; the work goes on without it" in found.stdout
    assert (tmp_path / "result").read_text() == "whole"


def test_work_goes_on_when_its_terminal_is_gone(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"import sys\nsys.stdin.readline()\n{WORK}", str(tmp_path / "result")]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.close(ours)
    process.communicate(b"\n", timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "result").read_text() == "whole"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("redirections", "code", "message"),
    [
        (">&9", 141, ""),
        (">/dev/full", 5, "error: standard output: No space left on device\n"),
        (">&-", 5, "error: standard output: Bad file descriptor\n"),
    ],
)
def test_a_command_that_only_prints_fails_with_its_output(
    tmp_path: Path, redirections: str, code: int, message: str, unbuffered: str
) -> None:
    found = shell(SHOW, redirections, tmp_path / "result", PYTHONUNBUFFERED=unbuffered)
    assert (found.returncode, found.stderr) == (code, message)


def test_help_that_nobody_can_read_is_a_failure(tmp_path: Path) -> None:
    script = f"{PRELUDE}\nimport argparse\nrun_command(lambda: argparse.ArgumentParser().parse_args(['-h']))"
    found = shell(script, ">/dev/full", tmp_path)
    assert (found.returncode, found.stderr.splitlines()[-1]) == (5, "error: standard output: No space left on device")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r"a - b 3x4 gr\xf6\xdfe l\udce9 \U0001f600"),
        ("latin-1", r"a - b 3×4 größe l\udce9 \U0001f600"),
        ("utf-8:strict", r"a – b 3×4 größe l\udce9 😀"),
    ],
)
def test_every_text_is_printable_in_every_encoding(tmp_path: Path, encoding: str, shown: str) -> None:
    script = f"{PRELUDE}\nrun_command(lambda: print('a \u2013 b 3\xd7\x34 gr\xf6\xdfe l\\udce9 \U0001f600'))"
    path = tmp_path / "shown"
    found = shell(script, f">'{path}'", path, PYTHONIOENCODING=encoding)
    assert (found.returncode, found.stderr) == (0, "")
    assert path.read_text(encoding=encoding.split(":")[0]) == shown + "\n"
