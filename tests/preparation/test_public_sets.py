"""VOC, SBD and CamVid come out of their archives as they are, in VOC's layout."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
from helpers import folder_bytes, refused
from PIL import Image
from public_archives import CAMVID_SPLITS, COUNTS, SBD_TRAIN, SBD_VAL, TRAIN, VAL, jpeg, prepare_all, split_names, voc_files

from segnet.classes import CAMVID, VOC
from segnet.config.data_folder import load_data_folder
from segnet.data.dataset import SegmentationDataset
from segnet.preparation.unpacking import prepare
from segnet.system.errors import ExitCode


def test_voc_is_the_archives_bytes_and_nothing_else(tmp_path, archives):
    prepare_all("voc", tmp_path / "voc", archives)
    files, made = voc_files(), folder_bytes(tmp_path / "voc")
    assert {made.pop("voc.json"), made.pop(".lock")} == {json.dumps(COUNTS["voc"]).encode() + b"\n", b""}
    made.pop("classes.yaml")
    assert load_data_folder(tmp_path / "voc").class_set == VOC
    expected = [f"JPEGImages/{i}.jpg" for i in TRAIN + VAL] + [f"SegmentationClass/{i}.png" for i in TRAIN + VAL]
    expected += [f"ImageSets/Segmentation/{split}.txt" for split in COUNTS["voc"]]
    assert made == {name: files[f"VOCdevkit/VOC2012/{name}"] for name in expected}


def test_sbd_adds_what_voc_has_no_mask_for_and_no_picture_of_val(tmp_path, archives):
    prepare_all("sbd", tmp_path, archives)
    assert split_names(tmp_path, "trainaug") == sorted({*SBD_TRAIN, *SBD_VAL, *TRAIN} - {*VAL})
    assert (split_names(tmp_path, "train"), split_names(tmp_path, "val")) == (TRAIN, VAL)
    for name in TRAIN + VAL:
        path = f"SegmentationClass/{name}.png"
        assert (tmp_path / path).read_bytes() == voc_files()[f"VOCdevkit/VOC2012/{path}"]
    for name in {*SBD_TRAIN, *SBD_VAL} - {*TRAIN, *VAL}:
        mask = Image.open(tmp_path / "SegmentationClass" / f"{name}.png")
        assert (mask.mode, mask.getpalette()) == ("P", VOC.palette)
        assert np.array_equal(np.asarray(mask), np.resize([0, 7], (12, 16)))
        assert (tmp_path / "JPEGImages" / f"{name}.jpg").read_bytes() == jpeg()


def test_camvid_keeps_its_pictures_and_void_becomes_255(tmp_path, archives):
    prepare_all("camvid", tmp_path, archives)
    for split, ids in CAMVID_SPLITS.items():
        dataset = SegmentationDataset(tmp_path, split, CAMVID)
        assert dataset.ids == ids
        for index, name in enumerate(ids):
            assert (tmp_path / "JPEGImages" / f"{name}.png").read_bytes() == jpeg(suffix="PNG")
            assert np.array_equal(dataset.read(index).truth, np.resize([0, 10, 255, 3], (12, 16)))


def test_sbd_without_voc_or_scipy_says_what_to_do(tmp_path, archives, monkeypatch):
    with refused(ExitCode.DATA, str(tmp_path / "root"), f"prepare_data.py voc --root {tmp_path / 'root'}"):
        prepare("sbd", tmp_path / "root", archives["sbd"])
    assert not (tmp_path / "root").exists()
    prepare("voc", tmp_path / "root", archives["voc"])
    mask = tmp_path / f"root/SegmentationClass/{VAL[0]}.png"
    mask.rename(tmp_path / "mask.png")
    with refused(ExitCode.DATA, "Pascal VOC, which is not complete here"):
        prepare("sbd", tmp_path / "root", archives["sbd"])
    (tmp_path / "mask.png").rename(mask)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with refused(ExitCode.ENVIRONMENT, "scipy", "pip install scipy"):
        prepare("sbd", tmp_path / "root", archives["sbd"])
