"""The files of a denoising's evaluation: metrics.json and pictures.csv, and how they are read again."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.system.errors import data_error
from segnet.system.files import csv_text, make_folder, read_json_object, write_text
from segnet.tasks.denoising_score import MEASURES, RestoredEvaluation

PROTOCOL = (
    "The noise of each picture is drawn by numpy.random.RandomState(0) and not clipped. "
    "Restored pictures are clipped and rounded to 8 bits. PSNR is 10 log10(255² / MSE) of all values of a picture, "
    "SSIM that of Wang et al. 2004 (Gaussian window of 11×11, standard deviation 1.5); both are means over the pictures. "
    "The noisy PSNR is that of the picture as the network gets it, neither clipped nor rounded."
)
COLUMNS = ("id", "level", *(name for name, _, _ in MEASURES))


def restoration_table(evaluation: RestoredEvaluation) -> str:
    """A table for people: for each strength of the noise a row of the noisy pictures and one of the restored ones."""
    lines = [f"{'noise':<18}{'pictures':<10}{'PSNR, dB':>9}{'SSIM':>9}"]
    for level in evaluation.levels():
        part = evaluation.of_level(level)
        values = {measure.name: measure.value for measure in part.measures()}
        for name, kind in (("noisy", "noisy_"), ("restored", "")):
            psnr, ssim = shown(values[f"{kind}psnr"], 2), shown(values[f"{kind}ssim"], 4)
            lines.append(f"{strength(evaluation.kind, level):<18}{name:<10}{psnr:>9}{ssim:>9}")
    return "\n".join([*lines, f"({len(evaluation.pictures)} pictures)"])


def strength(kind: str, level: float) -> str:
    """The noise of a row in words, such as "gaussian σ 25"."""
    if not level:
        return "recorded"
    return f"{kind} quality {level:g}" if kind == "jpeg" else f"{kind} σ {level:g}"


def shown(value: float, digits: int) -> str:
    """A measure for people; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def save_restoration(
    folder: Path, evaluation: RestoredEvaluation, *, split: str, conditions: Mapping[str, str] | None = None
) -> list[Path]:
    """Write pictures.csv and metrics.json into `folder`; their paths.

    metrics.json comes last: where it is, the other is. PSNR in dB; null, or an empty cell, for what cannot be measured.
    `conditions` say in words what was scored, and how.
    """
    make_folder(folder)
    (folder / "metrics.json").unlink(missing_ok=True)
    paths = [folder / name for name in ("pictures.csv", "metrics.json")]
    rows = [["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in picture] for picture in evaluation.pictures]
    write_text(paths[0], csv_text([COLUMNS, *rows]))
    document = {
        "task": "denoise",
        "split": split,
        **_values(evaluation),
        "pictures": len(evaluation.pictures),
        "protocol": PROTOCOL,
        "levels": [
            {"noise": evaluation.kind if level else "recorded", "level": level, **_values(evaluation.of_level(level))}
            for level in evaluation.levels()
        ],
        **({"conditions": dict(conditions)} if conditions else {}),
    }
    write_text(paths[1], json.dumps(document, indent=1, allow_nan=False) + "\n")
    return paths


def _values(evaluation: RestoredEvaluation) -> dict[str, float | None]:
    return {measure.name: measure.value if math.isfinite(measure.value) else None for measure in evaluation.measures()}


class RestoredPictures(NamedTuple):
    """What a comparison needs of an evaluation's files."""

    split: str
    ids: tuple[str, ...]
    values: NDArray[np.float64]  # (N, 4): the columns of `MEASURES`; NaN where a cell is empty


def is_restoration(folder: Path) -> bool:
    """Whether an evaluation folder is of a denoising. False also where it cannot be read."""
    return read_json_object(folder / "metrics.json").get("task") == "denoise"


def read_restoration(folder: Path) -> RestoredPictures:
    """The measures in an evaluation folder. Raises UserError (data) where its files are damaged."""
    try:
        document = json.loads((folder / "metrics.json").read_text("utf-8-sig"))
        with (folder / "pictures.csv").open(newline="", encoding="utf-8-sig") as file:
            heading, *rows = [row for row in csv.reader(file) if any(row)]
        if tuple(heading) != COLUMNS or not rows or any(len(row) != len(COLUMNS) for row in rows):
            raise ValueError("pictures.csv has other columns")
        values = np.array([[float(cell or "nan") for cell in row[2:]] for row in rows])
        return RestoredPictures(str(document["split"]), tuple(row[0] for row in rows), values)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        reason = f"not files of an evaluation ({error!s:.80})"
        raise data_error(folder, reason, "evaluate again") from None
