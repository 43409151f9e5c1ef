"""Which files below a folder are pictures, and what looks like one and is passed over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from segnet.data.images import SUFFIXES, pixel_count
from segnet.system.errors import ExitCode, UserError

_SHOWN = 10  # names in a line
_LEFT_BY_TOOLS = frozenset(  # names in lower case: what archives, network drives and file systems keep beside the files
    {"__macosx", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "lost+found"}
    | {"system volume information", "thumbs.db", "desktop.ini"}
)
_OTHER_FORMATS = frozenset(  # suffixes in lower case: pictures and films of formats that are not read
    {".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr", ".mpo", ".tga", ".dds", ".ico", ".pcx", ".qoi"}
    | {".psd", ".psb", ".xcf", ".svg", ".svgz", ".eps", ".pdf", ".exr", ".hdr", ".npy", ".dcm", ".nii", ".fits", ".svs", ".czi"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw"}
    | {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg"}
)


class LeftOut(NamedTuple):
    """What is passed over, and why."""

    path: Path
    why: str


class Listing(NamedTuple):
    """What a folder holds, in the order of the paths, but for what is hidden."""

    pictures: list[Path]
    others: list[Path]  # files that are no pictures by their names
    unread: list[LeftOut]  # folders


def is_hidden(name: str) -> bool:
    """Whether a file or folder is left alone: its name begins with a dot, or tools keep their own things under it."""
    return name.startswith(".") or name.lower() in _LEFT_BY_TOOLS


def has_picture_suffix(name: str) -> bool:
    """Whether a file is a picture by its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def has_foreign_suffix(name: str) -> bool:
    """Whether a file is a picture or film of a format that is not read, by its name."""
    return os.path.splitext(name)[1].lower() in _OTHER_FORMATS


def list_pictures(folder: Path) -> Listing:
    """All that lies below `folder`, hidden names left alone. Raises OSError where `folder` itself cannot be read.

    Links to folders are followed, after the folders themselves: each folder is read once, under its own path if it has one
    here. A link to a folder that holds `folder` is not followed. A file's link is a file.
    """
    pictures, others, unread, seen, starts = list[Path](), list[Path](), list[LeftOut](), set[str](), [str(folder)]
    around = {str(parent) for parent in Path(os.path.realpath(folder)).parents}

    def refuse(error: OSError) -> None:
        if error.filename == str(folder):
            raise error
        unread.append(LeftOut(Path(error.filename), (error.strerror or "cannot be read").lower()))

    for start in starts:  # which grows
        for place, folders, files in os.walk(start, onerror=refuse):
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
                    (pictures if has_picture_suffix(name) else others).append(Path(place, name))
    return Listing(sorted(pictures), sorted(others), sorted(unread))


def left_out(listing: Listing) -> list[LeftOut]:
    """What is passed over although it is a picture by its content or by a suffix of another format; folders that are not read."""
    found = list(listing.unread)
    for path in listing.others:
        if has_foreign_suffix(path.name):
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
    """One line that counts and names what is passed over."""
    named = ", ".join(f"{left.path}: {left.why}" for left in found[:_SHOWN])
    more = f", and {len(found) - _SHOWN} more" if found[_SHOWN:] else ""
    count = f"{len(found)} file{'s' if found[1:] else ''}"
    remedy = "convert them to JPEG or PNG, or give them the suffix of their format"
    return UserError(ExitCode.DATA, "left out", f"{count} ({named}{more})", remedy)
