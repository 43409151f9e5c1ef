"""The pictures below a folder, and the files that look like pictures and are left out."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from segnet.data.deep_pictures import ARRAY_SUFFIX
from segnet.data.images import SUFFIXES, pixel_count
from segnet.system.errors import UserError, data_error

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})  # errors of a path that does not exist
_SHOWN = 10  # names in a line
_LEFT_BY_TOOLS = frozenset(  # names, in lower case, that archivers, network drives and file systems add to a folder
    {"__macosx", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "lost+found"}
    | {"system volume information", "thumbs.db", "desktop.ini"}
)
_OTHER_FORMATS = frozenset(  # suffixes, in lower case, of pictures and films whose formats are not read
    {".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr", ".mpo", ".tga", ".dds", ".ico", ".pcx", ".qoi"}
    | {".psd", ".psb", ".xcf", ".svg", ".svgz", ".eps", ".pdf", ".exr", ".hdr", ".dcm", ".nii", ".fits", ".svs", ".czi"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw"}
    | {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg"}
)


class LeftOut(NamedTuple):
    """A file or folder that is left out, and the reason."""

    path: Path
    why: str


class Listing(NamedTuple):
    """The files below a folder without hidden ones, sorted by path."""

    pictures: list[Path]
    others: list[Path]  # files without the suffix of a picture
    unread: list[LeftOut]  # folders that were not read


def is_hidden(name: str) -> bool:
    """Whether a file or folder is ignored: its name begins with a dot, or is one that tools use for themselves."""
    return name.startswith(".") or name.lower() in _LEFT_BY_TOOLS


def has_picture_suffix(name: str) -> bool:
    """Whether a file has the suffix of a format that is read."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def has_foreign_suffix(name: str) -> bool:
    """Whether a file has the suffix of a picture or film whose format is not read."""
    return os.path.splitext(name)[1].lower() in _OTHER_FORMATS


def list_pictures(folder: Path, *, arrays: bool = True) -> Listing:
    """The files below `folder`, hidden names ignored. Without `arrays`, .npy files are no pictures: masks are not read from them.

    Raises OSError when `folder` itself cannot be read.

    Links to folders are followed after the folders themselves, so that a folder is read once, and under its own path if
    that lies below `folder`. A link to a folder that contains `folder` is not followed. A link to a file is a file.
    """
    pictures, others = list[Path](), list[Path]()
    unread = list[LeftOut]()
    seen = set[str]()
    starts = [str(folder)]  # grows by the links to folders
    around = {str(parent) for parent in Path(os.path.realpath(folder)).parents}

    def note_unread(error: OSError) -> None:
        if error.filename == str(folder):
            raise error
        unread.append(LeftOut(Path(error.filename), (error.strerror or "cannot be read").lower()))

    for start in starts:
        for place, folders, files in os.walk(start, onerror=note_unread):
            real = os.path.realpath(place)
            if real in around:
                unread.append(LeftOut(Path(place), f"a link to {real}, which holds the folder itself"))
            if real in seen or real in around:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [name for name in sorted(folders) if not is_hidden(name)]
            starts += [path for path in (os.path.join(place, name) for name in folders) if os.path.islink(path)]
            for name in files:
                if not is_hidden(name):
                    is_read = has_picture_suffix(name) and (arrays or not name.lower().endswith(ARRAY_SUFFIX))
                    (pictures if is_read else others).append(Path(place, name))
    return Listing(sorted(pictures), sorted(others), sorted(unread))


def left_out(listing: Listing) -> list[LeftOut]:
    """The files left out that are pictures by their content or have the suffix of another format, and the folders not read."""
    found = list(listing.unread)
    for path in listing.others:
        if has_foreign_suffix(path.name) or path.suffix.lower() == ARRAY_SUFFIX:
            found.append(LeftOut(path, f"{path.suffix[1:].upper()} is not read"))
        elif _holds_picture(path):
            found.append(LeftOut(path, "a picture by its content alone" if path.suffix else "a picture without a suffix"))
    return sorted(found)


def _holds_picture(path: Path) -> bool:
    try:
        return pixel_count(path) > 0
    except (UserError, OSError):
        return False


def left_out_warning(found: Sequence[LeftOut]) -> UserError:
    """A warning of one line that counts and names the files left out."""
    named = ", ".join(f"{left.path}: {left.why}" for left in found[:_SHOWN])
    more = f", and {len(found) - _SHOWN} more" if found[_SHOWN:] else ""
    count = f"{len(found)} file{'s' if found[1:] else ''}"
    remedy = "convert them to JPEG or PNG, or give them the suffix of their format"
    return data_error("left out", f"{count} ({named}{more})", remedy)


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted; none when there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return []


def names_by_stem(folder: Path) -> dict[str, list[str]]:
    """The names in a folder that have the suffix of a picture, by the name without the suffix."""
    by_stem = defaultdict[str, list[str]](list)
    for name in names_in(folder):
        if has_picture_suffix(name):
            by_stem[os.path.splitext(name)[0]].append(name)
    return by_stem
