"""The device is chosen once, and a missing GPU is said."""

import os

import pytest
import torch
from helpers import refused

from segnet.system import devices
from segnet.system.devices import (
    choose_device,
    choose_precision,
    copy_to_cpu,
    describe_device,
    explain_full_memory,
    gpu_facts,
    memory_is_full,
    memory_of,
    use_deterministic_algorithms,
    warn_if_emulated,
)
from segnet.system.errors import ExitCode


def test_auto_is_the_gpu_where_there_is_one():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_an_environment_error_with_its_cure():
    with refused(ExitCode.ENVIRONMENT, "device=cuda", "no usable GPU", "device=cpu"):
        choose_device("cuda")


def test_an_apple_gpu_is_refused_with_what_it_lacks():
    with refused(ExitCode.ENVIRONMENT, "device=mps", "no float64", "device=cpu"):
        choose_device("mps")


CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def hardware(monkeypatch):
    """Sets what the hardware is said to have."""

    def pretend(features: set[str] = frozenset(), *, onednn: bool = True, gpu_bfloat16: bool = False, capability=(7, 5)) -> None:
        monkeypatch.setattr(devices, "processor_features", lambda: set(features))
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: gpu_bfloat16 or including_emulation)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        devices._fast_precision.cache_clear()

    yield pretend
    devices._fast_precision.cache_clear()


@pytest.mark.parametrize(
    ("features", "onednn", "expected"),
    [
        ({"avx2"}, False, "float32"),
        ({"avx2", "avx512_bw"}, True, "float32"),  # oneDNN imitates bfloat16 there
        ({"avx512_bf16"}, True, "bfloat16"),
        ({"amx_bf16"}, True, "bfloat16"),
        ({"avx512_bf16"}, False, "float32"),  # ONEDNN_MAX_CPU_ISA=AVX2
        ({"bf16"}, True, "bfloat16"),  # Arm
    ],
)
def test_auto_is_bfloat16_where_the_processor_has_instructions_for_it(hardware, features, onednn, expected):
    hardware(features, onednn=onednn)
    assert choose_precision("auto", CPU).name == expected
    assert not choose_precision("auto", CPU).emulated
    assert choose_precision("bfloat16", CPU).emulated == (expected == "float32")
    assert choose_precision("float16", CPU).emulated
    assert not choose_precision("float32", CPU).emulated


def test_a_mac_measures_whether_bfloat16_pays(hardware, monkeypatch):
    monkeypatch.setattr(devices.sys, "platform", "darwin")
    for ratio, expected in ((0.4, "float32"), (1.8, "bfloat16")):
        hardware({"bf16"})
        monkeypatch.setattr(devices, "_speedup_of_bfloat16", lambda ratio=ratio: ratio)
        assert choose_precision("auto", CPU).name == expected


@pytest.mark.parametrize(
    ("bfloat16", "capability", "expected"),
    [(True, (8, 0), "bfloat16"), (False, (7, 5), "float16"), (False, (7, 0), "float16"), (False, (6, 1), "float32")],
)
def test_a_gpu_without_bfloat16_gets_float16_where_it_has_tensor_cores(hardware, bfloat16, capability, expected):
    hardware(gpu_bfloat16=bfloat16, capability=capability)
    assert choose_precision("auto", GPU).name == expected
    for name in {"float16", "float32", expected}:
        assert choose_precision(name, GPU)[::2] == (name, False)


@pytest.mark.parametrize(("capability", "instead"), [((7, 5), "float16"), ((6, 1), "float32")])
def test_bfloat16_on_a_gpu_without_it_is_refused_with_what_is_fast_there(hardware, capability, instead):
    """Such a GPU has no algorithm for the convolutions: the first step would fail or take minutes."""
    hardware(gpu_bfloat16=False, capability=capability)
    with refused(ExitCode.CONFIG, "bfloat16", "this GPU has no convolutions", f"precision=auto, which is {instead}", "resumes"):
        choose_precision("bfloat16", GPU)


def test_an_emulated_precision_is_obeyed_with_a_warning_that_names_the_cure(hardware, capsys):
    hardware({"avx2"}, onednn=False)
    warn_if_emulated(choose_precision("bfloat16", CPU), "train.precision")
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "train.precision=bfloat16 is emulated" in warning
    assert "train.precision=auto" in warning
    warn_if_emulated(choose_precision("float32", CPU), "train.precision")
    warn_if_emulated(choose_precision("auto", CPU), "train.precision")
    assert not capsys.readouterr().err


def test_a_torch_without_the_private_question_computes_in_float32(hardware, monkeypatch):
    hardware({"avx512_bf16"})
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert choose_precision("auto", CPU).name == "float32"


def test_features_are_read_from_the_system_where_torch_does_not_list_them(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(devices, "_cpuinfo", lambda *keys: ["fpu avx2 avx512_bf16"])
    assert devices.processor_features() == {"fpu", "avx2", "avx512_bf16"}


@pytest.mark.parametrize(("threads", "said"), [(1, ", 1 thread)"), (3, ", 3 threads)")])
def test_the_processor_is_described_with_its_threads(threads, said, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert describe_device(torch.device("cpu")).endswith(said)


def test_deterministic_mode_is_switched_on_and_off():
    use_deterministic_algorithms(True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    use_deterministic_algorithms(False)
    assert not torch.are_deterministic_algorithms_enabled()


FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:82] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
    ),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("Expected all tensors to be on the same device"),
    OSError(28, "No space left on device"),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: str(error)[-40:])
def test_a_full_memory_is_known_in_all_words_of_torch_and_its_libraries(error):
    assert memory_is_full(error)
    with refused(ExitCode.ENVIRONMENT, "memory", "lower it"), explain_full_memory("lower it"):
        raise error


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_not_taken_for_a_full_memory(error):
    assert not memory_is_full(error)
    with pytest.raises(type(error)), explain_full_memory("lower it"):
        raise error


def test_tensors_are_copied_from_the_gpu_at_once_and_those_of_the_cpu_not_at_all(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    state = torch.nn.BatchNorm2d(3).state_dict()
    value = {"model": state, "steps": {0: {"step": torch.tensor(2.0)}}, "score": 0.5, "groups": [{"betas": (0.9, 0.999)}]}
    copied = copy_to_cpu(value)
    assert copied == value
    assert copied is not value
    assert copied["model"]._metadata == state._metadata
    assert all(copied["model"][name] is state[name] for name in state)
    assert len(waits) == 1


def test_the_facts_of_a_gpu_are_recorded_and_a_cpu_has_none(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "version")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX 580.1\nGCC version: 12\n")
    facts = gpu_facts(GPU)
    assert (facts["capability"], facts["driver"]) == ("7.5", "NVRM version: NVIDIA UNIX 580.1")
    assert facts["tf32"] == {"convolutions": True, "matrices": False}
    assert facts.keys() == {"capability", "driver", "cuda", "cudnn", "tf32"}
    (tmp_path / "version").unlink()
    assert gpu_facts(GPU)["driver"] == "unknown"
    assert gpu_facts(CPU) == {}


def test_memory_is_that_of_the_machine() -> None:
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    found = memory_of(torch.device("cpu"))
    assert 0 < found.free <= found.total == whole
