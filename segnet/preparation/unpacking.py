"""Data sets in Pascal VOC's layout, made ready and proven in one call each."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from segnet.data.images import FORMATS, open_mask
from segnet.data.layout import mask_path, read_split, split_path, write_classes
from segnet.preparation.archives import Contents, read_contents, read_members
from segnet.preparation.downloads import fetch, verify
from segnet.preparation.plan import Prepared, PublicSet, listed, missing, pictures_in, require_count
from segnet.preparation.public_sets import PUBLIC_SETS
from segnet.preparation.sample import stopping_pool
from segnet.system.errors import ExitCode, UserError
from segnet.system.files import (
    atomic_write,
    full_disk_named,
    lock_folder,
    make_folder,
    remove_stale_temporaries,
    require_space,
    write_text,
)


def prepare(name: str, root: Path, archive: Path | None = None) -> Prepared:
    """Bring a set of `PUBLIC_SETS` into VOC's layout below `root`, from the net or from the archive at hand, and prove it.

    An interrupted call is continued by the next, and one on a finished set does nothing. Raises UserError (data) for a wrong
    archive, wrong counts or masks and a root with another set, (environment) for network, disk and another run.
    """
    public, mark = PUBLIC_SETS[name], root / f"{name}.json"
    splits = listed(public, root)
    if splits and mark.exists() and mark.read_text() == _mark_text(public) and not missing(root, splits):
        return Prepared(public.counts, changed=False)
    if public.require:
        public.require(root)
    folders = [root / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", ".preparation")]
    for folder in folders:
        make_folder(folder)
    with lock_folder(root) as held:
        for folder in (root, *folders) if held else ():  # else they may be another's that writes now
            remove_stale_temporaries(folder)
        if not splits or missing(root, splits):
            splits = _unpack(public, root, archive)
        _prove(public, root, splits)
        write_classes(root, public.classes)
        for split, ids in splits.items():  # last: a set with lists is complete
            if not split_path(root, split).exists():
                write_text(split_path(root, split), "".join(f"{sample_id}\n" for sample_id in ids))
        write_text(mark, _mark_text(public))
        shutil.rmtree(root / ".preparation")
    return Prepared(public.counts, changed=True)


def _mark_text(public: PublicSet) -> str:
    return json.dumps(public.counts) + "\n"


def _unpack(public: PublicSet, root: Path, given: Path | None) -> dict[str, list[str]]:
    """Write every file of a set that is not there yet, and return its splits. A download that proves damaged is deleted."""
    if given:
        verify(public.archive, given)
    path = given or fetch(public.archive, root / ".preparation")
    try:
        contents = read_contents(path, public.used)
        plan = public.plan(contents, root)
        for split, ids in plan.splits.items():
            require_count(path / split, len(ids), public.counts[split])
            if split_path(root, split).exists() and {*read_split(root, split)} != {*ids}:
                remedy = "delete the list, or choose another --root"
                raise UserError(ExitCode.DATA, split_path(root, split), "lists other pictures than the archive", remedy)
        _write_files(public, contents, root, plan.targets)
    except UserError as error:
        if not given and error.path.startswith(str(path)):
            path.unlink()
        raise
    return plan.splits


def _write_files(public: PublicSet, contents: Contents, root: Path, targets: dict[str, Path]) -> None:
    absent = [name for name in targets if name not in contents.sizes]
    if absent:
        remedy = "use the set's own archive"
        raise UserError(ExitCode.DATA, contents.path, f"no member '{absent[0]}' ({len(absent)} missing)", remedy)
    wanted = {name: target for name, target in targets.items() if not target.exists()}
    require_space(root, sum(contents.sizes[name] for name in wanted))
    members = read_members(contents.path, wanted)
    for name, content in tqdm(members, contents.path.name, len(wanted), disable=None, unit="file"):
        with full_disk_named(wanted[name]):
            if public.convert and wanted[name].parent.name == "SegmentationClass":
                public.convert(content, wanted[name])
            else:
                with atomic_write(wanted[name]) as file:
                    file.write(content)


def _prove(public: PublicSet, root: Path, splits: dict[str, list[str]]) -> None:
    """Raise UserError (data) unless counts, masks, sizes and the separation of training and validation are right."""
    for split, expected in public.counts.items():
        require_count(split_path(root, split), len(set(splits[split])), expected)
    held_out = {*splits["val"], *splits.get("test", ())}
    for split in splits.keys() & {"train", "trainaug"}:
        shared = sorted(held_out.intersection(splits[split]))
        if shared:
            found = f"{len(shared)} pictures of val or test are in it, such as {shared[0]}; expected 0"
            raise UserError(ExitCode.DATA, split_path(root, split), found, "use the set's own archive")
    pictures = pictures_in(root)

    def check(sample_id: str) -> None:
        mask = open_mask(mask_path(root, sample_id), public.classes)
        size = _picture_size(pictures[sample_id])
        if size != mask.shape:
            found = f"mask {mask.shape[1]}×{mask.shape[0]}, picture {size[1]}×{size[0]} (width × height)"
            raise UserError(ExitCode.DATA, mask_path(root, sample_id), found, "delete both, and run the command again")

    ids = sorted({sample_id for ids in splits.values() for sample_id in ids})
    with stopping_pool(ThreadPoolExecutor()) as pool:
        list(tqdm(pool.map(check, ids), "proof", len(ids), disable=None, unit="mask"))  # raises here what a thread raised


def _picture_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return picture.height, picture.width
    except Exception as error:  # decoders fail on damaged bytes in every way there is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(ExitCode.DATA, path, f"not a picture ({reason})", "delete it, and run the command again") from None
