"""The device is chosen once, and a missing GPU is said."""

import pytest
import torch
from helpers import refused

from segnet.system import devices
from segnet.system.devices import choose_device, choose_precision, describe_device, use_deterministic_algorithms, warn_if_emulated
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
    assert choose_precision("bfloat16", GPU).emulated == (not bfloat16)


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


def test_the_processor_is_described_with_its_threads():
    assert f"{torch.get_num_threads()} threads" in describe_device(torch.device("cpu"))


def test_deterministic_mode_is_switched_on_and_off():
    use_deterministic_algorithms(True)
    assert torch.are_deterministic_algorithms_enabled()
    use_deterministic_algorithms(False)
    assert not torch.are_deterministic_algorithms_enabled()
