"""Zip files that appear whole, and have the same bytes for the same content."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from segnet.system.errors import data_error
from segnet.system.files import atomic_write

Member = tuple[str, bytes]  # its name and content


def write_zip(path: Path, first: Iterable[Member], members: Iterable[Member]) -> None:
    """Write the members in their order, atomically; one at a time is in memory.

    Raises UserError (data) where two have one name, as those of pictures that differ in their suffix alone.
    """
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in chain(first, members):
            if name in archive.NameToInfo:
                found = f"two pictures would have one file in it, {name}"
                raise data_error(path, found, "take --polygons coco, or rename one of the pictures")
            entry = zipfile.ZipInfo(name)  # always dated 1980
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
