"""From a picture to its mask, in Python and for whole folders."""

from __future__ import annotations

import glob
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segnet.checkpoint import load_model
from segnet.classes import ClassSet
from segnet.devices import choose_device
from segnet.errors import ExitCode, UserError
from segnet.files import atomic_write
from segnet.images import SUFFIXES, image_to_tensor, open_image, save_image, save_mask
from segnet.inference import predict_maps
from segnet.models import folded
from segnet.visualization import overlay

Picture = Path | str | Image.Image | np.ndarray | Tensor


class Prediction(NamedTuple):
    """What the network says about one picture, on the CPU, at the picture's own size."""

    image: Tensor  # (3, H, W) uint8 RGB, upright
    mask: Tensor  # (H, W) uint8 class ids
    confidence: Tensor  # (H, W) float32, probability of the predicted class
    uncertainty: Tensor  # (H, W) float32, 0 certain .. 1: `inference.Maps.uncertainty`
    entropy: Tensor  # (H, W) float32, of the probabilities, in nats: 0..log K
    variance: Tensor | None  # (H, W) float32 between dropout samples, mean over the classes; None without samples
    mutual_information: Tensor | None  # (H, W) float32, nats: what of the entropy dropout explains; None without samples
    probabilities: Tensor | None  # (K, H, W) float32, where asked for


class Predictor:
    """A trained network that predicts pictures: a run folder or a checkpoint is all it needs."""

    def __init__(self, path: Path | str, overrides: Sequence[str] = ()) -> None:
        """Load it, with configuration overrides such as "inference.flip=true" or "device=cpu". Raises UserError."""
        model, self.classes, self.config = load_model(path, overrides)
        self.device = choose_device(self.config.device)
        self.model = folded(model).to(self.device)

    def predict(self, picture: Picture, *, probabilities: bool = False) -> Prediction:
        """The prediction for a path, a Pillow picture, an (H, W, 3) uint8 array or a (3, H, W) uint8 tensor, RGB.

        Pictures of any size: large ones are seen through windows. `probabilities` of all classes take 4·K bytes a pixel.
        Raises UserError (data) for a file that is no picture, ValueError for an array or tensor of another form.
        """
        image = _as_image(picture)
        maps = predict_maps(self.model, image[None], self.config.inference, probabilities=probabilities)
        return Prediction(
            image,
            mask=maps.mask[0],
            confidence=maps.confidence[0],
            uncertainty=maps.uncertainty(len(self.classes))[0],
            entropy=maps.entropy[0],
            variance=None if maps.variance is None else maps.variance[0],
            mutual_information=None if maps.mutual_information is None else maps.mutual_information[0],
            probabilities=None if maps.probabilities is None else maps.probabilities[0],
        )


def _as_image(picture: Picture) -> Tensor:
    if isinstance(picture, Path | str):
        return open_image(picture)
    if isinstance(picture, Image.Image):
        return image_to_tensor(picture)
    image = picture if isinstance(picture, Tensor) else torch.from_numpy(np.array(picture)).movedim(-1, 0)
    if image.dim() != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
        raise ValueError(f"expected RGB uint8, array (H, W, 3) or tensor (3, H, W); got {tuple(picture.shape)} {picture.dtype}")
    return image


# ---------------------------------------------------------------------------------------------------------------------
# Folders
# ---------------------------------------------------------------------------------------------------------------------


def _save_probabilities(path: Path, prediction: Prediction) -> None:
    with atomic_write(path) as file:
        assert prediction.probabilities is not None
        np.savez_compressed(file, probabilities=prediction.probabilities.half().numpy())


WRITERS: dict[str, tuple[str, Callable[[Path, Prediction, ClassSet], None]]] = {  # what to save -> suffix, how
    "mask": (".png", lambda path, p, classes: save_mask(path, p.mask, classes)),
    "overlay": (".overlay.jpg", lambda path, p, classes: save_image(path, overlay(p.image, p.mask, classes))),
    "uncertainty": (".uncertainty.png", lambda path, p, _: save_image(path, (p.uncertainty * 255).round().byte().numpy())),
    "probabilities": (".probabilities.npz", lambda path, p, _: _save_probabilities(path, p)),
}


class Job(NamedTuple):
    """A picture and where its outputs go: the output path still lacks its suffix."""

    picture: Path
    output: Path


def plan_jobs(inputs: Sequence[str], out: Path) -> list[Job]:
    """One job per picture: OUT / its path below its input folder, without the suffix.

    An input is a picture, a folder (searched recursively) or a glob pattern, whose input folder is the part without a
    wildcard. Pictures below OUT are outputs of an earlier call, not inputs, where OUT lies inside the input folder.
    Raises UserError (data) when an input gives no picture, (config) when two pictures would share an output.
    """
    jobs: dict[Path, Job] = {}
    for text in inputs:
        earlier = out.resolve() if Path(text).resolve() in out.resolve().parents else None  # outputs below the input folder
        for picture, relative in _pictures_of(text):
            if earlier and earlier in picture.resolve().parents:
                continue
            job = Job(picture, out / relative.with_suffix(""))
            clash = jobs.setdefault(job.output, job)
            if clash.picture.resolve() != picture.resolve():
                remedy = "predict them into two folders"
                raise UserError(ExitCode.CONFIG, picture, f"would overwrite the mask of {clash.picture}", remedy)
    return list(jobs.values())


def _pictures_of(text: str) -> list[tuple[Path, Path]]:
    """(picture, its path below the input folder) for one command-line input, sorted."""
    path = Path(text)
    if path.is_dir():
        found = [(p, p.relative_to(path)) for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]
    elif path.exists() or not glob.has_magic(text):
        found = [(path, Path(path.name))]
    else:
        folder = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        found = [(p, p.relative_to(folder)) for p in matches if p.is_file()]
    if not found:
        raise UserError(ExitCode.DATA, text, "no pictures here", f"expected files ending in {', '.join(sorted(SUFFIXES))}")
    return found


def predict_jobs(
    predictor: Predictor, jobs: Sequence[Job], save: Sequence[str], *, overwrite: bool = False
) -> Iterator[tuple[Job, UserError | None]]:
    """Predict and write each job, in order; a bad picture is reported with its job and does not stop the others.

    Raises UserError (config) before the first picture when an output exists and `overwrite` is off, when two outputs
    would have one name, an output would replace an input, or a file stands where a folder has to be.
    """
    targets = [_with_suffix(job.output, WRITERS[kind][0]) for job in jobs for kind in dict.fromkeys(save)]
    _check_targets(targets, {job.picture.resolve() for job in jobs})
    existing = [target for target in targets if target.exists()]
    if existing and not overwrite:
        found = "exists already" + (f", and {len(existing) - 1} more" if len(existing) > 1 else "")
        raise UserError(ExitCode.CONFIG, existing[0], found, "add --overwrite, or choose another --out")
    for job in jobs:
        try:
            prediction = predictor.predict(job.picture, probabilities="probabilities" in save)
        except UserError as error:
            yield job, error
            continue
        job.output.parent.mkdir(parents=True, exist_ok=True)
        for kind in save:
            suffix, write = WRITERS[kind]
            write(_with_suffix(job.output, suffix), prediction, predictor.classes)
        yield job, None


def _check_targets(targets: Sequence[Path], inputs: set[Path]) -> None:
    for target in targets:
        if target.resolve() in inputs:
            raise UserError(ExitCode.CONFIG, target, "the output would replace an input picture", "choose another --out")
    for target, count in Counter(targets).items():
        if count > 1:
            raise UserError(ExitCode.CONFIG, target, "two outputs would have this name", "predict them into two folders")
    for folder in {target.parent for target in targets}:
        nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not nearest.is_dir():
            raise UserError(ExitCode.CONFIG, nearest, "a file where a folder has to be", "choose another --out")


def _with_suffix(output: Path, suffix: str) -> Path:
    return output.with_name(output.name + suffix)
