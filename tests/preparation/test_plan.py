"""What a prepared folder lists and lacks."""

from pathlib import Path

from helpers import refused, write_split
from public_archives import COUNTS, TRAIN, VAL

from segnet.preparation.plan import incomplete_ids, listed_splits
from segnet.preparation.public_sets import PUBLIC_SETS
from segnet.system.errors import ExitCode

SET = PUBLIC_SETS["voc"]._replace(counts=COUNTS["voc"])


def test_a_picture_and_a_mask_make_an_id_complete(tmp_path: Path) -> None:
    for name in (
        "JPEGImages/a.png",
        "JPEGImages/b.jpg",
        "SegmentationClass/a.png",
        "SegmentationClass/c.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert incomplete_ids(tmp_path, {"train": ["a", "b"], "val": ["c", "d"]}) == {"b", "c", "d"}


def test_splits_count_once_all_lists_are_there_and_have_their_lengths(tmp_path: Path) -> None:
    write_split(tmp_path, "train", TRAIN)
    write_split(tmp_path, "val", VAL)
    assert listed_splits(SET, tmp_path) == {}
    write_split(tmp_path, "trainval", [*TRAIN, *VAL])
    assert listed_splits(SET, tmp_path) == {"train": TRAIN, "val": VAL, "trainval": [*TRAIN, *VAL]}
    write_split(tmp_path, "val", TRAIN)
    with refused(ExitCode.DATA, "val.txt: 3 pictures, expected 2", "--root"):
        listed_splits(SET, tmp_path)
