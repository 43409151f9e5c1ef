"""The order in which pictures are worth a label."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import refused, write_picture
from predictions import run_jobs

from segnet.data.images import save_image
from segnet.data.twins import NEXT
from segnet.inference.predictor import Predictor
from segnet.prediction.ranking import Doubt, collect_ranking, picture_doubt, rank
from segnet.system.errors import ExitCode


def doubt(picture: str, score: float, bits: int | None) -> Doubt:
    return Doubt(picture, "entropy", score, None if bits is None else (1 << bits) - 1)


def test_the_most_doubtful_comes_first_and_what_looks_like_it_last() -> None:
    doubts = [
        doubt("sure", 0.1, 40),
        doubt("frame 1", 0.9, 0),
        doubt("frame 2", 0.8, NEXT),  # as many bits away as neighbouring frames
        doubt("other", 0.7, NEXT + 1),
        doubt("plain", 0.2, None),
        doubt("plain too", 0.2, None),
    ]
    ranked = [(one.doubt.picture, one.like) for one in rank(doubts)]
    assert ranked == [
        ("frame 1", ""),
        ("other", ""),
        ("plain", ""),
        ("plain too", ""),
        ("sure", ""),
        ("frame 2", "frame 1"),
    ]
    assert rank(doubts[::-1]) == rank(doubts)
    assert rank([]) == []


def test_dropout_samples_give_mutual_information() -> None:
    image, entropy = np.zeros((9, 9, 3), np.uint8), np.full((9, 9), 0.5, np.float32)
    assert picture_doubt("a", image, entropy, None) == ("a", "entropy", 0.5, None)
    assert picture_doubt("a", image, entropy, entropy / 2)[1:3] == ("mutual_information", 0.25)


def test_the_table_of_a_folder(predictor: Predictor, tmp_path: Path) -> None:
    rng, folder, out = np.random.default_rng(0), tmp_path / "in", tmp_path / "out"
    small = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    folder.mkdir()
    for name, light in (("a", 1.0), ("b", 0.9)):
        save_image(folder / f"{name}.png", (np.kron(small, np.ones((4, 4, 1))) * light).astype(np.uint8))
    write_picture(folder / "c.png", (30, 40), seed=5)
    run_jobs(predictor, folder, out, ["ranking"])
    with collect_ranking(out).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert rows[2]["like"] in ("a.png", "b.png")
    for row in rows:
        entropy = predictor.predict(folder / Path(row["picture"]).name).entropy
        assert float(row["entropy"]) == pytest.approx(entropy.mean(), abs=1e-6)
    content = json.loads((out / "a.ranking.json").read_text())
    (out / "a.ranking.json").write_text(json.dumps({**content, "measure": "mutual_information"}))
    with refused(ExitCode.DATA, "b.ranking.json: is entropy, that of a.png is mutual_information", "--overwrite"):
        collect_ranking(out)
    (out / "a.ranking.json").write_text("{}")
    with refused(ExitCode.DATA, "a.ranking.json: not a record of a picture for the ranking"):
        collect_ranking(out)
