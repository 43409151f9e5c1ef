"""Names that arguments offer, without the tables that give them their meaning: those import torch. Tests compare both."""

from __future__ import annotations

OUTPUTS = ("mask", "overlay", "probabilities", "uncertainty", "json", "polygons", "areas", "ranking", "geotiff")
RESTORED_OUTPUTS = ("restored", "tiff", "array")
POLYGON_FORMATS = ("coco", "labelme", "cvat", "yolo")
LABEL_FORMATS = (
    "cvat",
    "cvat-images",
    "voc",
    "coco",
    "labelme",
    "roboflow",
    "ultralytics",
    "label-studio",
    "supervisely",
    "cityscapes",
    "ade20k",
    "pairs",
)
OVERLAPS = ("last", "smallest", "ignore")
UNLABELLED = ("background", "ignore", "skip")
GPU_PARTS = ("tests", "profile", "deterministic", "losses", "training", "inference", "loader", "large-picture")
PUBLIC_SETS = {
    "voc": "Pascal VOC 2012: 1,464 train, 1,449 val (2 GB download)",
    "sbd": "add SBD to a prepared VOC: split trainaug with 10,582 pictures (1.4 GB download, needs scipy)",
    "camvid": "CamVid road scenes in the SegNet paper's split: 367 train, 101 val, 233 test",
}
