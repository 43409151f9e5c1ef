"""Where the compiled kernel is faster than bfloat16, auto is float32."""

import pytest
import torch
from small_networks import SMALL

from segnet.config.sections import InferenceConfig
from segnet.inference import precision
from segnet.inference.exported import Runtime
from segnet.inference.precision import choose_inference_precision, precision_of
from segnet.layers.native import Found
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.system import devices
from segnet.system.devices import Precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")
AUTO = InferenceConfig()
WIDE_KERNELS = SMALL.model_copy(update={"kernel_size": 7})


@pytest.fixture
def processor(monkeypatch):
    """Sets the instructions that the processor is said to have, and whether there is a compiled kernel."""

    def pretend(*features: str, kernel: bool = True) -> None:
        monkeypatch.setattr(precision, "processor_features", lambda: set(features))
        monkeypatch.setattr(precision, "find_kernel", lambda: Found(object() if kernel else None, ""))
        fast = "bfloat16" if features else "float32"
        monkeypatch.setattr(devices, "_fast_precision", lambda device: Precision(fast, "the device's"))

    return pretend


def test_auto_is_float32_where_the_kernel_is_faster_and_says_so(processor):
    processor("avx512_bf16")
    found = choose_inference_precision(AUTO, SMALL, CPU)
    assert found.name == "float32"
    assert "compiled kernel" in str(found)


def test_auto_is_what_the_device_computes_fast_elsewhere(processor, monkeypatch):
    processor("avx512_bf16")
    expected = Precision("bfloat16", "the device's")
    assert choose_inference_precision(AUTO, SMALL, GPU) == expected
    assert choose_inference_precision(InferenceConfig(compile=True), SMALL, CPU) == expected
    assert choose_inference_precision(AUTO, WIDE_KERNELS, CPU) == expected
    assert choose_inference_precision(AUTO, None, CPU) == expected
    assert choose_inference_precision(InferenceConfig(precision="bfloat16"), SMALL, CPU).name == "bfloat16"
    for features, kernel in (({"avx512_bf16", "amx_bf16"}, True), ({"bf16"}, True), ({"avx512_bf16"}, False)):
        processor(*features, kernel=kernel)
        assert choose_inference_precision(AUTO, SMALL, CPU) == expected
    processor("avx512_bf16")
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert choose_inference_precision(AUTO, SMALL, CPU) == expected


def test_a_network_and_an_exported_one_are_told_apart(processor, tiny_config):
    processor("avx512_bf16")
    assert precision_of(AUTO, EncoderDecoder(SMALL, 3)).name == "float32"
    assert precision_of(AUTO, Runtime(lambda image: image, tiny_config, b"")).name == "bfloat16"
    assert precision_of(AUTO, Runtime(lambda image: image, tiny_config, b"", only_float32=True)).name == "float32"
