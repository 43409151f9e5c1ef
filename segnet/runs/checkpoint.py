"""Checkpoints: plain tensors and plain values, written atomically, verified when read, never unpickled freely.

A file is what `torch.save` writes, and behind it the SHA-256 of all those bytes: no bit of it can change unnoticed.
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
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import DIGEST_MARK, atomic_write, place_of, require_digest

FORMAT = 2


class Checkpoint(NamedTuple):
    """A network with its history. `weights` predict (the moving average, where one is kept); `training` resumes."""

    config: Config
    step: int
    miou: float | None  # on the val split, of `weights`
    weights: Weights
    training: dict[str, Any] | None = None  # tensors and JSON-able values only


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, keep: Path | None = None) -> None:
    """Write `checkpoint` atomically; what stood at `path` before becomes `keep`.

    Raises UserError (numeric) rather than keep a weight that is not finite, (environment) when the disk is full.
    """
    bad = _first_non_finite({**checkpoint.weights, "training": checkpoint.training})
    if bad:
        raise UserError(ExitCode.NUMERIC, path, f"'{bad}' is not finite; nothing was saved", "lower optim.lr")
    content = {"format": FORMAT, **checkpoint._asdict(), "config": dump_config(checkpoint.config)}
    try:
        with atomic_write(path, keep=keep) as file:
            digesting = _Digesting(file)
            torch.save(content, cast(BinaryIO, digesting))
            file.write(DIGEST_MARK + digesting.sha.hexdigest().encode())
    except (OSError, RuntimeError) as error:  # torch has words of its own for a write that failed
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        if cause.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise cause from None
        need, have = _size(content) / 1e6, shutil.disk_usage(path.parent).free / 1e6
        found = f"the disk is full: a checkpoint needs {need:.1f} MB, {have:.1f} MB are free"
        raise UserError(ExitCode.ENVIRONMENT, path, found, "free some space, then go on with --resume") from None


class _Digesting:
    """A file that is written through, and digested."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint. Raises UserError (checkpoint) for anything but an intact one of this program."""
    if not path.is_file():
        found = "not a file" if path.exists() else f"no such file{place_of(path)}"
        raise _bad(path, found, "name a run folder or a checkpoint such as runs/sample/best.pt")
    require_digest(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise _bad(path, "holds compressed entries", "use a checkpoint as this program writes it")
        return _verify(torch.load(path, map_location="cpu", weights_only=True), path)
    except (UserError, PermissionError, MemoryError):
        raise
    except Exception as error:  # hostile bytes fail in every way there is; nothing is executed
        raise _bad(path, f"not a readable checkpoint ({_reason(error)})", "use another checkpoint of the run") from None


def _verify(content: object, path: Path) -> Checkpoint:
    """The checkpoint in what was read. Raises UserError, or anything, for what is none."""
    if not isinstance(content, dict) or "format" not in content:
        raise _bad(path, "not a checkpoint of this program", "name a last.pt or best.pt")
    if content["format"] != FORMAT:
        raise _bad(path, f"format {content['format']}, this version reads {FORMAT}", "use the version that wrote it")
    if not all(isinstance(weight, Tensor) for weight in content["weights"].values()):
        raise _bad(path, "a weight is not a tensor", "use another checkpoint of the run")
    bad = _first_non_finite(content["weights"])
    if bad:
        raise _bad(path, f"'{bad}' is not finite", "use another checkpoint of the run")
    fields = {name: value for name, value in content.items() if name != "format"}
    return Checkpoint(**{**fields, "config": read_stored_config(content["config"], path)})


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that RUN|CHECKPOINT means: a file itself, or best.pt of a run folder."""
    if not path.is_dir():
        return path
    if not (path / "best.pt").exists():
        remedy = "train it until its first evaluation, or name last.pt" if (path / "last.pt").exists() else "name a run folder"
        raise _bad(path, "no best.pt in this folder", remedy)
    return path / "best.pt"


def load_weights(model: torch.nn.Module, weights: Weights, path: Path) -> None:
    """Copy `weights` into `model`. Raises UserError (checkpoint) naming the first tensor that does not fit."""
    own = model.state_dict()
    for name in [*own, *weights]:
        found, expected = weights.get(name), own.get(name)
        if found is None or expected is None or (found.shape, found.dtype) != (expected.shape, expected.dtype):
            remedy = "use the configuration it was trained with"
            raise _bad(path, f"'{name}': found {_describe(found)}, expected {_describe(expected)}", remedy)
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    model.load_state_dict(weights, assign=on_meta)


def _bad(path: Path, found: str, remedy: str) -> UserError:
    return UserError(ExitCode.CHECKPOINT, path, found, remedy)


def _describe(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _first_non_finite(values: dict[Any, Any]) -> str | None:
    """The name of the first tensor with a NaN or an infinity, at any depth."""
    for name, value in values.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            return str(name)
        inner = _first_non_finite(value) if isinstance(value, dict) else None
        if inner is not None:
            return f"{name}.{inner}"
    return None


def _size(value: object) -> int:
    """Bytes of all tensors in `value`, at any depth."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_size, value.values())) if isinstance(value, dict) else 0


LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
