"""Exported networks: the format of their files, and running them with onnxruntime or OpenVINO.

A file holds the network in the runtime's own format, the metadata of the checkpoint as JSON, and the SHA-256 of both, by
which damaged files and files of other programs are refused. Reading one executes no code from it, only operations of the
runtime.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from segnet.system.errors import UserError, checkpoint_error, environment_error, first_line
from segnet.tasks.choice import build_task

FORMAT = 2  # version of the metadata
KEY = "segnet"  # of the metadata in the file
SUFFIXES = (".onnx", ".xml", ".pt2")
PACKAGES = {".onnx": "onnxruntime", ".xml": "openvino"}  # the package that runs a file
_SEALS = {  # bytes before and after the 64 digits of the digest, at the end of a file
    ".onnx": (b"\x72\x4a\x0a\x06sha256\x12\x40", b""),  # protobuf: one more entry in ModelProto.metadata_props
    ".xml": (b"\n<!-- sha256 ", b" -->\n"),
}

Run = Callable[[np.ndarray], np.ndarray]  # (B, C, H, W) float32 images -> (B, K, H, W) float32 logits
Compile = Callable[[str], Run]  # from the precision to compute in


class Metadata(NamedTuple):
    """The description of an exported network in its file."""

    config: Config
    step: int  # of training
    score: float | None  # of the network before it was exported, on the val split: e.g. mIoU
    quantized: bool = False

    def to_json(self) -> str:
        """The text that `from_json` reads."""
        content = {"format": FORMAT, **self._asdict(), "config": self.config.model_dump(mode="json")}
        return json.dumps(content, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, path: Path) -> Metadata:
        """The metadata in the JSON `text`.

        Raises UserError (checkpoint) for another format, (config) for an invalid configuration, and other exceptions for a
        text of another program.
        """
        content: dict[str, Any] = json.loads(text)
        version = content.pop("format", None)
        if version == 1:
            content["score"] = content.pop("miou")
        elif version != FORMAT:
            raise checkpoint_error(path, f"this version reads formats up to {FORMAT}", "export it again with this version")
        return cls(**{**content, "config": read_stored_config(content["config"], path)})


class Runtime(nn.Module):
    """An exported network with the interface of an EncoderDecoder that predicts. It runs on the CPU."""

    too_many_pixels: float = math.inf  # as in EncoderDecoder
    file_digest: Tensor  # (32,) uint8; in state_dict it stands for the weights: it changes when one of them does

    def __init__(self, run: Run, config: Config, digest: bytes, *, only_float32: bool = False) -> None:
        super().__init__()
        self._run = run
        self.only_float32 = only_float32  # whatever the precision of the configuration
        self.in_channels = config.data.channels
        self.num_classes = build_task(config).channels
        self.field_of_view = field_of_view(config.model)
        self.total_stride = config.model.total_stride
        self.device = torch.device("cpu")
        self.register_buffer("file_digest", torch.tensor(list(digest), dtype=torch.uint8))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) 0..255 -> (B, K, H, W) float32 logits."""
        return torch.from_numpy(self._run(image.float().contiguous().numpy()))


Network = EncoderDecoder | Runtime


class Exported(NamedTuple):
    """An exported network, ready to run."""

    model: Runtime
    metadata: Metadata


class ExportedFile(NamedTuple):
    """An exported file that was read and verified, and whose network is not ready to run yet."""

    path: Path
    metadata: Metadata
    digest: bytes
    compile: Compile

    def start(self, precision: str) -> Runtime:
        """The network, in evaluation mode. OpenVINO computes in `precision`, onnxruntime always in float32.

        Raises UserError (checkpoint) when the runtime cannot compile it.
        """
        with _runtime_errors_named(self.path):
            run = self.compile(precision)
        return Runtime(run, self.metadata.config, self.digest, only_float32=self.path.suffix == ".onnx").eval()


def seal(suffix: str, content: bytes, weights: bytes = b"") -> bytes:
    """The content of a file followed by the digest of it and of the weights, which .xml has in a second file."""
    before, after = _SEALS[suffix]
    return content + before + hashlib.sha256(content + weights).hexdigest().encode() + after


def _require_seal(path: Path, content: bytes, weights: bytes) -> bytes:
    """The digest (32 bytes) of an intact file. Raises UserError (checkpoint) for a damaged one or one of another program."""
    before, after = _SEALS[path.suffix]
    start = len(content) - len(before) - 64 - len(after)
    if start < 0 or not content.endswith(after) or content[start : start + len(before)] != before:
        found = "not a file that segnet export wrote, or cut short"
        raise checkpoint_error(path, found, "export a run or a checkpoint of this program")
    digest = hashlib.sha256(content[:start] + weights)
    if content[start + len(before) :][:64] != digest.hexdigest().encode():
        raise checkpoint_error(path, "damaged: its content does not match its digest", "export it again")
    return digest.digest()


def weights_path(path: Path) -> Path:
    """The file with the weights of OpenVINO's .xml file."""
    return path.with_suffix(".bin")


def load_exported(path: Path, precision: str = "float32") -> Exported:
    """The network of an exported file, ready to run. Raises UserError as `read_exported` and `ExportedFile.start` do."""
    file = read_exported(path)
    return Exported(file.start(precision), file.metadata)


def read_exported(path: Path) -> ExportedFile:
    """An .onnx or .xml file that `export` wrote, verified. Its network runs in as many threads as torch uses.

    Raises UserError: (checkpoint) for a file that is missing, damaged or of another program, and for .pt2, which cannot be
    read without the risk that it runs code; (environment) where the package that runs it is not installed.
    """
    if path.suffix == ".pt2":
        remedy = "use the checkpoint, or an .onnx or .xml file; your own programs may torch.export.load what you trust"
        raise checkpoint_error(path, "a .pt2 file may hold code that runs when it is read", remedy)
    files = [path, weights_path(path)] if path.suffix == ".xml" else [path]
    for file in files:
        if not file.is_file():
            remedy = "name a file that segnet export wrote, with all that was written beside it"
            raise checkpoint_error(file, "no such file", remedy)
    content, *rest = [file.read_bytes() for file in files]
    weights = b"".join(rest)
    digest = _require_seal(path, content, weights)
    package = require(PACKAGES[path.suffix], path)
    with _runtime_errors_named(path):
        if path.suffix == ".onnx":
            text, compile = _open_onnx(package, content)
        else:
            text, compile = _open_openvino(package, content, weights)
        metadata = Metadata.from_json(text, path)
    return ExportedFile(path, metadata, digest, compile)


@contextmanager
def _runtime_errors_named(path: Path) -> Iterator[None]:
    """Turn an exception of the runtime in the body into a UserError (checkpoint) that names `path`."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # each runtime has exceptions of its own
        found = f"{PACKAGES[path.suffix]} cannot read it ({first_line(error, 120)})"
        raise checkpoint_error(path, found, "export it again") from None


def _open_onnx(onnxruntime: ModuleType, content: bytes) -> tuple[str, Compile]:
    """The metadata as JSON, and the function that gives the network in float32 for any precision."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map[KEY]

    def run(image: np.ndarray) -> np.ndarray:
        return session.run(["logits"], {"image": image})[0]

    return text, lambda _precision: run


@cache
def openvino_core(openvino: ModuleType) -> Any:
    """The one Core of this process, with the CPU plugin loaded; it is kept until the process ends.

    The CPU plugin replaces the main thread's stack for signal handlers when it is loaded, and restores the earlier one when
    it is unloaded. With several Cores, unloaded in another order than loaded, the thread is left with a freed stack, and the
    next signal kills the process.
    """
    core = openvino.Core()
    core.get_versions("CPU")  # loads the plugin
    return core


def _open_openvino(openvino: ModuleType, content: bytes, weights: bytes) -> tuple[str, Compile]:
    """The metadata as JSON, and the function that compiles the network for a precision."""
    core = openvino_core(openvino)
    model = core.read_model(content, weights)

    def compile(precision: str) -> Run:
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        compiled = core.compile_model(model, "CPU", options)
        return lambda image: compiled(image)[0]

    return model.get_rt_info([KEY]).astype(str), compile


def require(package: str, path: Path) -> ModuleType:
    """The module of an optional package. Raises UserError (environment) where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        found = f"the package {package} is not installed here"
        raise environment_error(path, found, f"pip install {package}") from None
