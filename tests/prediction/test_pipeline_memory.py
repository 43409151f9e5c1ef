"""A picture for which a full memory is reported in other words than torch.OutOfMemoryError."""

import pytest
from helpers import refused

from segnet.prediction.inputs import Job
from segnet.prediction.pipeline import _failed
from segnet.system.errors import ExitCode


@pytest.mark.parametrize("words", ["CUDA error: out of memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"])
def test_it_fails_alone(tmp_path, words):
    job = Job(tmp_path / "a.png", tmp_path / "out" / "a")
    failure = _failed(RuntimeError(words), job).failure
    assert failure is not None
    with refused(ExitCode.ENVIRONMENT, "a.png", "not enough memory for it", "make it smaller"):
        raise failure
