"""The table that an import prints: its classes, its lists and what drawing came to."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from segnet.data.layout import ALL
from segnet.importing.writing import Imported
from segnet.system.invocation import as_started


def import_table(result: Imported, out: Path) -> str:
    """The lines to print after an import."""
    total = sum(row.pixels for row in result.classes) + result.ignored
    width = max(5, *(len(row.name) for row in result.classes))
    count = len(result.sizes)
    lines = [f"{result.title} (recognised by {result.marker}): {count:,} pictures"]
    if result.skipped:
        lines[0] += f", {result.skipped:,} without a label left out"
    lines.append(f" id {'class':{width}} {'colour':>11} {'pictures':>9} {'pixels':>8}   from")
    for number, row in enumerate(result.classes):
        color = " ".join(map(str, row.color))
        share = 100 * row.pixels / max(1, total)
        lines.append(f"{number:3d} {row.name:{width}} {color:>11} {row.pictures:9,} {share:6.2f} %   {row.origin}")
    if result.ignored:
        lines.append(f"255 {'ignored':{width}} {'':>11} {'':>9} {100 * result.ignored / total:6.2f} %   not scored")
    counts = result.counts
    if any(counts):
        lines.append(
            f"{counts.shapes:,} shapes drawn, {counts.overlapped:,} pixels in shapes of several classes, "
            f"{counts.outside:,} shapes cut at the border, {counts.too_small:,} too small for a pixel"
        )
    lines += [f"note: {note}" for note in result.notes]
    lists = ", ".join(f"{size:,} {split}" for split, size in result.lists.items())
    lines.append(f"{out}: {lists}" + ("" if result.written else " (complete already: nothing to do)"))
    if set(result.lists) == {ALL}:
        lines.append(as_started(f"next: segnet split {quote(str(out))} --val 0.2"))
    return "\n".join(lines)
