"""The precision in which a network predicts."""

from __future__ import annotations

import torch

from segnet.config.sections import InferenceConfig, ModelConfig
from segnet.inference.exported import Network, Runtime
from segnet.layers.native import find_kernel
from segnet.system.devices import Precision, choose_precision, processor_features


def choose_inference_precision(config: InferenceConfig, network: ModelConfig | None, device: torch.device) -> Precision:
    """The precision that `config.precision` means on `device` for a network, or for an exported one (None).

    "auto" is what the device computes fast, see `choose_precision`. Where that is bfloat16, but the compiled kernel computes the
    network's convolutions, it is float32: with the instructions of AVX-512 the network then took 0.67 to 0.7 of the time of torch
    in bfloat16. The kernel is faster still in bfloat16, but not exact, so that is for a configuration to ask for. With the
    instructions of AMX, which are many times as fast, it is bfloat16, by torch.
    Raises UserError as `choose_precision`.
    """
    precision = choose_precision(config.precision, device)
    if config.precision != "auto" or precision.name != "bfloat16" or device.type != "cpu":
        return precision
    if network is None or config.compile or not _kernel_is_faster(network):
        return precision
    return Precision("float32", "the compiled kernel computes in it, faster than torch in bfloat16")


def precision_of(config: InferenceConfig, model: Network) -> Precision:
    """`choose_inference_precision` for `model` on its device; float32 for a runtime that computes in nothing else."""
    if isinstance(model, Runtime) and model.only_float32:
        return Precision("float32", "onnxruntime computes in it alone")
    return choose_inference_precision(config, None if isinstance(model, Runtime) else model.architecture, model.device)


def resolve_precision(config: InferenceConfig, model: Network) -> InferenceConfig:
    """`config` with the precision that its "auto" means for `model` on its device."""
    return config.model_copy(update={"precision": precision_of(config, model).name})


def _kernel_is_faster(network: ModelConfig) -> bool:
    """True where this processor computes the network faster with the compiled kernel than in bfloat16."""
    features = processor_features()
    return (
        "avx512_bf16" in features
        and "amx_bf16" not in features
        and network.kernel_size == 3
        and not torch.are_deterministic_algorithms_enabled()  # the kernel is not used then
        and find_kernel().kernel is not None
    )
