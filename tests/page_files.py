"""The files that the readers of the pages have, made small: data sets, exports of labelling tools, runs, weights."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from geotiffs import write_geotiff
from helpers import CLASSES, ROOT, tiny_config_for, tiny_mask, write_pair, write_split
from label_exports import photo, write_array, write_json, zipped
from pages import PAGES, blocks
from PIL import Image
from torch import nn
from torchvision.models import vgg

from segnet.classes import CAMVID, VOC, ClassSet, class_set
from segnet.config.loading import config_to_yaml, override_config
from segnet.data.images import save_image
from segnet.data.layout import write_classes
from segnet.data.mask_files import save_mask
from segnet.prediction.video import write_video
from segnet.preparation.sample import generate_sample

OBSERVER = """
class Anything:
    id = run_id = "remote-1"
    def __call__(self, *arguments, **named):
        return self
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

def __getattr__(name):
    return getattr(Anything(), name)
"""  # in place of the packages mlflow and wandb
STREET = "sample_00004"
LEAF_COLORS = np.array([[0, 0, 0], [60, 170, 90], [230, 75, 60]], np.uint8)


def leaf_mask(seed: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """(H, W) ids of background, leaf and spot: blocks that differ from seed to seed."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return ((rows // (12 + seed) + columns // 16) % 3).astype(np.uint8)


def make_clone(folder: Path) -> None:
    """What a clone holds, with networks of few channels, and an environment in which `python` is that of the shell."""
    for name in ("scripts", "docs/screenshots.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    for path in (folder / "configs" / "model").glob("*.yaml"):
        path.write_text(re.sub(r"(?<=widths: )\[.*?\]|(?<=width: )\d+", fewer_channels, path.read_text()))
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").write_text('#!/bin/sh\nexec python "$@"\n')
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    for name in ("bin/activate", "installed", "installed-dev"):
        (folder / ".venv" / name).touch()


def fewer_channels(match: re.Match[str]) -> str:
    """The numbers of channels in a text, divided by 32."""
    return re.sub(r"\d+", lambda number: str(max(2, int(number[0]) // 32)), match[0])


def make_weights(folder: Path) -> None:
    """VGG16's weights for those networks, with and without batch normalisation, where torch keeps what it has downloaded."""
    layers = [int(fewer_channels(re.match(r"\d+", str(layer)))) if layer != "M" else "M" for layer in vgg.cfgs["D"]]
    folder.mkdir(parents=True)
    for name, batch_norm in (("vgg16-397923af.pth", False), ("vgg16_bn-6c64b313.pth", True)):
        features = nn.ModuleDict({"features": vgg.make_layers(layers, batch_norm=batch_norm)})
        torch.save(features.state_dict(), folder / name)


def make_sample(folder: Path) -> None:
    """The sample data set with 10 pictures, two of them in val, and one of them as street.jpg."""
    generate_sample(folder / "data" / "sample", count=10)
    shutil.copy(folder / "data" / "sample" / "JPEGImages" / f"{STREET}.jpg", folder / "street.jpg")


def make_config(folder: Path) -> None:
    """A configuration that is called CONFIG, of a data set that a tiny network learns."""
    root = folder / "data" / "tiny"
    for split, seeds in (("train", range(6)), ("val", range(6, 9))):
        for seed in seeds:
            write_pair(root, str(seed), tiny_mask(seed=seed), class_set(CLASSES))
        write_split(root, split, [str(seed) for seed in seeds])
    write_classes(root, class_set(CLASSES))
    wider = ["model.encoder=[{widths: [16]}, {widths: [16]}]", "model.decoder=[{widths: [16]}, {widths: [16]}]"]
    config = override_config(tiny_config_for(Path("data/tiny")), [*wider, "optim.name=adamw", "optim.lr=0.01"])
    (folder / "CONFIG").write_text(config_to_yaml(config))


def make_split_set(root: Path, classes: ClassSet, splits: dict[str, int]) -> None:
    """Pictures of noise, whose masks have some of the classes."""
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        names = [f"{split}_{number}" for number in range(count)]
        for name in names:
            mask = np.repeat(np.repeat(rng.integers(0, len(classes), (6, 8), np.uint8), 8, 0), 8, 1)
            (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
            (root / "SegmentationClass").mkdir(exist_ok=True)
            save_image(root / "JPEGImages" / f"{name}.jpg", rng.integers(0, 256, (48, 64, 3), np.uint8))
            save_mask(root / "SegmentationClass" / f"{name}.png", mask, classes)
        write_split(root, split, names)


def make_public_sets(folder: Path) -> None:
    """CamVid, and Pascal VOC with SBD's list."""
    make_split_set(folder / "data" / "camvid", CAMVID, {"train": 4, "val": 2, "test": 2})
    make_split_set(folder / "data" / "voc", VOC, {"train": 4, "val": 2})
    write_split(folder / "data" / "voc", "trainaug", [f"train_{number}" for number in range(4)])


def make_clean_pictures(folder: Path) -> None:
    """BSD400 and BSD68, and grey photos: waves of 48×56 pixels."""
    rows, columns = np.mgrid[:48, :56]
    for name, count in (("BSD400", 10), ("BSD68", 2), ("photos", 2)):
        for number in range(count):
            waves = 128 + 90 * np.sin((rows * np.cos(number) + columns * np.sin(number)) / 4)
            write_array(folder / name / f"{name}_{number}.png", waves.round())
    shutil.copy(folder / "photos" / "photos_0.png", folder / "photo.png")
    deep = (256 * np.asarray(Image.open(folder / "photo.png"), np.float64)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "scan16.png")
    (folder / "tiles").mkdir()
    Image.fromarray(deep).save(folder / "tiles" / "tile.tif")


def make_cvat_export(folder: Path, name: str) -> None:
    """A zip of "Segmentation mask 1.1"."""
    export = folder / Path(name).stem
    for number in range(5):
        photo(export / "JPEGImages" / f"leaf_{number}.jpg", (48, 64), seed=number)
        write_array(export / "SegmentationClass" / f"leaf_{number}.png", LEAF_COLORS[leaf_mask(number)])
    (export / "labelmap.txt").write_text("background:0,0,0::\nleaf:60,170,90::\nspot:230,75,60::\n")
    (export / "ImageSets" / "Segmentation").mkdir(parents=True)
    (export / "ImageSets" / "Segmentation" / "default.txt").write_text("".join(f"leaf_{number}\n" for number in range(5)))
    zipped(export)


def make_labelme_photos(folder: Path) -> None:
    """Photos with LabelMe's JSON beside them."""
    for number in range(3):
        photo(folder / "photos" / f"leaf_{number}.jpg", (48, 64), seed=number)
        shapes = [{"label": "leaf", "points": [[4, 4], [40, 9], [20, 40 - number]], "shape_type": "polygon"}]
        content = {"imagePath": f"leaf_{number}.jpg", "imageHeight": 48, "imageWidth": 64, "shapes": shapes, "version": "5.5.0"}
        write_json(folder / "photos" / f"leaf_{number}.json", content)


def make_label_studio_export(folder: Path) -> None:
    """Tasks about the same photos."""
    value = {"x": 10, "y": 20, "width": 50, "height": 40, "rotation": 0, "rectanglelabels": ["leaf"]}
    region = {"type": "rectanglelabels", "value": value, "original_width": 64, "original_height": 48, "to_name": "image"}
    tasks = [
        {"id": number, "data": {"image": f"/data/upload/1/leaf_{number}.jpg"}, "annotations": [{"id": 1, "result": [region]}]}
        for number in range(3)
    ]
    write_json(folder / "project-1.json", tasks)
    for path in (folder / "photos").glob("*.json"):
        path.unlink()


def make_roboflow_export(folder: Path) -> None:
    """A zip of "Semantic segmentation masks" with two lists."""
    for split, count in (("train", 3), ("valid", 1)):
        for number in range(count):
            name = f"{split}_{number}_jpg.rf.0a1b"
            photo(folder / "roboflow" / split / f"{name}.jpg", (48, 64), seed=number)
            write_array(folder / "roboflow" / split / f"{name}_mask.png", leaf_mask(number))
        (folder / "roboflow" / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, leaf\n2, spot\n")
    zipped(folder / "roboflow")


def make_leaves_by_hand(folder: Path) -> None:
    """The pictures and classes.yaml of docs/data.md without masks; masks in colours, and masks of 0 and 255, elsewhere."""
    classes, recipe = blocks(PAGES["docs/data.md"], "yaml")
    shutil.rmtree(folder / "data" / "leaves", ignore_errors=True)
    for number in range(5):
        photo(folder / "data" / "leaves" / "JPEGImages" / f"{number}.jpg", (48, 64), seed=number)
        mask = leaf_mask(number)
        write_array(folder / "colored" / f"{number}.png", LEAF_COLORS[mask])
        write_array(folder / "binary" / f"{number}.png", np.where(mask, 255, 0))
    (folder / "data" / "leaves" / "classes.yaml").write_text(classes)
    (folder / "configs" / "leaves.yaml").write_text(recipe)


def make_pedestrians(path: Path, count: int = 10) -> None:
    """An archive with the files of Penn-Fudan: streets of noise with one to three dark people, and masks that number them."""
    rng = np.random.default_rng(0)
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PennFudanPed/readme.txt", "1. Directory structure:\n")
        for number in range(1, count + 1):
            picture, mask = rng.integers(120, 160, (48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)
            for person in range(rng.integers(1, 4)):
                mask[8:44, 20 * person + 4 : 20 * person + 12] = person + 1
            picture[mask > 0] //= 3
            name = f"FudanPed{number:05d}"
            for file, pixels in ((f"PNGImages/{name}.png", picture), (f"PedMasks/{name}_mask.png", mask)):
                content = io.BytesIO()
                Image.fromarray(pixels).save(content, "PNG")
                archive.writestr(f"PennFudanPed/{file}", content.getvalue())
            archive.writestr(f"PennFudanPed/Annotation/{name}.txt", "# Compatible with PASCAL Annotation Version 1.00\n")


def make_tiles(folder: Path) -> None:
    """A GeoTIFF of 8-bit RGB."""
    (folder / "tiles").mkdir()
    pixels = np.asarray(Image.open(folder / "street.jpg"))
    write_geotiff(folder / "tiles" / "tile.tif", pixels)


def make_voc_pictures(folder: Path) -> None:
    """The test pictures of VOC's devkit."""
    root = folder / "VOCdevkit" / "VOC2012"
    for number in range(2):
        photo(root / "JPEGImages" / f"2008_00000{number}.jpg", (48, 64), seed=number)
    write_split(root, "test", ["2008_000000", "2008_000001"])


def make_leaf_masks(folder: Path) -> None:
    """The masks of `make_leaves_by_hand`, as ids."""
    root = folder / "data" / "leaves"
    (root / "SegmentationClass").mkdir()
    for number in range(5):
        mask = root / "SegmentationClass" / f"{number}.png"
        save_mask(mask, leaf_mask(number), class_set(("background", "leaf", "spot"), tuple(map(tuple, LEAF_COLORS.tolist()))))


def make_folds(root: Path) -> None:
    """The lists of five folds, without `segnet split`, whose own lists may be others."""
    names = [path.stem for path in sorted((root / "JPEGImages").iterdir())]
    for fold in range(5):
        write_split(root, f"val_{fold}", names[fold::5])
        write_split(root, f"train_{fold}", [name for name in names if name not in names[fold::5]])


def make_video(path: Path) -> None:
    """A video of six frames of noise."""
    rng = np.random.default_rng(0)
    with write_video(path, Fraction(25)) as writer:
        for _ in range(6):
            writer.write(rng.integers(0, 256, (24, 32, 3), np.uint8))


def make_onnxruntime_web(folder: Path) -> None:
    """What `npm pack onnxruntime-web` fetches, without its content."""
    with tarfile.open(folder / "onnxruntime-web-1.30.0.tgz", "w:gz") as archive:
        for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
            archive.addfile(tarfile.TarInfo(f"package/dist/{name}"))
