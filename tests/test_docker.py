"""The image is built and its command answers, where docker is; its sources are there everywhere."""

import re
import shutil
import subprocess
from fnmatch import fnmatch

import pytest
from helpers import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def docker(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=seconds)


def test_what_is_copied_exists_and_is_not_ignored():
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert {"pyproject.toml", "requirements.txt", "segnet", "configs"} <= set(copied)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    everything, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("**")]
    assert everything == "*"
    assert [name for name in copied if not any(fnmatch(name, line.removeprefix("!")) for line in kept)] == []


def test_it_runs_as_no_root_and_its_entry_point_is_the_command():
    instructions = re.findall(r"^([A-Z]+) (.+)$", DOCKERFILE, re.MULTILINE)
    assert [value for name, value in instructions if name == "USER"][-1] not in ("root", "0")
    assert ("ENTRYPOINT", '["segnet"]') in instructions
    assert 'segnet = "' in (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[1]


@pytest.mark.timeout(3600)
def test_the_image_is_built_and_its_command_answers():
    if not shutil.which("docker") or docker("info", seconds=60).returncode:
        pytest.skip("no docker daemon answers here")
    base = DOCKERFILE.split("\nFROM ")[1].split()[0]
    if docker("image", "inspect", base, seconds=60).returncode and docker("pull", base, seconds=600).returncode:
        pytest.skip(f"{base} cannot be fetched here")
    built = docker("build", "--quiet", "--tag", "segnet-test", ".", seconds=3000)
    assert built.returncode == 0, built.stderr
    answered = docker("run", "--rm", "segnet-test", "--version", seconds=120)
    assert answered.returncode == 0, answered.stderr
    assert "0." in answered.stdout
    assert docker("run", "--rm", "--entrypoint", "id", "segnet-test", "-u", seconds=120).stdout.strip() not in ("", "0")
