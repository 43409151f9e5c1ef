"""The files of a labelled set: a folder or an archive opened, its pictures found by the names that labels give them."""

from __future__ import annotations

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from segnet.data.listing import LeftOut, Listing, left_out, list_pictures
from segnet.preparation.archives import unpack
from segnet.system.errors import data_error, first_line

LOOKED_AT = 50  # JSON files by which a format is recognised
_UPLOAD = re.compile(r"[0-9a-f]{8}-")  # Label Studio puts it before the name of an uploaded file


class Tree(NamedTuple):
    """The files below the folder of a labelled set, by paths relative to it, sorted; hidden ones are left out."""

    root: Path
    pictures: list[str]
    others: list[str]
    only: str = ""  # the file of labels that was named instead of the folder
    unread: Sequence[LeftOut] = ()  # files that look like pictures and are not read

    @property
    def names(self) -> list[str]:
        """All files."""
        return [*self.pictures, *self.others]

    def below(self, folder: str) -> Tree:
        """The files below a folder; of "", the folder itself, all."""
        if not folder:
            return self
        start = f"{folder}/"
        pictures, others = ([name.removeprefix(start) for name in own if name.startswith(start)] for own in self[1:3])
        return Tree(self.root / folder, pictures, others)

    def jsons(self) -> list[str]:
        """The JSON files; only one where that was named."""
        return [name for name in self.others if name.lower().endswith(".json") and self.only in ("", name)]


def open_tree(source: Path, scratch: Path) -> Tree:
    """The files of a folder, of an archive (unpacked into `scratch`), or of the folder of a JSON or XML file.

    Folders that hold nothing but one folder are passed. Raises UserError (data) where `source` is missing or something else.
    """
    if source.is_dir():
        return _list_tree(source)
    if not source.is_file():
        raise data_error(source, "no such file or folder", "name a folder, a zip, or a JSON or XML file of labels")
    if source.suffix.lower() in (".json", ".xml"):
        return _list_tree(source.parent, only=source.name)
    with source.open("rb") as file:
        start = file.read(4)
    if start != b"PK\x03\x04" and not source.name.lower().endswith((".tar", ".tar.gz", ".tgz")):
        raise data_error(
            source, "is neither a zip, a tar nor a JSON or XML file", "name a folder, an archive or a file of labels"
        )
    unpack(source, scratch)
    return _list_tree(scratch)


def _list_tree(folder: Path, only: str = "") -> Tree:
    listing = list_pictures(folder)
    unread = [LeftOut(path, "not a file") for path in (*listing.pictures, *listing.others) if not path.is_file()]
    no_files = {left.path for left in unread}
    listing = Listing(
        [path for path in listing.pictures if path not in no_files],
        [path for path in listing.others if path not in no_files],
        sorted([*listing.unread, *unread]),
    )
    root = folder
    inside = [path.relative_to(folder) for path in (*listing.pictures, *listing.others)]
    while not only and inside and all(len(path.parts) > 1 and path.parts[0] == inside[0].parts[0] for path in inside):
        root = root / inside[0].parts[0]
        inside = [Path(*path.parts[1:]) for path in inside]
    pictures = [path.relative_to(root).as_posix() for path in listing.pictures]
    return Tree(root, pictures, [path.relative_to(root).as_posix() for path in listing.others], only, left_out(listing))


def load_json(path: Path) -> Any:
    """The content of a JSON file. Raises UserError (data) where it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise data_error(path, f"is no JSON ({first_line(error, 100)})", "export it again") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without the space around them. Raises UserError (data) where it is not UTF-8."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise data_error(path, f"byte {error.start} is not UTF-8", "save the file as UTF-8") from None


class PictureFinder:
    """A search for pictures by the names that files of labels give them: paths, URLs, names of other computers.

    Only pictures that were listed below the source or below the folder of `--pictures` can be found.
    """

    def __init__(self, tree: Tree, pictures: Path | None) -> None:
        if pictures and not pictures.is_dir():
            raise data_error(pictures, "no such folder", "name the folder of the pictures after --pictures")
        self.by_path = {name: tree.root / name for name in tree.pictures}
        self.extra = (
            {path.relative_to(pictures).as_posix(): path for path in list_pictures(pictures).pictures if path.is_file()}
            if pictures
            else {}
        )
        self.by_name = defaultdict[str, dict[Path, str]](dict)
        for name, path in ({} if pictures else self.by_path).items() | self.extra.items():
            self.by_name[posixpath.basename(name)][path] = name
        self.asked = pictures is not None
        self.listed = self.extra if pictures else self.by_path  # all pictures that may be meant
        self.loosely = list[str]()  # found by the end of their path alone

    def find(self, name: str, labels: Path, near: str = "") -> tuple[Path, str]:
        """The picture called `name` by a file in the folder `near` of the source, and its path in the folder where it is.

        Raises UserError (data) where there is none, or several, and where the name leaves the folder.
        """
        plain, absolute = _plain_path(name)
        together = posixpath.normpath(posixpath.join(near, plain))
        for listed, key in ((self.extra, plain), *(((self.by_path, together), (self.by_path, plain)) if not self.asked else ())):
            if not absolute and key in listed:
                return listed[key], key
        if together.startswith("../") and not absolute and not self.asked:
            remedy = "name the folder around labels and pictures, or give --pictures DIR"
            raise data_error(labels, f"picture '{name}' lies outside of the folder of the labels", remedy)
        found = self._by_end(plain)
        if not found and _UPLOAD.match(posixpath.basename(plain)):
            found = self._by_end(posixpath.basename(plain)[9:])
        if len(found) == 1:
            self.loosely.append(name)
            return next(iter(found.items()))
        if found:
            both = " and ".join(sorted(found.values())[:2])
            raise data_error(labels, f"picture '{name}' may be {both}", "give --pictures DIR, a folder that has it once")
        remedy = "put it there, or remove its labels" if self.asked else "give --pictures DIR, the folder of the pictures"
        raise data_error(labels, f"picture '{name}' is missing", remedy)

    def notes(self, used: Iterable[object]) -> list[str]:
        """What a user should know of the search: pictures found loosely, and those that are not among `used`."""
        left = len(set(self.listed.values()) - set(used))
        loosely = f"{len(self.loosely):,} pictures were found by the end of their path alone"
        unused = f"{left:,} pictures in the folder have no entry in the labels and are left out"
        return [*([loosely] if self.loosely else []), *([unused] if left else [])]

    def _by_end(self, plain: str) -> dict[Path, str]:
        """The pictures whose paths share the longest end with `plain`, at least the file's name."""
        parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
        named = self.by_name.get(parts[-1], {}) if parts else {}
        for start in range(len(parts)):
            end = "/" + "/".join(parts[start:])
            found = {path: name for path, name in named.items() if f"/{name}".endswith(end)}
            if found:
                return found
        return {}


def _plain_path(name: str) -> tuple[str, bool]:
    """A name in a file of labels as a path with slashes, and whether it begins at the root of some computer."""
    try:
        parts = urlsplit(name) if re.match(r"[a-z][a-z0-9+.-]+://|/data/", name) else None
    except ValueError:  # no URL
        parts = None
    if parts:
        local = parse_qs(parts.query).get("d")  # Label Studio's local files
        return unquote(local[0] if local else parts.path).lstrip("/"), True
    plain = name.replace("\\", "/")
    absolute = plain.startswith("/") or re.match(r"[A-Za-z]:/", plain) is not None
    return posixpath.normpath(re.sub(r"^([A-Za-z]:)?/+", "", plain)), absolute
