"""The script of docs/slurm.md, with stand-ins for Slurm's commands: two agents of torchrun on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT, steps_logged

from segnet.runs.checkpoint import load_checkpoint
from segnet.system.distributed import restarted

SRUN = """#!/bin/bash
while [[ $1 = --* ]]; do shift; done
trap 'kill -USR1 $nodes' USR1
for node in 0 1; do SLURM_NODEID=$node "$@" & nodes="$nodes $!"; done
for node in $nodes; do wait $node; while kill -0 $node 2>/dev/null; do wait $node; done; done
exit 1
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; else echo "$@" > requeued; fi
"""


def page_script() -> str:
    found = re.search(r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "docs" / "slurm.md").read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder as the page's script expects it, with Slurm's commands in bin/."""
    folder = tmp_path / "cluster"
    torchrun = f'#!/bin/bash\nexec {sys.executable} -m torch.distributed.run "$@"\n'
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "torchrun": torchrun}.items():
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text("")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    (folder / "train.sbatch").write_text(page_script())
    return folder


def ranks_of(run: Path) -> list[int]:
    """The processes that train into `run`, without torchrun's own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if str(run) in words and "scripts/train.py" in words and "torch.distributed.run" not in words:
            found.append(int(path.parent.name))
    return sorted(found)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_script_is_bash_and_asks_for_what_the_page_says() -> None:
    assert subprocess.run(["bash", "-n"], input=page_script(), text=True).returncode == 0
    options = re.findall(r"^#SBATCH (\S+)", page_script(), re.MULTILINE)
    assert {"--requeue", "--nodes=2", "--signal=B:USR1@60"} <= set(options)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the ranks in /proc")
def test_a_killed_rank_is_replaced_and_the_warning_of_the_time_limit_requeues(
    cluster: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    text = tiny_config_file.read_text().replace("epochs: 2.0", "epochs: 100000").replace("batch_size: 2", "batch_size: 4")
    tiny_config_file.write_text(text)
    slurm = {"SLURM_JOB_NODELIST": "a,b", "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NUM_NODES": "2"}
    of_script = {"CONFIG": str(tiny_config_file), "RUN": str(run), "GPUS": "1", "PATH": f"{cluster / 'bin'}:{os.environ['PATH']}"}
    environment = {
        **os.environ,
        **slurm,
        **of_script,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with (tmp_path / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            ["bash", "train.sbatch"], cwd=cluster, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
        )
        try:
            wait_for(lambda: (run / "last.pt").exists(), process)
            first = ranks_of(run)
            os.kill(first[-1], signal.SIGKILL)
            wait_for(lambda: "resuming" in (tmp_path / "output.txt").read_text(), process)
            before = steps_logged(run)
            wait_for(lambda: steps_logged(run) > before + 3, process)
            second = ranks_of(run)
            process.send_signal(signal.SIGUSR1)
            process.wait(timeout=60)
        finally:
            for number in ranks_of(run) if process.poll() is None else []:
                os.kill(number, signal.SIGKILL)
        said = (tmp_path / "output.txt").read_text()
    assert (len(first), len(second)) == (2, 2), said
    assert not {*first} & {*second}
    assert "another rank was lost" in said
    stopped = re.findall(r"stopped at step (\d+); --resume continues", said)
    assert len(stopped) == 1, said
    assert load_checkpoint(run / "last.pt").step == int(stopped[0])
    assert (cluster / "requeued").read_text().split() == ["requeue", slurm["SLURM_JOB_ID"]]
    assert process.returncode != 0


@pytest.mark.parametrize(("count", "expected"), [(None, False), ("0", False), ("", False), ("1", True), ("3", True)])
def test_a_restart_of_torchrun_is_known(count: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    if count is not None:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
    assert restarted() == expected
