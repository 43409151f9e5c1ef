"""Which pictures to label next: those of which a network is least sure, and of pictures that look alike one first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnet.data.twins import NEXT, difference_hash
from segnet.prediction.manifest import announce_table, done_outputs, picture_name
from segnet.system.errors import data_error
from segnet.system.files import csv_text, write_text

SUFFIX = ".ranking.json"
TABLE = "ranking.csv"  # of all pictures


class Doubt(NamedTuple):
    """What a picture is ranked by."""

    picture: str
    measure: str  # mutual_information with dropout samples, else entropy
    score: float  # its mean over the pixels, nats
    hash: int | None  # difference hash; None for a picture without structure, which is like no other


class Ranked(NamedTuple):
    """A picture in its place."""

    doubt: Doubt
    like: str  # the picture before it that it looks like; empty: none


def picture_doubt(
    picture: str, image: NDArray[np.uint8], entropy: NDArray[np.float32], mutual_information: NDArray[np.float32] | None
) -> Doubt:
    """The doubt about a picture, from its image (H, W, 3) and maps (H, W)."""
    values = entropy if mutual_information is None else mutual_information
    measure = "entropy" if mutual_information is None else "mutual_information"
    return Doubt(picture, measure, float(values.mean(dtype=np.float64)), difference_hash(np.moveaxis(image, -1, 0)))


def encode_doubt(doubt: Doubt) -> bytes:
    """The content of a picture's file."""
    return (json.dumps(doubt._asdict()) + "\n").encode()


def rank(doubts: Sequence[Doubt]) -> list[Ranked]:
    """Pictures from the most doubtful to the least; then, in the same order, those that look like one of the first.

    Two pictures look alike when their hashes differ in at most `NEXT` of 64 bits, as those of neighbouring frames of a video.
    """
    first, rest = list[Ranked](), list[Ranked]()
    known, hashes = list[str](), np.empty(0, dtype=np.uint64)
    for doubt in sorted(doubts, key=lambda doubt: (-doubt.score, doubt.picture)):
        bits = np.bitwise_count(hashes ^ np.uint64(doubt.hash)) if doubt.hash is not None else np.empty(0)
        if len(bits) and int(bits.min()) <= NEXT:
            rest.append(Ranked(doubt, known[int(bits.argmin())]))
            continue
        first.append(Ranked(doubt, ""))
        if doubt.hash is not None:
            known.append(doubt.picture)
            hashes = np.append(hashes, np.uint64(doubt.hash))
    return [*first, *rest]


def collect_ranking(out: Path) -> Path:
    """Write ranking.csv with all pictures in `out`; its path.

    Raises UserError (data) for a damaged file, and where some pictures were predicted with dropout samples and others without.
    """
    doubts, remedy = list[Doubt](), "predict the pictures again with --overwrite"
    for path in done_outputs(out, SUFFIX):
        try:
            doubt = Doubt(**json.loads(path.read_text(encoding="utf-8")))
            doubts.append(doubt._replace(picture=picture_name(out, path, SUFFIX, doubt.picture)))
        except (ValueError, TypeError):
            raise data_error(path, "not a record of a picture for the ranking", remedy) from None
        if doubts[-1].measure != doubts[0].measure:
            raise data_error(path, f"is {doubts[-1].measure}, that of {doubts[0].picture} is {doubts[0].measure}", remedy)
    heading = ["rank", "picture", doubts[0].measure if doubts else "entropy", "like"]
    rows = [[place, doubt.picture, f"{doubt.score:.6f}", like] for place, (doubt, like) in enumerate(rank(doubts), 1)]
    announce_table(out, TABLE)
    write_text(out / TABLE, csv_text([heading, *rows]))
    return out / TABLE
