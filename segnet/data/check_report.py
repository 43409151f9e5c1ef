"""The report of `check_dataset` as a text for people and as JSON for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from segnet.classes import merge_text
from segnet.data.checking import CheckReport
from segnet.data.layout import ALL, split_path
from segnet.data.sample_files import merge_alike
from segnet.system.errors import UserError


def fault_lines(report: CheckReport, *, verbose: bool = False) -> list[str]:
    """The faults and warnings for people: those of many files with one cause are one line for each split, unless `verbose`."""
    faults, warnings = report.faults, report.warnings
    if not verbose:
        split_of = {name: split.name for split in reversed(report.splits) for name in split.ids}

        def place(fault: UserError) -> Path:
            path = Path(fault.path)
            below = path.relative_to(report.root).parts[1:] if path.is_relative_to(report.root) else ()  # without JPEGImages, …
            split = split_of.get(os.path.splitext("/".join(below))[0])
            return split_path(report.root, split) if split else path

        faults, warnings = merge_alike(faults, place), merge_alike(warnings, place)
    return [*(f"error: {fault}" for fault in faults), *(f"warning: {warning}" for warning in warnings)]


def report_table(report: CheckReport) -> str:
    """The report for people: for each split a table of its classes, its sizes and ignored pixels; then the overlaps.

    Empty where the data folder cannot hold a split.
    """
    width = max(map(len, report.classes.names))
    lines = []
    for split in report.splits:
        scored = sum(split.class_pixels)
        lines.append(f"{split.name}: {len(split.ids):,} pictures")
        if not split.ignored + scored:
            lines[-1] += ", none of which can be read"
            continue
        lines.append(f"  {'class':<{width}}  pictures           pixels   share")
        rows = zip(report.classes.names, split.class_pictures, split.class_pixels, strict=True)
        lines += [f"  {name:<{width}}  {n:>8,}  {pixels:>15,}  {_percent(pixels, scored):>6}" for name, n, pixels in rows]
        height, across = (f"{low} / {middle:g} / {high}" for low, middle, high in (split.heights, split.widths))
        lines.append(f"  height {height}, width {across} (smallest / median / largest)")
        lines.append(f"  ignored {_percent(split.ignored, split.ignored + scored)} of {split.ignored + scored:,} pixels")
    sizes = {split.name: len(split.ids) for split in report.splits}
    if merged := merge_text(report.classes):
        lines.append(f"merged by data.merge: {merged}")
    shared = {pair: n for pair, n in report.overlaps.items() if ALL not in pair and all(sizes[name] for name in pair)}
    lines += [f"{a} and {b} share {n:,} pictures" for (a, b), n in shared.items()]
    return "\n".join(lines)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "–"


def report_json(report: CheckReport) -> str:
    """The report for programs, as JSON: the numbers of `report_table`, the faults and the warnings."""
    splits = [
        {
            "name": split.name,
            "pictures": len(split.ids),
            "height": dict(zip(("min", "median", "max"), split.heights, strict=True)),
            "width": dict(zip(("min", "median", "max"), split.widths, strict=True)),
            "ignored": split.ignored,
            "classes": [
                {"name": name, "pictures": pictures, "pixels": pixels}
                for name, pictures, pixels in zip(report.classes.names, split.class_pictures, split.class_pixels, strict=True)
            ],
        }
        for split in report.splits
    ]
    overlaps = [{"splits": list(pair), "pictures": count} for pair, count in report.overlaps.items()]
    tree = {
        "root": str(report.root),
        "merged": merge_text(report.classes),
        "splits": splits,
        "overlaps": overlaps,
        "faults": _as_trees(report.faults),
        "warnings": _as_trees(report.warnings),
    }
    return json.dumps(tree, indent=1) + "\n"


def _as_trees(errors: Sequence[UserError]) -> list[dict[str, str]]:
    return [{"path": error.path, "found": error.found, "remedy": error.remedy} for error in errors]
