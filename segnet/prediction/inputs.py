"""The pictures that a command names, and the paths of their outputs."""

from __future__ import annotations

import glob
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from segnet.config.sections import DataConfig
from segnet.data.images import SUFFIXES
from segnet.data.listing import LeftOut, is_hidden, left_out, left_out_warning, list_pictures
from segnet.data.sample_files import find_pictures
from segnet.data.split_lists import read_split
from segnet.prediction.manifest import NAME, Manifest
from segnet.system.errors import config_error, data_error, raise_first


class Job(NamedTuple):
    """A picture to predict."""

    picture: Path
    output: Path  # without a suffix; each kind of output appends its own


def plan_jobs(inputs: Sequence[str], out: Path, *, keep_suffix: bool = False) -> list[Job]:
    """One job per picture; its output is `out` / the picture's path relative to its input folder, without the suffix.

    With `keep_suffix` it keeps it: the mask of a.jpg is then a.jpg.png, beside a.png.png.
    An input is a picture, a folder (searched recursively, see `list_pictures`) or a glob pattern, whose input folder is the
    part before the first wildcard. Outputs of an earlier command are no inputs: pictures below `out`, where `out` lies inside
    the input folder, and pictures that a manifest in `out` or in the input folder lists.
    Raises UserError: (data) when an input gives no picture; (config) when `inputs` is empty, or two pictures have one output.
    """
    if not inputs:
        raise config_error("INPUT", "no picture is named", "name a picture, a folder or a quoted glob")
    jobs: dict[Path, Job] = {}
    listed = [_pictures_and_manifests(text) for text in inputs]
    folders = {out, *(path.parent for _, manifests in listed for path in manifests)}
    earlier_outputs = {real_path(folder) / name for folder in folders for name in Manifest(folder).records}
    for text, (pictures, _) in zip(inputs, listed, strict=True):
        for picture, relative in pictures:
            if _is_below(picture, out, text) or real_path(picture) in earlier_outputs:
                continue
            job = Job(picture, out / (relative if keep_suffix else relative.with_suffix("")))
            clash = jobs.setdefault(job.output, job)
            if real_path(clash.picture) != real_path(picture):
                differ = not keep_suffix and clash.picture.suffix != picture.suffix
                remedy = "add --keep-suffix" if differ else "predict them into two folders"
                raise config_error(picture, f"would overwrite the mask of {clash.picture}", remedy)
    if not jobs:
        message = "only outputs of an earlier call"
        raise data_error(", ".join(inputs), message, "name the folder of the pictures")
    return list(jobs.values())


def plan_split(data: DataConfig, split: str, out: Path) -> list[Job]:
    """One job for each picture of a split of the data set; its output is `out` / its id. Masks are not needed.

    Raises UserError (data) for faults of the list, and for pictures that are missing.
    """
    root = Path(data.root)
    ids = read_split(root, split)
    pictures, faults = find_pictures(root, ids)
    if len(pictures) < len(ids):
        raise_first(faults)
    return [Job(pictures[name], out / name) for name in ids]


def passed_over(inputs: Sequence[str], out: Path) -> list[LeftOut]:
    """The files in the input folders that look like pictures and that `plan_jobs` leaves out."""
    lefts = [(left, text) for text in inputs if os.path.isdir(text) for left in left_out(list_pictures(Path(text)))]
    return list(dict.fromkeys(left for left, text in lefts if not _is_below(left.path, out, text)))


def _is_below(path: Path, out: Path, text: str) -> bool:
    """True when `out` lies inside the input folder `text`, and `path` lies in `out`."""
    return real_path(Path(text)) in real_path(out).parents and real_path(out) in real_path(path).parents


def real_path(path: Path) -> Path:
    """`path` with every link followed; a link to itself stays as it is, where `Path.resolve` would raise."""
    return Path(os.path.realpath(path))


def pictures_of(text: str) -> list[tuple[Path, Path]]:
    """(picture, its path relative to the input folder) of one command-line input, sorted. Raises UserError as `plan_jobs`."""
    return _pictures_and_manifests(text)[0]


def _pictures_and_manifests(text: str) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """The result of `pictures_of`, and the manifests of earlier commands in the input folder."""
    if not text:
        raise config_error("INPUT", "an empty name", "name a picture, a folder or a glob; . is this folder")
    path = Path(text)
    expected = f"expected files ending in {', '.join(sorted(SUFFIXES))}"
    if os.path.isdir(path):
        listing = list_pictures(path)
        if not listing.pictures:
            more = f"; {left_out_warning(left).found} left out" if (left := left_out(listing)) else ""
            raise data_error(text, f"no pictures here{more}", expected)
        return [(p, p.relative_to(path)) for p in listing.pictures], [p for p in listing.others if p.name == NAME]
    if os.path.exists(path) or not glob.has_magic(text):
        return [(path, Path(path.name))], []
    folder = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    matches = [(p, p.relative_to(folder)) for p in _matches(text)]
    if not matches:
        raise data_error(text, "no pictures here", expected)
    return matches, []


def _matches(text: str) -> list[Path]:
    """The files of a glob pattern, sorted; each once, by its shortest path, since links may lead in circles.

    Hidden files and folders are left out unless the pattern names them.
    """
    named = Path(text).parts
    shortest: dict[tuple[str, str], Path] = {}
    for path in sorted(map(Path, glob.glob(text, recursive=True)), key=lambda path: (len(path.parts), path)):
        hidden = [part for part in path.parts if not part.startswith(".") and is_hidden(part) and part not in named]
        if path.is_file() and not hidden:
            shortest.setdefault((os.path.realpath(path.parent), path.name), path)
    return sorted(shortest.values())


def require_free_targets(jobs: Sequence[Job], targets: Sequence[Path]) -> None:
    """Raise UserError (config) when a target is one of the pictures, two targets have one name, or a file stands in the place
    of a folder."""
    pictures = {real_path(job.picture) for job in jobs}
    for target in targets:
        if real_path(target) in pictures:
            raise config_error(target, "the output would replace an input picture", "choose another --out")
    for target, count in Counter(targets).items():
        if count > 1:
            raise config_error(target, "two outputs would have this name", "predict them into two folders")
    for folder in {target.parent for target in targets}:
        nearest = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
        if not nearest.is_dir():
            raise config_error(nearest, "a file where a folder has to be", "choose another --out")
