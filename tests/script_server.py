"""Scripts in forks of one process that has imported torch already, which costs each new process three seconds.

`ScriptServer().start(…)` gives what `subprocess.Popen` gives: a process with a session of its own if wanted, its exit status, its
output. It differs from a process started afresh only in what the interpreter and its libraries do and read at their start, so
`fits` refuses an environment that would change that.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import math
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

LIBRARIES = ("torch", "torchvision.transforms.v2", "PIL.Image", "pydantic", "scipy", "yaml")  # none of this project
READ_AT_START = ("PYTHON", "LC_", "LANG", "MALLOC_", "LD_", "OMP_", "MKL_", "ATEN_", "ONEDNN_", "TORCH", "CUDA_")
MESSAGE = 1 << 18  # bytes, at most


class ScriptProcess:
    """A running script; `returncode` is None until `poll` or `wait` has seen its end, as in `subprocess.Popen`."""

    def __init__(self, control: socket.socket, stdout: IO[bytes]) -> None:
        self.stdout = stdout
        self.returncode: int | None = None
        self._control = control
        answer = control.recv(MESSAGE)
        assert answer, "the script server died"
        self.pid = int(answer)

    def poll(self) -> int | None:
        """The exit status, minus the signal, or None while it runs."""
        with contextlib.suppress(TimeoutError, subprocess.TimeoutExpired):
            self.wait(1e-4)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises subprocess.TimeoutExpired after so many seconds."""
        if self.returncode is None:
            self._control.settimeout(timeout)
            try:
                answer = self._control.recv(MESSAGE)
            except TimeoutError:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None
            assert answer, "the keeper of the script died"
            self.returncode = int(answer)
            self._control.settimeout(None)
            self._control.send(b"seen")
            self._control.recv(MESSAGE)  # the end of the keeper: now the process is reaped
            self._control.close()
        return self.returncode

    def communicate(self, timeout: float = math.inf) -> tuple[bytes, None]:
        """What is printed until all that hold the pipe have ended, and None. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        parts = []
        os.set_blocking(self.stdout.fileno(), False)
        while (part := self.stdout.read(MESSAGE)) != b"":
            if part:
                parts.append(part)
            elif time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout, b"".join(parts))
            else:
                time.sleep(0.002)
        self.stdout.close()
        self.wait(None if timeout == math.inf else max(0.1, deadline - time.monotonic()))
        return b"".join(parts), None

    def kill(self) -> None:
        """SIGKILL to the process alone."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


class ScriptServer:
    """The process that forks scripts. It ends with this object's process, whatever ends that."""

    def __init__(self, environment: dict[str, str], more: Sequence[str] = ()) -> None:
        """`more` are modules that it imports beside LIBRARIES."""
        self._environment = environment
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno()), *more]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL)

    def fits(self, environment: dict[str, str]) -> bool:
        """Whether a fork with this environment does what a process does that starts with it."""
        changed = set(environment.items()) ^ set(self._environment.items())
        return not any(name.startswith(READ_AT_START) for name, _ in changed)

    def forward(self, request: bytes, files: Sequence[int]) -> None:
        """Hand on a request that another process wrote, with the sockets and files that came with it."""
        socket.send_fds(self._socket, [request], files)

    def start(
        self,
        arguments: list[str],
        cwd: Path,
        environment: dict[str, str],
        *,
        stderr: IO[bytes] | None = None,
        session: Sequence[signal.Signals] | None = None,
    ) -> ScriptProcess:
        """Start the script `arguments[0]`. Its stderr goes to its stdout where no file is given.

        With `session` it leads a session of its own in which none of these signals is ignored.
        """
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = os.pipe()
        request = json.dumps({"arguments": arguments, "cwd": str(cwd), "environment": environment, "session": session})
        errors = stderr.fileno() if stderr else writing
        socket.send_fds(self._socket, [request.encode()], [theirs.fileno(), writing, errors])
        theirs.close()
        os.close(writing)
        return ScriptProcess(control, open(reading, "rb", buffering=0))

    def run(
        self, arguments: list[str], cwd: Path, environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """`subprocess.run` with captured output as text."""
        with tempfile.TemporaryFile() as stderr:
            process = self.start(arguments, cwd, environment, stderr=stderr)
            try:
                output = process.communicate(timeout)[0]
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            stderr.seek(0)
            errors = stderr.read()
        return subprocess.CompletedProcess(arguments, process.wait(), output.decode(), errors.decode())


@functools.cache
def script_server() -> ScriptServer:
    """The server of this process, with one thread and without a GPU."""
    return ScriptServer(script_environment())


def script_environment() -> dict[str, str]:
    """The environment of a script: one thread, and no GPU."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _serve(requests: socket.socket) -> list[str]:
    """Fork at each request. Returns the arguments of the script in the process that shall run it, and nowhere else."""
    while True:
        message, files, *_ = socket.recv_fds(requests, MESSAGE, 3)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # keepers that have ended
                pass
        if not message:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            return _keep(json.loads(message), *files)
        for file in files:
            os.close(file)


def _keep(request: dict[str, Any], control: int, stdout: int, stderr: int) -> list[str]:
    """Fork the script and tell its end. Its id stays taken until that was seen. Returns as `_serve` does."""
    script = os.fork()
    if not script:
        os.close(control)
        return _prepare(request, stdout, stderr)
    os.close(stdout)
    os.close(stderr)
    with socket.socket(fileno=control) as client, contextlib.suppress(ConnectionError):
        client.send(str(script).encode())
        ended = os.waitid(os.P_PID, script, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        client.send(str(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status).encode())
        client.recv(MESSAGE)
        os.waitpid(script, 0)
    os._exit(0)


def _prepare(request: dict[str, Any], stdout: int, stderr: int) -> list[str]:
    """Make this process what a script finds at its start."""
    if request["session"] is not None:
        os.setsid()
        for number in request["session"]:  # background jobs and nohup ignore some
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, file, name in ((1, stdout, "stdout"), (2, stderr, "stderr")):
        os.dup2(file, number)
        start, buffering = getattr(sys, name), 1 if name == "stderr" else -1
        stream = open(number, "w", buffering, encoding=start.encoding, errors=start.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    for file in {stdout, stderr}:
        os.close(file)
    sys.argv = request["arguments"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    return sys.argv


def _run_script(path: str) -> None:
    """Run a script and end the process. After SystemExit with a number, it ends without taking torch apart: that takes 0.3 s."""
    try:
        runpy.run_path(path, run_name="__main__")
        status = 0
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        status = end.code or 0
    threading._shutdown()  # type: ignore[attr-defined]  # the end of every process: it waits for threads,
    atexit._run_exitfuncs()  # calls what was registered,
    try:
        sys.stdout.flush()  # and writes what is left
        sys.stderr.flush()
    except OSError:
        sys.exit(status)  # the interpreter says that it cannot
    os._exit(status & 0xFF)


if __name__ == "__main__":
    for library in (*LIBRARIES, *sys.argv[2:]):
        importlib.import_module(library)
    gc.freeze()  # or a collection in a fork would copy all pages
    _run_script(_serve(socket.socket(fileno=int(sys.argv[1])))[0])
