"""A data folder without masks, of folders of pictures: copies, and the lists of its splits."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from segnet.config.sections import PLAIN_PICTURES
from segnet.data.images import picture_size
from segnet.data.listing import list_pictures
from segnet.preparation.plan import Prepared
from segnet.system.errors import UserError, config_error, data_error, raise_first
from segnet.system.files import atomic_write, make_folder, write_text

SHOWN = 10  # faults that are named


def copy_pictures(train: Sequence[Path], test: Sequence[Path], out: Path, *, val: float, seed: int = 0) -> Prepared:
    """Copy the pictures below the folders into `out`/images, and write train.txt, val.txt and test.txt there.

    A share `val` of the pictures of `train` is held out, chosen by a hash of seed and id. The id of a picture is the name of its
    folder and its path in it, without the suffix. The same call again copies what is missing.
    Raises UserError: (data) for a folder without pictures, for pictures that cannot be read and for two of one id, (config)
    where `out` has other lists.
    """
    sources = dict[str, Path]()
    of_train = _add_pictures(train, sources)
    of_test = _add_pictures(test, sources)
    held_out = min(len(of_train) - 1, max(1, round(val * len(of_train))))
    in_hash_order = sorted(of_train, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest())
    lists = {"train": sorted(in_hash_order[held_out:]), "val": sorted(in_hash_order[:held_out]), "test": of_test}
    lists = {split: names for split, names in lists.items() if names}
    texts = {out / f"{split}.txt": "".join(f"{name}\n" for name in names) for split, names in lists.items()}
    for path, text in texts.items():
        if os.path.lexists(path) and path.read_text(encoding="utf-8") != text:
            raise config_error(path, "is there already, with other pictures", "choose another --out, or remove it")
    missing = {out / PLAIN_PICTURES / f"{name}{path.suffix}": path for name, path in sources.items()}
    missing = {target: path for target, path in missing.items() if not _is_copied(path, target)}
    for target, path in missing.items():
        make_folder(target.parent)
        with path.open("rb") as source, atomic_write(target) as file:
            shutil.copyfileobj(source, file)
    changed = bool(missing) or any(not path.exists() for path in texts)
    for path, text in texts.items():  # the lists come last: a dataset with lists is complete
        write_text(path, text)
    return Prepared({split: len(names) for split, names in lists.items()}, changed)


def _add_pictures(folders: Sequence[Path], sources: dict[str, Path]) -> list[str]:
    """The ids of the pictures below `folders`, which are added to `sources` by their ids."""
    added, faults = list[str](), list[UserError]()
    for folder in folders:
        if not folder.is_dir():
            raise data_error(folder, "not a folder" if folder.exists() else "no such folder", "name a folder of pictures")
        pictures = list_pictures(folder).pictures
        if not pictures:
            raise data_error(folder, "no picture in it", "name a folder of pictures")
        for path in pictures:
            name = (Path(folder.resolve().name) / path.relative_to(folder)).with_suffix("").as_posix()
            if name in sources:
                faults.append(data_error(path, f"has the id of {sources[name]} too", "rename one of them, or its folder"))
            try:
                picture_size(path)
            except UserError as error:
                faults.append(error)
            sources[name] = path
            added.append(name)
    raise_first(faults, limit=SHOWN)
    return sorted(added)


def _is_copied(path: Path, target: Path) -> bool:
    return target.is_file() and target.read_bytes() == path.read_bytes()
