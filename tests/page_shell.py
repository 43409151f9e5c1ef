"""A shell in which `segnet` and `python` are forks of a process that has imported torch and the project already.

`Shell.start` gives a line to bash as it stands. The programs `segnet` and `python` that bash finds are this file, with the
standard library alone: they ask the script server for a fork with their own arguments, folder, environment and output, and end
as it ends. A command may get more words behind its own, which make it small.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

SMALLER = "smaller.json"  # beside the programs: more words, by the words with which a command begins
SERVER = "server"  # beside the programs: the socket that takes requests for forks
PROGRAM = Path(__file__).with_name("page_program.py")


class Shell:
    """Bash, with programs in the folder `programs` that it finds first."""

    def __init__(self, programs: Path, smaller: dict[str, str]) -> None:
        from helpers import ROOT  # here, because the programs have none of these
        from PIL import _plugins as pillow_formats
        from script_server import ScriptServer, script_environment

        self.programs = programs
        programs.mkdir()
        (programs / SMALLER).write_text(json.dumps(smaller))
        for name in ("segnet", "python"):
            self.add(name, f'exec {shlex.join([sys.executable, "-IS", __file__, name, str(programs)])} "$@"\n')
        self._environment = {**script_environment(), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        files = [path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "segnet").rglob("[!_]*.py"))]
        formats = [f"PIL.{name}" for name in pillow_formats if name not in ("FpxImagePlugin", "MicImagePlugin")]
        self._server = ScriptServer(script_environment(), [*(".".join(path.parts) for path in files), *formats])
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(programs / SERVER))
        self._listener.listen()
        Thread(target=self._hand_on, daemon=True).start()

    def add(self, name: str, text: str) -> None:
        """A program, by its lines in the language of the shell."""
        (self.programs / name).write_text(f"#!/bin/sh\n{text}")
        (self.programs / name).chmod(0o755)

    def start(self, line: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
        """Begin a line in a folder. What it prints, errors too, is in `stdout`."""
        return subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", line],
            cwd=folder,
            env={**self._environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def _hand_on(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with client:
                request, files, *_ = socket.recv_fds(client, 1 << 18, 3)
            with contextlib.suppress(OSError):  # the server died, which the program sees
                self._server.forward(request, files)
            for file in files:
                os.close(file)


def smaller_words(words: list[str], smaller: dict[str, str]) -> list[str]:
    """The additional words of a command: those of the longest beginning that it has."""
    fitting = [start for start in smaller if words[: len(start.split())] == start.split()]
    return smaller[max(fitting, key=len)].split() if fitting else []


def fork_of(program: str, programs: Path, words: list[str]) -> list[str]:
    """The arguments of `page_program.py` for a command line; none, if it is for another Python."""
    smaller = json.loads((programs / SMALLER).read_text())
    python = str(programs / "python")
    if program == "segnet":
        return [python, "segnet", *words, *smaller_words(words, smaller)]
    if words[:2] == ["-m", "segnet"]:  # another command begins it, with the words that make it small
        return [python, "segnet", *words[2:]]
    if words[:1] and words[0].endswith(".py"):
        command = [Path(words[0]).stem.replace("prepare_data", "prepare"), *words[1:]]
        return [python, *words, *smaller_words(command, smaller)]
    return []


def run_in_fork(words: list[str], server: Path) -> int:
    """The exit status of a fork that prints where this process prints. It gets the signals that this process gets."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {"arguments": [str(PROGRAM), *words], "cwd": os.getcwd(), "environment": dict(os.environ), "session": None}
    with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(server))
        socket.send_fds(client, [json.dumps(request).encode()], [theirs.fileno(), 1, 2])
    started = control.recv(1000)
    assert started, "the script server died"
    process = int(started)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(process, number))
    status = int(control.recv(1000))
    control.send(b"seen")
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    _, name, folder, *given = sys.argv
    fork = fork_of(name, Path(folder), given)
    if not fork:
        os.execv(sys.executable, [sys.executable, *given])
    sys.exit(run_in_fork(fork, Path(folder) / SERVER))
