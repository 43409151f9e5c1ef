"""The device is chosen once, and a missing GPU is said."""

import pytest
import torch
from helpers import refused

from segnet.devices import choose_device, describe_device, use_deterministic_algorithms
from segnet.errors import ExitCode


def test_auto_is_the_gpu_where_there_is_one():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_an_environment_error_with_its_cure():
    with refused(ExitCode.ENVIRONMENT, "device=cuda", "no usable GPU", "device=cpu"):
        choose_device("cuda")


def test_the_processor_is_described_with_its_threads():
    assert f"{torch.get_num_threads()} threads" in describe_device(torch.device("cpu"))


def test_deterministic_mode_is_switched_on_and_off():
    use_deterministic_algorithms(True)
    assert torch.are_deterministic_algorithms_enabled()
    use_deterministic_algorithms(False)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_pooling_and_unpooling_on_the_gpu_equal_the_cpus():
    from segnet.layers import max_pool, max_unpool

    x = torch.randn(2, 5, 33, 47)
    on_cpu, on_gpu = max_pool(x), max_pool(x.cuda())
    assert torch.equal(on_gpu.winner.cpu(), on_cpu.winner)
    assert torch.equal(max_unpool(*on_gpu, (33, 47)).cpu(), max_unpool(*on_cpu, (33, 47)))
