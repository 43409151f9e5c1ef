"""The preparation of a public dataset: fetch its archive, unpack it into Pascal VOC's layout, check the result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from segnet.data.images import picture_size
from segnet.data.layout import FOLDERS, MASKS, mask_path, split_path, write_classes, write_missing_lists
from segnet.data.mask_files import open_mask
from segnet.data.sample_files import size_faults
from segnet.data.split_lists import overlap_faults, read_split
from segnet.preparation.archives import Contents, read_contents, read_members
from segnet.preparation.downloads import fetch, verify
from segnet.preparation.plan import Prepared, PublicSet, incomplete_ids, listed_splits, pictures_in, require_count
from segnet.preparation.public_sets import PUBLIC_SETS
from segnet.system.errors import UserError, data_error
from segnet.system.files import (
    atomic_write,
    full_disk_named,
    lock_folder,
    make_folder,
    remove_stale_temporaries,
    require_space,
    write_text,
)
from segnet.system.processes import stopping_pool

_AGAIN = "run the command again"
_DOWNLOADS = ".preparation"  # in the data folder, while it is prepared


def prepare(name: str, root: Path, archive: Path | None = None) -> Prepared:
    """Prepare the set `name` of `PUBLIC_SETS` in `root` from a download or from the file `archive`, and check it.

    After an interruption the next call continues; a call on a complete set does nothing. Raises UserError (data) for a wrong
    archive, wrong counts or masks and a root with another set, (environment) for network, disk and another call at work.
    """
    public = PUBLIC_SETS[name]
    mark = root / f"{name}.json"
    splits = listed_splits(public, root)
    if splits and mark.exists() and mark.read_text() == _mark_text(public) and not incomplete_ids(root, splits):
        return Prepared(public.counts, changed=False)
    if public.require:
        public.require(root)
    folders = [root / folder for folder in (*FOLDERS, _DOWNLOADS)]
    for folder in folders:
        make_folder(folder)
    with lock_folder(root) as held:
        for folder in (root, *folders) if held else ():  # without a lock, another process may be writing these files
            remove_stale_temporaries(folder)
        if not splits or incomplete_ids(root, splits):
            splits = _unpack(public, root, archive)
        _prove(public, root, splits)
        write_classes(root, public.classes)
        write_missing_lists(root, splits)
        write_text(mark, _mark_text(public))
        shutil.rmtree(root / _DOWNLOADS)
    return Prepared(public.counts, changed=True)


def _mark_text(public: PublicSet) -> str:
    return json.dumps(public.counts) + "\n"


def _unpack(public: PublicSet, root: Path, given: Path | None) -> dict[str, list[str]]:
    """Write the missing files of a set. Its splits, as ids. A download that turns out to be damaged is deleted."""
    if given:
        verify(public.archive, given)
    path = given or fetch(public.archive, root / _DOWNLOADS)
    try:
        contents = read_contents(path, public.used)
        plan = public.plan(contents, root)
        for split, ids in plan.splits.items():
            require_count(path / split, len(ids), public.counts[split])
            if split_path(root, split).exists() and {*read_split(root, split)} != {*ids}:
                remedy = "delete the list, or choose another --root"
                raise data_error(split_path(root, split), "lists other pictures than the archive", remedy)
        _write_files(public, contents, root, plan.targets)
    except UserError as error:
        if not given and error.path.startswith(str(path)):
            path.unlink()
        raise
    return plan.splits


def _write_files(public: PublicSet, contents: Contents, root: Path, targets: dict[str, Path]) -> None:
    """Write the members of an archive to their targets, unless these exist. Raises UserError (data) when a member is absent."""
    absent = [name for name in targets if name not in contents.sizes]
    if absent:
        raise data_error(contents.path, f"no member '{absent[0]}' ({len(absent)} missing)", "use the set's own archive")
    wanted = {name: target for name, target in targets.items() if not target.exists()}
    require_space(root, sum(contents.sizes[name] for name in wanted))
    members = read_members(contents.path, wanted)
    for name, content in tqdm(members, contents.path.name, len(wanted), disable=None, unit="file"):
        with full_disk_named(wanted[name]):
            if public.convert and wanted[name].parent == root / MASKS:
                public.convert(content, wanted[name])
            else:
                with atomic_write(wanted[name]) as file:
                    file.write(content)


def _prove(public: PublicSet, root: Path, splits: dict[str, list[str]]) -> None:
    """Raise UserError (data) for wrong counts, pictures of val or test in train, damaged masks and masks of another size."""
    for split, expected in public.counts.items():
        require_count(split_path(root, split), len(set(splits[split])), expected)
    held_out = [*splits["val"], *splits.get("test", ())]
    for split in splits.keys() & {"train", "trainaug"}:
        _raise_with_remedy(overlap_faults(root, "val or test", held_out, split, splits[split]), "use the set's own archive")
    pictures = pictures_in(root)

    def check(sample_id: str) -> None:
        path = mask_path(root, sample_id)
        mask = open_mask(path, public.classes)
        height, width = _size_of(pictures[sample_id])
        _raise_with_remedy(size_faults((height, width), (mask.shape[0], mask.shape[1]), path), f"delete both, and {_AGAIN}")

    ids = sorted({sample_id for ids in splits.values() for sample_id in ids})
    with stopping_pool(ThreadPoolExecutor()) as pool:
        list(tqdm(pool.map(check, ids), "proof", len(ids), disable=None, unit="mask"))  # list() raises the threads' exceptions


def _size_of(picture: Path) -> tuple[int, int]:
    """(height, width) of a picture, from its header. Raises UserError (data) when that cannot be read."""
    try:
        return picture_size(picture)
    except UserError as error:
        raise data_error(picture, error.found, f"delete it, and {_AGAIN}") from None


def _raise_with_remedy(faults: Sequence[UserError], remedy: str) -> None:
    """Raise the first of `faults`, if any, with another remedy: the user does not own the lists and masks of a public set."""
    for fault in faults:
        raise data_error(fault.path, fault.found, remedy)
