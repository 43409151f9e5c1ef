"""Checkpoint files: written atomically, verified when read, and read without executing code from them.

A file is the output of `torch.save` – tensors and plain values only – followed by the SHA-256 of all those bytes.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from torch import Tensor

from segnet.config.loading import dump_config, read_stored_config
from segnet.config.sections import Config
from segnet.models.folding import Weights
from segnet.system.devices import copy_to_cpu
from segnet.system.errors import ExitCode, UserError, checkpoint_error, environment_error, first_line
from segnet.system.files import DIGEST_MARK, atomic_write, place_of, require_digest

FORMAT = 3  # of the content of a file
_READABLE = (2, FORMAT)  # format 2 has other names: see `_upgraded`
LAST = "last.pt"  # in a run folder: the newest state, from which training resumes
PREVIOUS = "previous.pt"  # the state saved before LAST, for when LAST is damaged
BEST = "best.pt"  # the weights with the best score on the val split


class Checkpoint(NamedTuple):
    """The weights of a network with their configuration, and what resuming the training needs."""

    config: Config
    step: int  # of training
    score: float | None  # of `weights` on the val split, e.g. mIoU; None: not scored
    weights: Weights  # to predict with: the moving average, where one is kept
    training: dict[str, Any] | None = None  # state to resume from, as tensors and JSON values; None: for prediction only


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, keep: Path | None = None) -> None:
    """Write `checkpoint` atomically; with `keep`, the file that was at `path` before is renamed to it.

    Raises UserError (numeric) when a weight is not finite, (environment) when the disk is full.
    """
    checkpoint = checkpoint._replace(weights=copy_to_cpu(checkpoint.weights), training=copy_to_cpu(checkpoint.training))
    bad = _first_non_finite({**checkpoint.weights, "training": checkpoint.training})
    if bad:
        raise UserError(ExitCode.NUMERIC, path, f"'{bad}' is not finite; nothing was saved", "lower optim.lr")
    content = {"format": FORMAT, **checkpoint._asdict(), "config": dump_config(checkpoint.config)}
    try:
        with atomic_write(path, keep=keep) as file:
            digesting = _Digesting(file)
            torch.save(content, cast(BinaryIO, digesting))
            file.write(DIGEST_MARK + digesting.sha.hexdigest().encode())
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a write that failed
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        if cause.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise cause from None
        need, have = _size(content) / 1e6, shutil.disk_usage(path.parent).free / 1e6
        found = f"the disk is full: a checkpoint needs {need:.1f} MB, {have:.1f} MB are free"
        raise environment_error(path, found, "free some space, then go on with --resume") from None


class _Digesting:
    """A writer that passes bytes on to a file and computes their digest."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file. Raises UserError (checkpoint) for a missing, damaged or foreign file."""
    if not path.is_file():
        found = "not a file" if path.exists() else f"no such file{place_of(path)}"
        raise checkpoint_error(path, found, "name a run folder or a checkpoint such as runs/sample/best.pt")
    require_digest(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise checkpoint_error(path, "holds compressed entries", "use a checkpoint as this program writes it")
        return _verify(torch.load(path, map_location="cpu", weights_only=True), path)
    except (UserError, PermissionError, MemoryError):
        raise
    except Exception as error:  # hostile bytes raise exceptions of every kind; none of their code runs
        found = f"not a readable checkpoint ({first_line(error, 120)})"
        raise checkpoint_error(path, found, "use another checkpoint of the run") from None


def _verify(content: object, path: Path) -> Checkpoint:
    """The checkpoint in the loaded `content`. Raises UserError, or any other exception when the content is malformed."""
    if not isinstance(content, dict) or "format" not in content:
        raise checkpoint_error(path, "not a checkpoint of this program", f"name a {LAST} or {BEST}")
    if content["format"] not in _READABLE:
        raise checkpoint_error(
            path, f"format {content['format']}, this version reads up to {FORMAT}", "use the version that wrote it"
        )
    content = _upgraded(content)
    if not all(isinstance(weight, Tensor) for weight in content["weights"].values()):
        raise checkpoint_error(path, "a weight is not a tensor", "use another checkpoint of the run")
    bad = _first_non_finite(content["weights"])
    if bad:
        raise checkpoint_error(path, f"'{bad}' is not finite", "use another checkpoint of the run")
    fields = {name: value for name, value in content.items() if name != "format"}
    return Checkpoint(**{**fields, "config": read_stored_config(content["config"], path)})


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint in the names of this format."""
    if content["format"] == FORMAT:
        return content
    training = content["training"]
    if training:
        training = {"best_score" if key == "best_miou" else key: value for key, value in training.items()}
    content = {"score" if key == "miou" else key: value for key, value in content.items()}
    return {**content, "training": training}


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that the argument RUN|CHECKPOINT names: a file itself, or BEST of a run folder.

    Raises UserError (checkpoint) when the folder has none.
    """
    if not path.is_dir():
        return path
    if not (path / BEST).exists():
        remedy = f"train it until its first evaluation, or name {LAST}" if (path / LAST).exists() else "name a run folder"
        raise checkpoint_error(path, f"no {BEST} in this folder", remedy)
    return path / BEST


def load_weights(model: torch.nn.Module, weights: Weights, path: Path) -> None:
    """Copy `weights` into `model`. Raises UserError (checkpoint) that names the first tensor of another name, shape or type."""
    own = model.state_dict()
    for name in [*own, *weights]:
        found, expected = weights.get(name), own.get(name)
        if found is None or expected is None or (found.shape, found.dtype) != (expected.shape, expected.dtype):
            remedy = "use the configuration it was trained with"
            raise checkpoint_error(path, f"'{name}': found {_describe(found)}, expected {_describe(expected)}", remedy)
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    model.load_state_dict(weights, assign=on_meta)


def _describe(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _first_non_finite(values: dict[Any, Any]) -> str | None:
    """The dotted name of the first tensor with a NaN or an infinity, at any depth; None when all are finite."""
    for name, value in values.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            return str(name)
        inner = _first_non_finite(value) if isinstance(value, dict) else None
        if inner is not None:
            return f"{name}.{inner}"
    return None


def _size(value: object) -> int:
    """The bytes of all tensors in `value`, at any depth."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_size, value.values())) if isinstance(value, dict) else 0
