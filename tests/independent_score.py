"""The score of written masks, computed without a line of the project: numpy, Pillow and exact fractions.

    python tests/independent_score.py DATA SPLIT MASKS METRICS.json

compares DATA/SegmentationClass of a split with the PNG files in MASKS, and both with what evaluate.py wrote.
"""

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image


def count_files(data: Path, split: str, masks: Path, classes: int) -> tuple[np.ndarray, int]:
    """Pixels by [truth, prediction] over a split, and ignored pixels."""
    counts, ignored = np.zeros((classes, classes), dtype=np.int64), 0
    for name in (data / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split():
        truth = np.asarray(Image.open(data / "SegmentationClass" / f"{name}.png"))
        prediction = np.asarray(Image.open(masks / f"{name}.png"))
        assert truth.shape == prediction.shape, name
        ignored += np.count_nonzero(truth == 255)
        for t in np.unique(truth[truth != 255]):
            ids, pixels = np.unique(prediction[truth == t], return_counts=True)
            counts[t, ids] += pixels
    return counts, ignored


def exact_miou(counts: np.ndarray) -> tuple[Fraction, list[Fraction | None]]:
    """Mean and per-class intersection over union; None for a class that is nowhere."""
    iou = []
    for k in range(len(counts)):
        union = int(counts[k].sum() + counts[:, k].sum() - counts[k, k])
        iou.append(Fraction(int(counts[k, k]), union) if union else None)
    present = [share for share in iou if share is not None]
    return sum(present, Fraction()) / len(present), iou


def differences(data: Path, split: str, masks: Path, metrics_file: Path) -> list[str]:
    """What differs between the written masks and the written metrics; empty when nothing does."""
    metrics = json.loads(metrics_file.read_text())
    counts, ignored = count_files(data, split, masks, len(metrics["classes"]))
    miou, iou = exact_miou(counts)
    rows = (metrics_file.parent / "confusion.csv").read_text().splitlines()[1:]
    written = np.array([[int(cell) for cell in row.split(",")[1:]] for row in rows])
    found = [] if np.array_equal(counts, written) else [f"confusion: {np.count_nonzero(counts != written)} cells differ"]
    expected = {"pixels": int(counts.sum()), "ignored": ignored}
    found += [f"{name}: {metrics[name]} instead of {value}" for name, value in expected.items() if metrics[name] != value]
    pairs = [("miou", metrics["miou"], miou)] + [
        (row["name"], row["iou"], share) for row, share in zip(metrics["classes"], iou, strict=True)
    ]
    for name, value, share in pairs:
        if (value is None) != (share is None) or (value is not None and abs(Fraction(value) - share) > Fraction(1, 10**12)):
            found.append(f"{name}: {value} instead of {share}")
    return found


if __name__ == "__main__":
    result = differences(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    print("\n".join(result) or "no difference")
    sys.exit(bool(result))
