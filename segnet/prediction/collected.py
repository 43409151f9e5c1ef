"""The files that hold the polygons of all pictures in a folder, made from the GeoJSON of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from segnet.classes import ClassSet
from segnet.prediction.manifest import announce_table, done_outputs, picture_name
from segnet.regions.shapes import Kept, PictureShapes
from segnet.vectors.formats import FORMATS
from segnet.vectors.geojson import SUFFIX, read_geojson


class Collected(NamedTuple):
    """What `collect_polygons` came to."""

    path: Path | None  # of the file; None where only GeoJSON was asked for
    kept: Kept | None  # of all simplified pictures together; None where there are none
    worst: tuple[str, float] | None  # the picture that lost most, and its IoU


def collect_polygons(out: Path, kind: str | None, classes: ClassSet) -> Collected:
    """Write the polygons of all pictures in `out` in the format `kind` of `FORMATS`; with None, only add up what they lost.

    A picture is called as its outputs are, with the suffix of its file: its path in its input folder.
    Raises UserError (data) for a file of polygons that is damaged.
    """
    lost = list[tuple[str, Kept]]()

    def pictures() -> Iterator[PictureShapes]:
        for path in done_outputs(out, SUFFIX):
            shapes = read_geojson(path)
            name = picture_name(out, path, SUFFIX, shapes.picture)
            name = name.encode("utf-8", "backslashreplace").decode()  # a path need not be UTF-8, these files are
            if shapes.kept:
                lost.append((name, shapes.kept))
            yield shapes._replace(picture=name)

    if kind:
        announce_table(out, FORMATS[kind].file)
        FORMATS[kind].write(out / FORMATS[kind].file, pictures(), classes)
    else:
        for _ in pictures():
            pass
    kept = Kept(sum(one.both for _, one in lost), sum(one.either for _, one in lost)) if lost else None
    worst = min(((name, one.iou) for name, one in lost), key=lambda pair: pair[1], default=None)
    return Collected(out / FORMATS[kind].file if kind else None, kept, worst)
