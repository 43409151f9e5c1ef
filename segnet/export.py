"""Write a trained network as a file that runs without this program: ONNX, OpenVINO or a torch.export program.

What is exported is the folded network, with the form of pooling that compares (`layers`): the other one's indices become
scatters, which runtimes are slow at. Batch, height and width stay free. Before a file gets its name it is read back and run on
odd and even sizes beside the network that it came from.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from segnet.data.images import open_image
from segnet.inference.exported import KEY, SUFFIXES, Metadata, load_exported, openvino_core, require, seal, weights_path
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.models.folding import fold
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import make_folder, move_into_place, short_name

TOLERANCE = 1e-3  # of the largest logit, between the exported network and ours
AGREEMENT = 0.9  # of the pixels, at least, on which a quantised network and ours must see one class
CALIBRATION_SIDE = 1024  # pixels: of a larger calibration picture its middle is used
METADATA_FILE = "segnet.json"  # in a .pt2 file

Predict = Callable[[Tensor], Tensor]


class Report(NamedTuple):
    """What was written, and how near it is."""

    files: tuple[Path, ...]
    difference: float | None  # largest of a logit, as a share of the largest logit; None for a quantised network
    agreement: float | None  # of a quantised network: share of the calibration pixels that keep their class


def export_model(model: EncoderDecoder, metadata: Metadata, path: Path, pictures: Sequence[Path] = ()) -> Report:
    """Write `model` to `path`, whose suffix says how: .onnx, .xml (OpenVINO, weights in .bin beside it) or .pt2.

    The file maps float32 `image` (B, 3, H, W), RGB in 0..255, to float32 `logits` (B, K, H, W) of the same size, for any
    B, H and W (.pt2: H and W from `model.total_stride` on, see `trace`). With calibration `pictures`, for .xml, its convolutions
    compute in int8.
    Raises UserError: (config) for another suffix, (data) for a picture that cannot be read, (environment) for a package that
    is missing or a full disk, (checkpoint) when the file does not compute what the network does. Then nothing was written.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(ExitCode.CONFIG, path, f"ends in '{path.suffix}'", f"name a file that ends in {', '.join(SUFFIXES)}")
    if pictures and path.suffix != ".xml":
        raise UserError(ExitCode.CONFIG, path, "int8 is for OpenVINO", "name a file that ends in .xml")
    needed = {".onnx": ("onnx", "onnxscript", "onnxruntime"), ".xml": ("onnx", "onnxscript", "openvino"), ".pt2": ()}
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # nncf's import makes it warn
    os.environ.setdefault("NNCF_CI", "1")  # else nncf reports every use to its makers
    for package in (*needed[path.suffix], *(["nncf"] if pictures else [])):
        require(package, path)
    model = fold(model).cpu().to(memory_format=torch.contiguous_format)  # of channels_last, torch.export.save has doubts
    make_folder(path.parent)
    with tempfile.TemporaryDirectory(prefix=f".{short_name(path.name)}.", suffix=".tmp", dir=path.parent) as name:
        temporary = Path(name) / path.name
        try:
            files = _write(model, metadata, temporary, pictures)
            report = _check(model, temporary, path, pictures)
            targets = tuple(path.with_name(file.name) for file in files)
            for file, target in zip(files, targets, strict=True):  # weights first: with an old .xml their digest does not fit
                move_into_place(file, target)
        except OSError as error:
            if error.filename is not None and Path(error.filename) in pictures:
                raise
            found = f"cannot be written: {error.strerror or error}"
            raise UserError(ExitCode.ENVIRONMENT, path, found, "free some space, or choose another --out") from None
    return report._replace(files=tuple(reversed(targets)))


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def _write(model: EncoderDecoder, metadata: Metadata, path: Path, pictures: Sequence[Path]) -> list[Path]:
    """Write the file, last of those beside it."""
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
    """A folded network as a graph with free batch, height and width.

    In torch it takes sides of `model.total_stride` or more, through `module(check_guards=False)`: some of its guards hold for the
    traced size alone. onnxruntime and OpenVINO ignore guards and take any size.
    """
    free = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    side = model.total_stride * 3
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(model, (torch.zeros(2, 3, side + 6, side + 9),), dynamic_shapes=(free,))


def _to_onnx(program: ExportedProgram, metadata: Metadata) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["image"], output_names=["logits"], external_data=False
        )
    assert onnx is not None
    onnx.model.metadata_props[KEY] = metadata.to_json()
    for value in (*onnx.model.graph.inputs, *onnx.model.graph.outputs):  # torch has names such as s40 for them
        assert value.shape is not None
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.shape[axis] = name
    return onnx.model_proto.SerializeToString()


def _write_openvino(onnx: bytes, metadata: Metadata, path: Path, pictures: Sequence[Path]) -> list[Path]:
    openvino = require("openvino", path)
    network = openvino_core(openvino).read_model(io.BytesIO(onnx))
    if pictures:
        nncf = require("nncf", path)
        nncf.set_log_level(logging.ERROR)
        images = nncf.Dataset(pictures, _calibration_image)
        others = {node.get_type_name() for node in network.get_ops()} - {"Convolution", "Constant", "Parameter", "Result"}
        exact = nncf.IgnoredScope(types=sorted(others), validate=False)  # pooling pads with -inf, and winners are compared
        network = nncf.quantize(network, images, subset_size=len(pictures), ignored_scope=exact)
    network.set_rt_info(metadata.to_json(), [KEY])
    unsealed, weights = path.with_name("network.xml"), path.with_name("network.bin")
    openvino.save_model(network, unsealed, compress_to_fp16=False)
    path.write_bytes(seal(".xml", unsealed.read_bytes(), weights.read_bytes()))
    return [weights.rename(weights_path(path)), path]


def _calibration_image(picture: Path) -> np.ndarray:
    """(1, 3, h, w) float32 in 0..255: a picture, or its middle."""
    image = open_image(picture)
    top, left = (max(0, side - CALIBRATION_SIDE) // 2 for side in image.shape[1:])
    return image[None, :, top:, left:][..., :CALIBRATION_SIDE, :CALIBRATION_SIDE].float().contiguous().numpy()


# ---------------------------------------------------------------------------------------------------------------------
# Checking
# ---------------------------------------------------------------------------------------------------------------------


def _check(model: EncoderDecoder, temporary: Path, path: Path, pictures: Sequence[Path]) -> Report:
    """Read the file back and compare. Raises UserError (checkpoint), which names `path`, when it differs too much."""
    try:
        exported = _open(temporary)
        if pictures:
            agreement = _agreement(model, exported, pictures)
        else:
            smallest = model.total_stride if path.suffix == ".pt2" else 1
            difference = largest_difference(model, exported, model.total_stride, smallest)
    except UserError as error:
        raise UserError(error.code, path, error.found, error.remedy) from None
    if pictures:
        if not agreement >= AGREEMENT:
            found = f"in int8 {1 - agreement:.1%} of the calibration pixels change their class; nothing was written"
            raise UserError(ExitCode.CHECKPOINT, path, found, "give more pictures such as it is for, or leave out --int8")
        return Report((), None, agreement)
    if not difference <= TOLERANCE:
        found = f"differs from the network by {difference:.1e} of the largest logit, allowed {TOLERANCE}; nothing was written"
        raise UserError(ExitCode.CHECKPOINT, path, found, "install other versions of the packages, or another format")
    return Report((), difference, None)


def _open(path: Path) -> Predict:
    """What a user of the file just written would run."""
    if path.suffix != ".pt2":
        return load_exported(path).model
    module = torch.export.load(path).module(check_guards=False)  # written by this process: it is safe to read
    assert isinstance(module, nn.Module)
    return module


@torch.no_grad()
def largest_difference(model: Predict, exported: Predict, stride: int, smallest: int = 1) -> float:
    """Of the logits of noise, odd and even sizes, a single picture and three, as a share of the largest of that size."""
    worst = 0.0
    odd = (max(smallest, stride - 1), stride + 1), (2 * stride + 1, 3 * stride - 1)
    for height, width in ((smallest, smallest), *odd, (2 * stride, 3 * stride)):
        for batch in (1, 3):
            noise = torch.Generator().manual_seed(height)
            image = torch.randint(0, 256, (batch, 3, height, width), generator=noise).float()
            expected, found = model(image), exported(image)
            if found.shape != expected.shape:
                return float("inf")
            share = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
            worst = max(worst, float(share.nan_to_num(nan=float("inf"))))
    return worst


@torch.no_grad()
def _agreement(model: Predict, exported: Predict, pictures: Sequence[Path]) -> float:
    """Share of the pixels of up to eight pictures for which both see the same class."""
    same = total = 0
    for picture in pictures[:: max(1, len(pictures) // 8)][:8]:
        image = torch.from_numpy(_calibration_image(picture))
        equal = model(image).argmax(dim=1) == exported(image).argmax(dim=1)
        same, total = same + int(equal.sum()), total + equal.numel()
    return same / total
