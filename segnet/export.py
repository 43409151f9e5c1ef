"""A trained network as a file that runs without this program: ONNX, OpenVINO or a torch.export program.

The folded network is exported, with the form of pooling that compares codes (`layers/pooling.py`): the native form's indices
become scatter operations, which runtimes execute slowly. Batch, height and width stay free. The file is written under a temporary
name, read back, and compared with the network on odd and even sizes; then it gets its own name.
"""

from __future__ import annotations

import io
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from segnet.config.sections import Bands, Config, InferenceConfig
from segnet.data.images import open_image
from segnet.inference.exported import KEY, SUFFIXES, Metadata, load_exported, openvino_core, require, seal, weights_path
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.folding import fold
from segnet.system.errors import UserError, checkpoint_error, config_error, environment_error
from segnet.system.files import make_folder, move_into_place, short_name
from segnet.tasks.choice import build_task

TOLERANCE = 1e-3  # largest error of a logit of the file, relative to the largest logit
AGREEMENT = 0.9  # smallest fraction of pixels for which a quantised network and the original give the same answer
CALIBRATION_SIDE = 1024  # pixels; of a larger calibration picture the middle is used
METADATA_FILE = "segnet.json"  # in a .pt2 file

Predict = Callable[[Tensor], Tensor]
Agree = Callable[[Tensor, Tensor], Tensor]  # as `Answers.agree` of tasks/task.py


class ExportResult(NamedTuple):
    """The files of an export, and how closely they agree with the network."""

    files: tuple[Path, ...]
    difference: float | None  # largest error of a logit, relative to the largest logit; None for a quantised network
    agreement: float | None  # of a quantised network: the fraction of the calibration pixels that keep their answer


def export_model(model: EncoderDecoder, metadata: Metadata, path: Path, pictures: Sequence[Path] = ()) -> ExportResult:
    """Write `model` to `path` in the format of its suffix: .onnx, .xml (OpenVINO, weights in a .bin beside it) or .pt2.

    The file computes float32 `logits` (B, K, H, W) from a float32 `image` (B, C, H, W) in 0..255, or of the pictures' own values
    where the network scales them (data.scale train or [low, high]), for any B, H and W
    (.pt2: H and W of at least `model.total_stride`, see `trace`). With calibration `pictures`, for .xml only, its convolutions
    compute in int8.
    Raises UserError, with nothing written: (config) for another suffix, (data) for a picture that cannot be read, (environment)
    for a missing package or a full disk, (checkpoint) if the file does not compute what the network does. With
    inference.dropout_samples it is refused, since the file would not give the answer of the run.
    """
    require_no_samples(metadata.config)
    if path.suffix not in SUFFIXES:
        raise config_error(path, f"ends in '{path.suffix}'", f"name a file that ends in {', '.join(SUFFIXES)}")
    if pictures and path.suffix != ".xml":
        raise config_error(path, "int8 is for OpenVINO", "name a file that ends in .xml")
    needed = {".onnx": ("onnx", "onnxscript", "onnxruntime"), ".xml": ("onnx", "onnxscript", "openvino"), ".pt2": ()}
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # nncf's import makes it warn
    os.environ.setdefault("NNCF_CI", "1")  # otherwise nncf sends usage statistics
    for package in (*needed[path.suffix], *(["nncf"] if pictures else [])):
        require(package, path)
    model = fold(model, native=False).cpu().to(memory_format=torch.contiguous_format)  # torch.export.save warns of channels_last
    make_folder(path.parent)
    with tempfile.TemporaryDirectory(prefix=f".{short_name(path.name)}.", suffix=".tmp", dir=path.parent) as name:
        temporary = Path(name) / path.name
        try:
            files = _write(model, metadata, temporary, pictures)
            agreement = partial(_agreement, bands=metadata.config.data.bands, agree=build_task(metadata.config).answers.agree)
            report = _check(model, temporary, path, pictures, agreement)
            targets = tuple(path.with_name(file.name) for file in files)
            for file, target in zip(files, targets, strict=True):  # weights first: an old .xml beside them is refused
                move_into_place(file, target)
        except OSError as error:
            if error.filename is not None and Path(error.filename) in pictures:
                raise
            found = f"cannot be written: {error.strerror or error}"
            raise environment_error(path, found, "free some space, or choose another --out") from None
    return report._replace(files=tuple(reversed(targets)))


def require_no_samples(config: Config) -> None:
    """Raise UserError (config) where the answer needs dropout, which exported networks do not have."""
    if samples := config.inference.dropout_samples:
        found = f"{samples}, but an exported network has no dropout"
        raise config_error("inference.dropout_samples", found, "add inference.dropout_samples=0 for one pass without")


def settings_beside(inference: InferenceConfig) -> list[str]:
    """The settings that make the answer from an exported file's logits, as KEY=VALUE: those that differ from the defaults."""
    usual = InferenceConfig()
    names = ("scales", "flip", "temperature", "min_region", "fill_holes")
    values = {name: getattr(inference, name) for name in names if getattr(inference, name) != getattr(usual, name)}
    return [f"inference.{name}={list(value) if isinstance(value, tuple) else value}" for name, value in values.items()]


def _write(model: EncoderDecoder, metadata: Metadata, path: Path, pictures: Sequence[Path]) -> list[Path]:
    """The written files; the one at `path` is the last."""
    metadata = metadata._replace(quantized=bool(pictures))
    program = trace(model)
    if path.suffix == ".pt2":
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={METADATA_FILE: metadata.to_json()})
        path.write_bytes(content.getvalue())
        return [path]
    onnx = _to_onnx(program, metadata)
    if path.suffix == ".onnx":
        path.write_bytes(seal(".onnx", onnx))
        return [path]
    return _write_openvino(onnx, metadata, path, pictures)


def trace(model: EncoderDecoder) -> ExportedProgram:
    """The graph of a folded network, with free batch, height and width.

    In torch it runs through `module(check_guards=False)`, because some of its guards hold for the traced size alone, and takes
    sides of at least `model.total_stride`. onnxruntime and OpenVINO ignore guards and take any size.
    """
    free = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    side = 3 * model.total_stride
    image = torch.zeros(2, model.in_channels, side + 6, side + 9)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(model, (image,), dynamic_shapes=(free,))


def _to_onnx(program: ExportedProgram, metadata: Metadata) -> bytes:
    """The content of an .onnx file, not yet sealed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["image"], output_names=["logits"], external_data=False
        )
    assert onnx is not None
    onnx.model.metadata_props[KEY] = metadata.to_json()
    for value in (*onnx.model.graph.inputs, *onnx.model.graph.outputs):  # torch names them s40 and the like
        assert value.shape is not None
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.shape[axis] = name
    return onnx.model_proto.SerializeToString()


def _write_openvino(onnx: bytes, metadata: Metadata, path: Path, pictures: Sequence[Path]) -> list[Path]:
    """The written files of an ONNX network as OpenVINO's: the .bin and the .xml."""
    openvino = require("openvino", path)
    network = openvino_core(openvino).read_model(io.BytesIO(onnx))
    if pictures:
        nncf = require("nncf", path)
        nncf.set_log_level(logging.ERROR)
        images = nncf.Dataset(pictures, partial(_calibration_image, bands=metadata.config.data.bands))
        others = {node.get_type_name() for node in network.get_ops()} - {"Convolution", "Constant", "Parameter", "Result"}
        exact = nncf.IgnoredScope(types=sorted(others), validate=False)  # pooling pads with -inf and compares values
        network = nncf.quantize(network, images, subset_size=len(pictures), ignored_scope=exact)
    network.set_rt_info(metadata.to_json(), [KEY])
    unsealed, weights = path.with_name("network.xml"), path.with_name("network.bin")
    openvino.save_model(network, unsealed, compress_to_fp16=False)
    path.write_bytes(seal(".xml", unsealed.read_bytes(), weights.read_bytes()))
    return [weights.rename(weights_path(path)), path]


def _calibration_image(picture: Path, bands: Bands) -> np.ndarray:
    """(1, C, h, w) float32 in 0..255: the image of a picture, cut to the middle CALIBRATION_SIDE pixels of each side."""
    image = open_image(picture, bands=bands)
    top, left = (max(0, side - CALIBRATION_SIDE) // 2 for side in image.shape[1:])
    return image[None, :, top:, left:][..., :CALIBRATION_SIDE, :CALIBRATION_SIDE].float().contiguous().numpy()


def _check(
    model: EncoderDecoder, temporary: Path, path: Path, pictures: Sequence[Path], agreement: Callable[..., float]
) -> ExportResult:
    """How closely the `temporary` file agrees with the network. Raises UserError (checkpoint) for `path` if it does not."""
    try:
        exported = _open(temporary)
        if pictures:
            return ExportResult((), None, _require_agreement(agreement(model, exported, pictures), path))
        return ExportResult((), _require_same_logits(model, exported, path), None)
    except UserError as error:
        raise UserError(error.code, path, error.found, error.remedy) from None


def _require_agreement(same: float, path: Path) -> float:
    """The fraction `same` of the calibration pixels. Raises UserError (checkpoint) if it is below AGREEMENT."""
    if not same >= AGREEMENT:
        found = f"in int8 {1 - same:.1%} of the calibration pixels change their answer; nothing was written"
        remedy = "give more pictures of the kind that the network is for, or leave out --int8"
        raise checkpoint_error(path, found, remedy)
    return same


def _require_same_logits(model: EncoderDecoder, exported: Predict, path: Path) -> float:
    """`largest_difference` of the file. Raises UserError (checkpoint) if it is above TOLERANCE."""
    smallest = model.total_stride if path.suffix == ".pt2" else 1
    difference = largest_difference(model, exported, smallest)
    if not difference <= TOLERANCE:
        found = f"differs from the network by {difference:.1e} of the largest logit, allowed {TOLERANCE}; nothing was written"
        raise checkpoint_error(path, found, "install other versions of the packages, or choose another format")
    return difference


def _open(path: Path) -> Predict:
    """The network in a file that this process has just written."""
    if path.suffix != ".pt2":
        return load_exported(path).model
    module = torch.export.load(path).module(check_guards=False)  # safe to read: this process wrote it
    assert isinstance(module, nn.Module)
    return module


@torch.no_grad()
def largest_difference(model: EncoderDecoder, exported: Predict, smallest: int = 1) -> float:
    """The largest error of a logit of `exported`, relative to the largest logit of `model` for the same image.

    The images are noise of odd and even sizes, from `smallest` pixels a side on, in batches of one and three. Infinity if a
    shape differs or a logit is NaN.
    """
    stride = model.total_stride
    sizes = [
        (smallest, smallest),
        (max(smallest, stride - 1), stride + 1),
        (2 * stride + 1, 3 * stride - 1),
        (2 * stride, 3 * stride),
    ]
    largest = 0.0
    for height, width in sizes:
        for batch in (1, 3):
            generator = torch.Generator().manual_seed(height)
            image = torch.randint(0, 256, (batch, model.in_channels, height, width), generator=generator).float()
            if model.normalize.has_ranges:
                low, high = model.normalize.low, model.normalize.high
                image = low + image * ((high - low) / 250) - (high - low) / 100  # some values are outside of the ranges
            expected, found = model(image), exported(image)
            if found.shape != expected.shape:
                return math.inf
            error = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
            largest = max(largest, float(error.nan_to_num(nan=math.inf)))
    return largest


@torch.no_grad()
def _agreement(model: EncoderDecoder, exported: Predict, pictures: Sequence[Path], *, bands: Bands, agree: Agree) -> float:
    """The fraction of the pixels of up to eight `pictures` for which both networks give the same answer."""
    same = total = 0
    for picture in pictures[:: max(1, len(pictures) // 8)][:8]:
        image = torch.from_numpy(_calibration_image(picture, bands))
        equal = agree(model(image), exported(image))
        same += int(equal.sum())
        total += equal.numel()
    return same / total
