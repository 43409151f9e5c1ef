"""Every fault of a data set is named at once by `check`, and by training and evaluation where they meet it."""

from __future__ import annotations

import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import COLORED, all_commands, every_mask, list_of, mask_of, move_out, picture_of, run_in_process, save_picture
from helpers import CLASSES, ROOT, folder_bytes, tiny_mask, write_pair, write_split
from PIL import Image

from segnet.classes import CAMVID, VOC, ClassSet, class_set
from segnet.config.sections import DataConfig
from segnet.data import checking
from segnet.data.checking import check_dataset, list_splits, lists_that_lack
from segnet.data.dataset import open_split, require_useful_labels
from segnet.data.images import save_image
from segnet.data.layout import mask_path
from segnet.data.mask_files import save_mask
from segnet.system.errors import ExitCode, UserError

REAL_DATA = ROOT.parent / "shared" / "data"
Inject = Callable[[Path, str], object]  # (data folder, split)


def cut(path: Path, share: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * share // 100])


def as_png(root: Path, split: str) -> Path:
    """The picture as PNG in place of its JPEG."""
    path = picture_of(root, split)
    Image.open(path).save(path.with_suffix(".png"))
    path.unlink()
    return path.with_suffix(".png")


def put_in_place(make: Callable[[Path], object], path: Path) -> None:
    path.unlink()
    make(path)


def add_line(path: Path, line: bytes) -> None:
    path.write_bytes(path.read_bytes() + line + b"\n")


def change_ids(root: Path, split: str, value: int) -> None:
    mask = tiny_mask(seed=1)
    mask[3, :5] = value
    save_mask(mask_of(root, split), mask, class_set(CLASSES))


def share_a_picture(root: Path, split: str) -> None:
    """Of val; the fault is said of val's list, whichever command finds it."""
    if split == "train":
        add_line(list_of(root, "train"), b"val_2")


SHARES = (0, 1, 10, 50, 90, 99)
CONVERT = "python scripts/prepare_data.py convert"
FLAT = Image.fromarray(np.zeros((32, 32), np.uint8))
FAULTS: dict[str, tuple[Inject, list[str]]] = {  # what is done, and what the message says; * is the split
    **{f"JPEG cut at {s} %": (lambda r, n, s=s: cut(picture_of(r, n), s), ["*_1.jpg: not a readable picture"]) for s in SHARES},
    **{f"PNG cut at {s} %": (lambda r, n, s=s: cut(as_png(r, n), s), ["*_1.png: not a readable picture"]) for s in SHARES},
    **{f"mask cut at {s} %": (lambda r, n, s=s: cut(mask_of(r, n), s), ["Class/*_1.png: not a readable"]) for s in SHARES},
    "HTML named jpg": (lambda r, n: picture_of(r, n).write_text("<!doctype html>"), ["*_1.jpg", "unknown format"]),
    "text named png": (lambda r, n: mask_of(r, n).write_text("0 0 1"), ["*_1.png", "unknown format"]),
    "mask of another size": (
        lambda r, n: save_picture(FLAT.resize((16, 32)), mask_of(r, n)),
        ["*_1.png: mask 16×32, picture 32×32"],
    ),
    "RGB mask": (lambda r, n: save_picture(COLORED, mask_of(r, n)), ["*_1.png: a mask in mode RGB", CONVERT]),
    "RGBA mask": (lambda r, n: save_picture(COLORED.convert("RGBA"), mask_of(r, n)), ["*_1.png: a mask in mode RGBA", CONVERT]),
    "grey mask with alpha": (
        lambda r, n: save_picture(FLAT.convert("LA"), mask_of(r, n)),
        ["*_1.png: a mask in mode LA", CONVERT],
    ),
    "16-bit mask": (lambda r, n: save_picture(FLAT.convert("I;16"), mask_of(r, n)), ["*_1.png: a mask in mode I;16", CONVERT]),
    "JPEG mask": (lambda r, n: save_picture(FLAT, mask_of(r, n), "JPEG"), ["*_1.png: a JPEG, and JPEG changes the ids", CONVERT]),
    "mask.jpg": (lambda r, n: mask_of(r, n).rename(mask_of(r, n).with_suffix(".jpg")), ["only *_1.jpg is there", "as PNG"]),
    "id out of range": (lambda r, n: change_ids(r, n, 7), ["*_1.png: label 7; expected 0..2 or 255", "--map 7=ID"]),
    "0/255 masks": (lambda r, n: every_mask(r, n, [0, 255]), ["*.txt: its masks hold only 0 and 255", CONVERT, "--map 255=1"]),
    "wholly ignored split": (lambda r, n: every_mask(r, n, [255]), ["*.txt: its masks are 255 everywhere"]),
    "picture missing": (lambda r, n: picture_of(r, n).unlink(), ["*_1.jpg: picture is missing"]),
    "mask missing": (lambda r, n: mask_of(r, n).unlink(), ["*_1.png: mask is missing"]),
    "picture's case": (
        lambda r, n: picture_of(r, n).rename(picture_of(r, n).with_stem(f"{n}_1".upper())),
        ["which differs in case"],
    ),
    "mask's case": (
        lambda r, n: mask_of(r, n).rename(mask_of(r, n).with_suffix(".PNG")),
        ["only *_1.PNG is there", "differs in case"],
    ),
    "suffix in the list": (
        lambda r, n: write_split(r, n, [f"{n}_1.jpg"]),
        ["1 of 1 lines are no plain ids (a suffix)", "one id a line, without folder and suffix, here '*_1'"],
    ),
    "two pictures of an id": (
        lambda r, n: shutil.copy(picture_of(r, n), picture_of(r, n).with_suffix(".png")),
        ["the id of *_1.jpg"],
    ),
    "no list": (lambda r, n: list_of(r, n).unlink(), ["*.txt: no such file"]),
    "empty list": (lambda r, n: list_of(r, n).write_bytes(b""), ["*.txt: no ids in it"]),
    "blank list": (lambda r, n: list_of(r, n).write_bytes(b"\xef\xbb\xbf\r\n \r\n"), ["*.txt: no ids in it"]),
    "list in UTF-16": (lambda r, n: list_of(r, n).write_bytes(f"{n}_1\n".encode("utf-16")), ["*.txt: byte 0 is not UTF-8"]),
    "repeated id": (lambda r, n: add_line(list_of(r, n), f"{n}_1".encode()), ["'*_1' stands in line 2 already"]),
    "id not written plainly": (
        lambda r, n: add_line(list_of(r, n), f"./{n}_1".encode()),
        ["'./*_1' is not written plainly", "– write '"],
    ),
    "train and val overlap": (share_a_picture, ["val.txt: 1 pictures are in train as well: val_2"]),
    "path traversal": (lambda r, n: add_line(list_of(r, n), b"../../secret"), ["*.txt: line ", "leaves the data folder"]),
    "absolute path": (lambda r, n: add_line(list_of(r, n), b"/etc/passwd"), ["'/etc/passwd' leaves the data folder"]),
    "picture linked from outside": (lambda r, n: move_out(picture_of(r, n), r), ["*_1.jpg: is a link out of the data folder"]),
    "mask linked from outside": (lambda r, n: move_out(mask_of(r, n), r), ["*_1.png: is a link out of the data folder"]),
    "list linked from outside": (lambda r, n: move_out(list_of(r, n), r), ["*.txt: is a link out of the data folder"]),
    "link to a device": (
        lambda r, n: put_in_place(lambda p: p.symlink_to("/dev/zero"), picture_of(r, n)),
        ["out of the data folder, to /dev/zero"],
    ),
    "link to nothing": (
        lambda r, n: put_in_place(lambda p: p.symlink_to("gone"), mask_of(r, n)),
        ["*_1.png: is a link to nothing"],
    ),
    "pipe as picture": (lambda r, n: put_in_place(os.mkfifo, picture_of(r, n)), ["*_1.jpg: not a file"]),
    "pipe as mask": (lambda r, n: put_in_place(os.mkfifo, mask_of(r, n)), ["*_1.png: not a file"]),
    "pipe as list": (lambda r, n: put_in_place(os.mkfifo, list_of(r, n)), ["*.txt: not a file"]),
    "folder as picture": (lambda r, n: put_in_place(os.mkdir, picture_of(r, n)), ["*_1.jpg: not a file but a folder"]),
    "folder as mask": (lambda r, n: put_in_place(os.mkdir, mask_of(r, n)), ["*_1.png: not a file but a folder"]),
    "no mask folder": (
        lambda r, n: (r / "SegmentationClass").exists() and (r / "SegmentationClass").rename(r / "gone"),
        ["no such folder"],
    ),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_check_and_by_training_and_evaluation(
    fault: str, tiny_data: Path, tiny_config_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    inject, parts = FAULTS[fault]
    for split, command in (("train", ["train", tiny_config_file, "--run", tmp_path / "new"]), ("val", ["evaluate", tiny_run])):
        inject(tiny_data, split)
        before = folder_bytes(tiny_data)
        for said in (run_in_process("prepare_data", "check", tiny_config_file), run_in_process(*command)):
            assert [part for part in parts if part.replace("*", split) not in said] == [], said
        assert folder_bytes(tiny_data) == before


def test_all_faults_come_at_once(tiny_data: Path, tiny_classes: ClassSet) -> None:
    picture_of(tiny_data, "train").write_bytes(b"")
    mask_of(tiny_data, "train").write_bytes(b"")
    mask_path(tiny_data, "train_2").unlink()
    cut(tiny_data / "JPEGImages" / "train_2.jpg", 50)
    save_picture(COLORED, mask_path(tiny_data, "train_3"))
    add_line(list_of(tiny_data, "train"), b"../x\nval_0\nval_0")
    add_line(list_of(tiny_data, "val"), b"gone")
    report = check_dataset(tiny_data, ["train", "val", "nowhere"], tiny_classes)
    found = sorted((Path(fault.path).name, fault.found.split(";")[0].split("(")[0].strip()) for fault in report.faults)
    assert found == sorted(
        [
            ("train_1.jpg", "not a readable picture"),
            ("train_1.png", "not a readable picture"),
            ("train_2.png", "mask is missing"),
            ("train_2.jpg", "not a readable picture"),
            ("train_3.png", "a mask in mode RGB"),
            ("train.txt", "line 7: '../x' leaves the data folder"),
            ("train.txt", "line 9: 'val_0' stands in line 8 already"),
            ("gone.jpg", "picture is missing"),
            ("gone.png", "mask is missing"),
            ("val.txt", "1 pictures are in train as well: val_0"),
            ("nowhere.txt", "no such file"),
        ]
    )
    assert report.splits[0].class_pictures[0] == 4  # of those that can be read


def interlaced(mask: np.ndarray) -> bytes:
    """A grey PNG in Adam7's seven passes, which Pillow reads and does not write."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(b"\0" + row.tobytes() for top, left, down, right in passes for row in mask[top::down, left::right])
    header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], 8, 0, 0, 0, 1)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def link_inside(root: Path, split: str) -> None:
    path = picture_of(root, split)
    path.rename(root / f"{split}_original.jpg")
    path.symlink_to(f"../{split}_original.jpg")


HARMLESS: dict[str, Inject] = {
    "nothing": lambda r, n: None,
    "one-bit mask": lambda r, n: save_picture(Image.fromarray(tiny_mask(seed=0) == 1), mask_of(r, n)),
    "interlaced mask": lambda r, n: mask_of(r, n).write_bytes(interlaced(tiny_mask(seed=1))),
    "CRLF, BOM and blank lines": lambda r, n: list_of(r, n).write_bytes(b"\xef\xbb\xbf\r\n" + f"{n}_0\r\n\r\n{n}_1".encode()),
    "link inside the folder": link_inside,
    "a background with a border": lambda r, n: save_mask(mask_of(r, n), np.where(np.eye(32), 255, 0), class_set(CLASSES)),
}


@pytest.mark.parametrize("change", HARMLESS)
def test_what_is_no_fault_is_read_by_all(
    change: str, tiny_data: Path, tiny_config_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        HARMLESS[change](tiny_data, split)
    assert run_in_process("prepare_data", "check", tiny_config_file) == ""
    assert run_in_process("train", tiny_config_file, "--run", tmp_path / "new", "train.epochs=1") == ""
    assert run_in_process("evaluate", tiny_run) == ""


def test_what_may_be_meant_is_a_warning(tiny_data: Path, tiny_classes: ClassSet) -> None:
    save_mask(mask_of(tiny_data, "val"), np.full((32, 32), 255), tiny_classes)
    for name in ("train_0", "train_1", "train_2", "train_3"):
        save_mask(mask_path(tiny_data, name), np.where(np.eye(32), 255, 0), tiny_classes)
    shutil.copy(picture_of(tiny_data, "train"), tiny_data / "JPEGImages" / "val_0.jpg")
    report = check_dataset(tiny_data, ["train", "val"], class_set((*CLASSES, "cone")))
    assert report.faults == []
    assert [(Path(warning.path).name, warning.found) for warning in report.warnings] == [
        ("train.txt", "4 of 6 masks hold only 0 and 255, which is not scored"),
        ("train.txt", "no pixel of cone"),
        ("val_1.png", "is 255 everywhere, which is not scored"),
        ("val.txt", "no pixel of cone"),
        ("val.txt", "'val_0' is the same picture as 'train_1' in train"),
    ]


def test_a_table_beside_the_data_that_says_otherwise_is_told_by_all(
    tiny_data: Path, tiny_config_file: Path, tiny_run: Path, tmp_path: Path
) -> None:
    (tiny_data / "classes.yaml").write_text("names: [ground, disc, box]\n")
    for said in all_commands(tiny_config_file, tiny_run, tmp_path / "new").values():
        assert "classes.yaml: class 1 is 'disc', not 'box' as in the configuration" in said
    shutil.copytree(tiny_data, tmp_path / "b")
    with pytest.raises(AssertionError):  # exit code 2
        run_in_process("evaluate", tiny_run, f"data.root={tmp_path / 'b'}")
    (tmp_path / "b" / "classes.yaml").write_text("names: [ground, box, disc]\nignore_index: 9\n")
    for path in (tmp_path / "b" / "SegmentationClass").iterdir():
        mask = np.array(Image.open(path))
        save_picture(Image.fromarray(np.where(mask == 255, 9, mask)), path)
    assert run_in_process("evaluate", tiny_run, f"data.root={tmp_path / 'b'}", "--out", tmp_path / "scores") == ""
    shutil.rmtree(tiny_run / "evaluation")
    (tiny_data / "classes.yaml").unlink()
    assert run_in_process("evaluate", tiny_run) == ""
    before = (tiny_run / "evaluation" / "val" / "confusion.csv").read_bytes()
    assert (tmp_path / "scores" / "confusion.csv").read_bytes() == before


def test_a_list_that_unites_others_shares_their_pictures(tiny_data: Path, tiny_classes: ClassSet) -> None:
    write_split(tiny_data, "trainval", ["train_0", "val_0"])
    report = check_dataset(tiny_data, list_splits(tiny_data), tiny_classes)
    assert (report.faults, report.overlaps) == ([], {("train", "trainval"): 1, ("train", "val"): 0, ("trainval", "val"): 1})
    report = check_dataset(tiny_data, ["trainval", "val"], tiny_classes, disjoint=["trainval", "val"])
    assert [fault.found for fault in report.faults] == ["1 pictures are in trainval as well: val_0"]


def test_a_file_that_vanishes_during_the_check_is_a_fault(
    tiny_data: Path, tiny_classes: ClassSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checking.find_pictures(tiny_data, ["train_0", "train_1", "train_2"])
    monkeypatch.setattr(checking, "find_pictures", lambda root, ids: found)
    write_split(tiny_data, "train", ["train_0", "train_1", "train_2"])
    picture_of(tiny_data, "train").unlink()
    mask_path(tiny_data, "train_2").unlink()
    report = check_dataset(tiny_data, ["train"], tiny_classes)
    assert [(Path(fault.path).name, fault.found) for fault in report.faults] == [
        ("train_1.jpg", "no such file"),
        ("train_2.png", "no such file"),
    ]


@pytest.mark.parametrize("order", [[1, 0, 2], [2, 1, 0], [0, 1, 2]])
def test_palettes_in_another_order_are_a_warning_and_the_ids_count(
    order: list[int], tiny_data: Path, tiny_classes: ClassSet
) -> None:
    clean = check_dataset(tiny_data, ["train", "val"], tiny_classes)
    for name in ("train_1", "train_2"):
        with Image.open(mask_path(tiny_data, name)) as picture:
            picture.putpalette([channel for k in order for channel in tiny_classes.colors[k]] + [0] * 759)
            picture.save(mask_path(tiny_data, name))
    report = check_dataset(tiny_data, ["train", "val"], tiny_classes)
    assert (report.faults, report.splits) == ([], clean.splits)
    new = [str(warning) for warning in report.warnings if str(warning) not in map(str, clean.warnings)]
    assert len(new) == (order != [0, 1, 2])
    for text in new:
        assert "train.txt: 2 of 6 masks show class colours in another order than their ids, such as train_1.png" in text
        assert f"{CONVERT} {tiny_data}/SegmentationClass --out NEW --classes CONFIG" in text


def test_palettes_that_say_nothing_are_no_warning(tiny_data: Path, tiny_classes: ClassSet) -> None:
    ramp = [i for i in range(256) for _ in range(3)]
    for name, palette in {"train_0": [0] * 768, "train_1": ramp, "train_2": [9, 8, 7, 6, 5, 4, 3, 2, 1]}.items():
        with Image.open(mask_path(tiny_data, name)) as picture:
            picture.putpalette(palette)
            picture.save(mask_path(tiny_data, name))
    Image.fromarray(tiny_mask(seed=3)).save(mask_path(tiny_data, "train_3"))
    assert check_dataset(tiny_data, ["train"], tiny_classes).warnings == []


def test_counts_equal_a_count_by_hand(tiny_data: Path, tiny_classes: ClassSet) -> None:
    write_pair(tiny_data, "wide", tiny_mask(seed=5, size=(20, 40)), tiny_classes)
    write_split(tiny_data, "val", ["val_0", "val_1", "wide"])
    masks = [tiny_mask(seed=10), tiny_mask(seed=11), tiny_mask(seed=5, size=(20, 40))]
    (split,) = check_dataset(tiny_data, ["val"], tiny_classes).splits
    assert split.class_pixels == tuple(sum(int((mask == k).sum()) for mask in masks) for k in range(3))
    assert split.class_pictures == tuple(sum(bool((mask == k).any()) for mask in masks) for k in range(3))
    assert split.ignored == sum(int((mask == 255).sum()) for mask in masks)
    assert (split.heights, split.widths) == ((20, 32, 32), (32, 32, 40))


def test_a_train_list_without_a_val_list_is_a_fault(tiny_data: Path) -> None:
    (tiny_data / "classes.yaml").write_text(f"names: [{', '.join(CLASSES)}]\n")
    list_of(tiny_data, "val").rename(list_of(tiny_data, "val_1"))
    assert run_in_process("prepare_data", "check", tiny_data) == ""
    list_of(tiny_data, "val_1").unlink()
    said = run_in_process("prepare_data", "check", tiny_data)
    assert "val.txt: no such file – the splits there are train; this one is written by: python scripts/prepare_data.py" in said
    assert lists_that_lack(["train_0", "val_0", "train_1", "test"]) == ["val_1"]
    assert lists_that_lack(["test"]) == lists_that_lack(["train", "valid"]) == lists_that_lack(["trainval"]) == []


def test_plain_names_of_folders_do(tiny_data: Path, tiny_classes: ClassSet) -> None:
    expected = check_dataset(tiny_data, ["train", "val"], tiny_classes)
    (tiny_data / "JPEGImages").rename(tiny_data / "images")
    (tiny_data / "SegmentationClass").rename(tiny_data / "masks")
    for name in ("train", "val"):
        list_of(tiny_data, name).rename(tiny_data / f"{name}.txt")
    shutil.rmtree(tiny_data / "ImageSets")
    (tiny_data / "readme.txt").write_text("What this is.\n")
    assert list_splits(tiny_data) == ["train", "val"]
    assert check_dataset(tiny_data, ["train", "val"], tiny_classes) == expected
    assert read_all(tiny_data) == []
    (tiny_data / "classes.yaml").write_text(f"names: [{', '.join(CLASSES)}]\n")
    mask_path(tiny_data, "train_1").unlink()
    assert f"{tiny_data}/masks/train_1.png: mask is missing" in run_in_process("prepare_data", "check", tiny_data)


TEXTS = {  # beside the lists, none of which is one
    "classes.txt": b"ground\nbox\ndisc\n",
    "readme.txt": b"These lists name pictures, one a line.\n\nSee https://example.org/a/b.jpg, or mail.\n",
    "notes.txt": "größe\n".encode("latin-1"),
    "empty.txt": b"",
}


def test_texts_beside_the_lists_are_no_lists(tiny_data: Path) -> None:
    (tiny_data / "classes.yaml").write_text(f"names: [{', '.join(CLASSES)}]\n")
    for name, content in {**TEXTS, "._train.txt": b"\0\5\x16\7\xff", ".#val.txt": b"x\n"}.items():
        (list_of(tiny_data, "train").parent / name).write_bytes(content)
    assert list_splits(tiny_data) == ["train", "val"]
    said = run_in_process("prepare_data", "check", tiny_data)
    assert [line.partition(": names no picture")[0].rpartition("/")[2] for line in said.splitlines()] == sorted(TEXTS)
    assert said.count("warning: ") == len(said.splitlines())
    assert run_in_process("prepare_data", "check", tiny_data, "--split", "train") == ""
    assert "no ids in it" in run_in_process("prepare_data", "check", tiny_data, "--split", "empty")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train", b"gone\n"),  # all of its pictures are missing
        ("fold_1", b""),
        ("mine", "train_0\n".encode("utf-16")),
        ("mine", b"train_0,1\ntrain_1,1\n"),
        ("mine", b"\xff\ntrain_0\n"),
    ],
)
def test_a_spoilt_list_stays_a_list(name: str, content: bytes, tiny_data: Path, tiny_classes: ClassSet) -> None:
    list_of(tiny_data, name).write_bytes(content)
    assert name in list_splits(tiny_data)
    assert check_dataset(tiny_data, [name], tiny_classes).faults


def test_lists_without_a_picture_are_lists_where_no_other_has_one(tiny_data: Path) -> None:
    shutil.rmtree(tiny_data / "JPEGImages")
    list_of(tiny_data, "mine").write_text("gone\n")
    assert list_splits(tiny_data) == ["mine", "train", "val"]


def test_a_folder_without_lists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ImageSets/Segmentation/ in it"):
        list_splits(tmp_path)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    with pytest.raises(UserError, match="no lists of splits"):
        list_splits(tmp_path)


@pytest.mark.parametrize(
    ("name", "classes", "counts"),
    [("camvid", CAMVID, {"train": 367, "val": 101, "test": 233}), ("voc", VOC, {"train": 882, "val": 340})],
)
def test_real_data_passes(name: str, classes: ClassSet, counts: dict[str, int]) -> None:
    if not (REAL_DATA / name).exists():
        pytest.skip(f"{name} is not on this machine")
    report = check_dataset(REAL_DATA / name, list(counts), classes)
    assert report.faults == []
    found = [warning.found.partition(", such as")[0] for warning in report.warnings]
    border = "1 of 233 pictures look like pictures of train (0 near twins, 1 neighbouring frames)"  # a second apart
    assert found == ([border] if name == "camvid" else [])
    assert {split.name: len(split.ids) for split in report.splits} == counts
    assert set(report.overlaps.values()) == {0}
    assert all(sum(split.class_pictures) > len(split.ids) for split in report.splits)


def read_all(root: Path) -> list[str]:
    """The files at which opening and reading both splits stops."""
    data, stopped = DataConfig(root=str(root), classes=CLASSES), []
    for split in ("train", "val"):
        try:
            dataset = open_split(data, split)
            require_useful_labels(dataset, data)
            for index in range(len(dataset)):
                dataset.read(index)
        except UserError as error:
            stopped.append(error.path)
    return stopped


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@pytest.mark.parametrize("seed", range(6))
def test_mutated_files_are_faults_exactly_where_reading_stops(seed: int, tmp_path: Path, tiny_classes: ClassSet) -> None:
    """50 data sets for each seed: check finds nothing if and only if both splits can be read; it names where reading stops."""
    for name in ("train_0", "train_1", "val_0"):
        write_pair(tmp_path, name, tiny_mask(seed=seed, size=(20, 20)), tiny_classes)
    write_split(tmp_path, "train", ["train_0", "train_1"])
    write_split(tmp_path, "val", ["val_0"])
    files, rng = sorted(path for path in tmp_path.rglob("*") if path.is_file()), random.Random(seed)
    outcomes = set()
    for _ in range(50):
        path = rng.choice(files)
        whole = path.read_bytes()
        content = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            content[rng.randrange(len(content))] = rng.choice([0, 10, 46, 47, 255, rng.randrange(256)])
        path.write_bytes(content[: rng.choice([len(content), rng.randrange(len(content) + 1)])])
        faults = check_dataset(tmp_path, ["train", "val"], tiny_classes).faults
        stopped = read_all(tmp_path)
        assert bool(faults) == bool(stopped), (path, faults, stopped)
        assert {fault.code for fault in faults} <= {ExitCode.DATA}
        assert set(stopped) <= {fault.path for fault in faults}
        assert "\n" not in "".join(map(str, faults))
        outcomes.add(bool(faults))
        path.write_bytes(whole)
    assert outcomes == {True, False}


def test_pictures_of_other_formats_pass(tiny_data: Path, tiny_classes: ClassSet) -> None:
    as_png(tiny_data, "train")
    save_image(picture_of(tiny_data, "val"), np.zeros((32, 32), np.uint8))
    assert check_dataset(tiny_data, ["train", "val"], tiny_classes).faults == []
