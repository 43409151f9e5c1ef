"""A script in a fork is told apart from one in a process of its own by nothing that tests ask for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import group_lives
from script_server import script_environment, script_server

SCRIPT = """
import json, os, signal, sys
state = {
    "arguments": sys.argv[1:],
    "name": __name__,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "path": [part for part in sys.path if part.endswith("tests")],
    "project": sorted(name for name in sys.modules if name.partition(".")[0] in ("segnet", "helpers", "script_server")),
    "streams": [(stream.encoding, stream.errors, stream.fileno()) for stream in (sys.stdout, sys.stderr)],
    "ignored": [number for number in (1, 2, 15) if signal.getsignal(number) is signal.SIG_IGN],
}
print(json.dumps(state), flush=True)
print("é\\udce9", file=sys.stderr)
exec(sys.argv[1])
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('words')", 1),
        ("1 / 0", 1),
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15),
    ],
)
def test_it_ends_as_a_process_of_its_own_and_finds_what_that_finds(script: Path, tmp_path: Path, code: str, status: int) -> None:
    server, environment = script_server(), script_environment() | {"SOMETHING": "new", "PYTHONPATH": ""}
    environment = {name: text for name, text in environment.items() if name != "HOME"}
    arguments = [str(script), code, "größe", os.fsdecode(b"\xe9")]
    process = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    fork = server.run(arguments, tmp_path, environment, timeout=60)
    assert (fork.returncode, fork.stdout) == (process.returncode, process.stdout)
    assert fork.returncode == status
    assert fork.stderr.splitlines()[-1:] == process.stderr.splitlines()[-1:]  # a traceback has other lines above its last


def test_an_environment_that_matters_at_the_start_does_not_fit() -> None:
    environment = script_environment()
    assert script_server().fits(environment | {"HOME": "/nowhere", "SEGNET_NATIVE": "0"})
    for name in ("PYTHONIOENCODING", "LC_ALL", "OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "CUDA_VISIBLE_DEVICES"):
        assert not script_server().fits(environment | {name: "3"}), name
    assert not script_server().fits({name: text for name, text in environment.items() if name != "OMP_NUM_THREADS"})


def test_a_process_is_waited_for_killed_and_gone_with_its_group(script: Path, tmp_path: Path) -> None:
    process = script_server().start([str(script), "signal.pause()"], tmp_path, script_environment(), session=[signal.SIGTERM])
    assert process.stdout.readline().startswith(b"{")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.01)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.01)
    assert os.getpgid(process.pid) == process.pid
    process.kill()
    assert process.wait(timeout=60) == process.returncode == process.poll() == -signal.SIGKILL
    assert not group_lives(process.pid)


def test_an_end_that_nobody_has_seen_keeps_its_id(script: Path, tmp_path: Path) -> None:
    process = script_server().start([str(script), ""], tmp_path, script_environment(), session=[])
    while process.stdout.readline():
        pass
    os.killpg(process.pid, signal.SIGTERM)  # nobody is hit
    assert process.communicate(timeout=60)[0] == b""
    assert process.returncode in (0, -signal.SIGTERM)
