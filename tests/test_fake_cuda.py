"""The CUDA path on fake tensors.

fake_cuda.py says what that shows, cuda_audit.py is what runs, cuda_mistakes.py what is planted in it. With SEGNET_EXHAUSTIVE=1
every recipe runs in every combination of precision, recomputation and optimizer.
"""

import json
import os
import subprocess
import sys

import cuda_audit
import cuda_mistakes
import pytest
import torch
from cuda_audit import Case, Report
from cuda_mistakes import Mistake
from fake_cuda import missing_names

EXHAUSTIVE = bool(os.environ.get("SEGNET_EXHAUSTIVE"))
CASES = cuda_audit.cases(everything=EXHAUSTIVE)
MISTAKES = cuda_mistakes.mistakes()
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    """The report of every case and of every mistake, from one process of its own."""
    missing = missing_names()
    if missing:
        pytest.skip(f"torch {torch.__version__} lacks {', '.join(missing)}")
    command = [sys.executable, cuda_mistakes.__file__, *(["--all"] if EXHAUSTIVE else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    return {name: Report(**report) for name, report in json.loads(done.stdout).items()}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_no_rule_is_broken_and_no_step_waits_for_the_gpu(reports: dict[str, Report], case: Case) -> None:
    assert reports[case.name].findings == []
    assert reports[case.name].waits == 0


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_planted_mistake_is_found(reports: dict[str, Report], mistake: Mistake) -> None:
    findings = reports[mistake.name].findings
    assert [finding for finding in findings if mistake.expected in finding], findings


def test_a_name_that_torch_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_select_conv_backend")
    assert missing_names() == ["torch._C._select_conv_backend"]


def test_a_selection_has_every_recipe_and_every_value_of_every_choice() -> None:
    names = [case.name for case in cuda_audit.cases(everything=False)]
    for values in (cuda_audit.RECIPES, cuda_audit.PRECISIONS, cuda_audit.RECOMPUTE, cuda_audit.OPTIMIZERS):
        for value in values:
            assert [name for name in names if value in name], value
