"""Zip files that appear whole, and have the same bytes for the same content."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from segnet.system.files import atomic_write

Member = tuple[str, bytes]  # its name and content


def write_zip(path: Path, first: Iterable[Member], members: Iterable[Member]) -> None:
    """Write the members in their order, atomically; one at a time is in memory."""
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in chain(first, members):
            entry = zipfile.ZipInfo(name)  # always dated 1980
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
