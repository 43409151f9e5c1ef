"""What makes an existing output valid: the digest of the settings and of the image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from segnet.inference.predictor import Predictor
from segnet.prediction.inputs import Job

VERSION = 1  # of the outputs: raised when the same picture and weights give others


def settings_digest(predictor: Predictor) -> str:
    """32 hexadecimal digits that depend on all that an output depends on, but for the picture: weights, network, classes,
    how to infer, version."""
    config = predictor.config
    content = hashlib.blake2b(digest_size=16)
    for part in (VERSION, config.model.model_dump_json(), config.inference.model_dump_json(), predictor.classes):
        content.update(f"{part}\0".encode())
    for name, weight in sorted(predictor.model.state_dict().items()):
        content.update(f"{name} {weight.dtype} {tuple(weight.shape)}\0".encode())
        content.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return content.hexdigest()


def digest_of_picture(jobs: Sequence[Job]) -> int:
    """A number that other lists of pictures do not have."""
    content = "\0".join(f"{job.picture}\0{job.output}" for job in jobs).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(content, digest_size=7).digest())
