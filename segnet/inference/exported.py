"""Exported networks: how a file of one is sealed and read, and running it with onnxruntime or OpenVINO.

A file holds the network without anything of this program, what a checkpoint knows as JSON, and the SHA-256 of all that, so
that a damaged file and one of another program are told apart from what `export` wrote. Nothing in it is executed but the
operations that the runtime itself has.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from segnet.config.loading import read_stored_config
from segnet.config.sections import Config
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.field_of_view import field_of_view
from segnet.system.errors import ExitCode, UserError

FORMAT = 2
KEY = "segnet"  # under which the files keep the metadata
SUFFIXES = (".onnx", ".xml", ".pt2")
PACKAGES = {".onnx": "onnxruntime", ".xml": "openvino"}  # what runs a file
_SEALS = {  # what stands before and after the 64 digits of the digest, at the end of a file
    ".onnx": (b"\x72\x4a\x0a\x06sha256\x12\x40", b""),  # protobuf of one more entry in ModelProto.metadata_props
    ".xml": (b"\n<!-- sha256 ", b" -->\n"),
}

Run = Callable[[np.ndarray], np.ndarray]


class Metadata(NamedTuple):
    """What travels with an exported network."""

    config: Config
    step: int
    score: float | None  # of the network before it was exported, on the val split: e.g. mIoU
    quantized: bool = False

    def to_json(self) -> str:
        content = {"format": FORMAT, **self._asdict(), "config": self.config.model_dump(mode="json")}
        return json.dumps(content, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, path: Path) -> Metadata:
        """Raises UserError (checkpoint, config) for what no version of this program wrote."""
        content: dict[str, Any] = json.loads(text)
        version = content.pop("format", None)
        if version == 1:
            content["score"] = content.pop("miou")
        elif version != FORMAT:
            raise _bad(path, f"this version reads formats up to {FORMAT}", "export it again with this version")
        return cls(**{**content, "config": read_stored_config(content["config"], path)})


class Runtime(nn.Module):
    """An exported network in the place of an EncoderDecoder, to predict with, on the CPU."""

    file_digest: Tensor  # (32,) uint8, in state_dict: it changes whenever a weight does

    def __init__(self, run: Run, config: Config, digest: bytes) -> None:
        super().__init__()
        self._run = run
        self.num_classes = len(config.data.class_set)
        self.field_of_view, self.total_stride = field_of_view(config.model), 2 ** len(config.model.encoder)
        self.device = torch.device("cpu")
        self.register_buffer("file_digest", torch.tensor(list(digest), dtype=torch.uint8))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..255 -> (B, K, H, W) float32 logits."""
        return torch.from_numpy(self._run(image.float().contiguous().numpy()))


Network = EncoderDecoder | Runtime


class Exported(NamedTuple):
    """A file that was read."""

    model: Runtime
    metadata: Metadata


def seal(suffix: str, content: bytes, weights: bytes = b"") -> bytes:
    """`content` of a file, and at its end the digest of it and of the weights that stand in a file of their own."""
    before, after = _SEALS[suffix]
    return content + before + hashlib.sha256(content + weights).hexdigest().encode() + after


def _unsealed(path: Path, content: bytes, weights: bytes) -> bytes:
    """The digest of an intact file. Raises UserError (checkpoint) for another."""
    before, after = _SEALS[path.suffix]
    start = len(content) - len(before) - 64 - len(after)
    if start < 0 or not content.endswith(after) or content[start : start + len(before)] != before:
        raise _bad(path, "not a file that scripts/export.py wrote, or cut short", "export a run or a checkpoint of this program")
    digest = hashlib.sha256(content[:start] + weights)
    if content[start + len(before) :][:64] != digest.hexdigest().encode():
        raise _bad(path, "damaged: its content does not match its digest", "export it again")
    return digest.digest()


def weights_path(path: Path) -> Path:
    """Where OpenVINO keeps the weights of an .xml file."""
    return path.with_suffix(".bin")


def load_exported(path: Path, precision: str = "float32") -> Exported:
    """An .onnx or .xml file that `export` wrote, verified, ready to run in as many threads as torch uses.

    OpenVINO computes in `precision`, onnxruntime always in float32.
    Raises UserError: (checkpoint) for a file that is missing, damaged or of another program, and for .pt2, which cannot be
    read without trusting it; (environment) where the package that runs it is not installed.
    """
    if path.suffix == ".pt2":
        remedy = "use the checkpoint, or an .onnx or .xml file; your own programs may torch.export.load what you trust"
        raise _bad(path, "a .pt2 file may hold code that runs when it is read", remedy)
    files = [path, weights_path(path)] if path.suffix == ".xml" else [path]
    for file in files:
        if not file.is_file():
            raise _bad(file, "no such file", "name a file that scripts/export.py wrote, with all that was written beside it")
    content, *rest = [file.read_bytes() for file in files]
    weights = b"".join(rest)
    digest = _unsealed(path, content, weights)
    package = require(PACKAGES[path.suffix], path)
    try:
        if path.suffix == ".onnx":
            text, run = _open_onnx(package, content)
        else:
            text, run = _open_openvino(package, content, weights, precision)
        metadata = Metadata.from_json(text, path)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # runtimes have exceptions of their own for what they cannot read
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise _bad(path, f"{package.__name__} cannot read it ({reason})", "export it again") from None
    return Exported(Runtime(run, metadata.config, digest).eval(), metadata)


def _open_onnx(onnxruntime: ModuleType, content: bytes) -> tuple[str, Run]:
    """The metadata, and what runs the network."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map[KEY]
    return text, lambda image: session.run(["logits"], {"image": image})[0]


@cache
def openvino_core(openvino: ModuleType) -> Any:
    """The first Core of this process, which stays to its end with the plugin for CPUs.

    That plugin gives the main thread another stack for signal handlers, where the old one is too small, and takes it back when
    it goes. Of several that go in another order than they came, one leaves a stack that is gone: the next signal is the end.
    """
    core = openvino.Core()
    core.get_versions("CPU")  # loads the plugin
    return core


def _open_openvino(openvino: ModuleType, content: bytes, weights: bytes, precision: str) -> tuple[str, Run]:
    core = openvino_core(openvino)
    model = core.read_model(content, weights)
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = core.compile_model(model, "CPU", options)
    return model.get_rt_info([KEY]).astype(str), lambda image: compiled(image)[0]


def require(package: str, path: Path) -> ModuleType:
    """An optional package. Raises UserError (environment) where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        found = f"the package {package} is not installed here"
        raise UserError(ExitCode.ENVIRONMENT, path, found, f"pip install {package}") from None


def _bad(path: Path, found: str, remedy: str) -> UserError:
    return UserError(ExitCode.CHECKPOINT, path, found, remedy)
