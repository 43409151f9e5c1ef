"""Classes that are merged when a mask is read: the network, the score and the predictions know the merged table alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import CLASSES, RunScript, folder_bytes, refused, tiny_mask
from PIL import Image

from segnet.classes import class_set, merge_classes, merge_text
from segnet.config.loading import config_to_yaml, load_config
from segnet.config.sections import Config
from segnet.data.checking import check_dataset
from segnet.data.dataset import open_split
from segnet.data.mask_files import open_mask, save_mask
from segnet.data.statistics import class_statistics
from segnet.system.errors import ExitCode

TABLE = class_set(("soil", "leaf", "stem", "dust", "stone"), tuple((10 * k, 5 * k, 200 - k) for k in range(5)), ignore_index=9)
MERGE = {"plant": ("stem", "leaf"), "ignore": ("dust",)}


def test_a_merged_class_has_the_place_and_the_colour_of_its_first_one() -> None:
    merged = merge_classes(TABLE, MERGE)
    assert merged.names == ("soil", "plant", "stone")
    assert merged.colors == (TABLE.colors[0], TABLE.colors[1], TABLE.colors[4])
    assert merged.class_of_stored == (0, 1, 1, 255, 2)
    assert merged.ignore_index == 9
    assert merge_text(merged) == "plant = leaf + stem; ignored: dust"
    assert merge_classes(TABLE, {}) is merge_classes(TABLE, {"plant": ()}) is TABLE
    assert merge_text(TABLE) == ""
    assert merge_text(merge_classes(TABLE, {"leaf": ("leaf", "stem")})) == "leaf = leaf + stem"


def test_masks_are_read_as_merged_ids_and_keep_theirs(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).choice([0, 1, 2, 3, 4, 9], (20, 30)).astype(np.uint8)
    save_mask(tmp_path / "a.png", stored, TABLE)
    before = folder_bytes(tmp_path)
    expected = {0: 0, 1: 1, 2: 1, 3: 255, 4: 2, 9: 255}
    assert open_mask(tmp_path / "a.png", merge_classes(TABLE, MERGE)).tolist() == [
        [expected[v] for v in row] for row in stored.tolist()
    ]
    assert folder_bytes(tmp_path) == before
    stored[0, 0] = 5
    save_mask(tmp_path / "a.png", stored, TABLE)
    with refused(ExitCode.DATA, "label 5; expected 0..4 or 9"):
        open_mask(tmp_path / "a.png", merge_classes(TABLE, MERGE))


@pytest.mark.parametrize(
    ("merge", "found"),
    [
        ("{plant: [leef, stem]}", "data.merge: no class 'leef'; did you mean 'leaf'?"),
        ("{plant: [xyz]}", "no class 'xyz'; the classes are soil, leaf, stem"),
        ("{plant: [leaf], green: [leaf]}", "'leaf' stands twice, in 'plant' and in 'green'"),
        ("{plant: [leaf, leaf]}", "'leaf' stands twice, in 'plant' and in 'plant'"),
        ("{soil: [leaf, stem]}", "'soil' is the name of a class that is not part of it"),
        ("{ignore: [soil, leaf, stem]}", "leaves no class; a network needs two"),
        ("{ignore: [soil, leaf]}", "leaves a single class"),
        ("{all: [soil, leaf, stem]}", "leaves a single class"),
        ("{plant: leaf}", "data.merge.plant: "),
        ("[leaf]", "data.merge: "),
        ("{plant: [1]}", "data.merge.plant.0: "),
    ],
)
def test_a_wrong_merge_is_refused_with_its_line(merge: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        f"model: {{encoder: [{{widths: [4]}}], decoder: [{{widths: [4]}}]}}\ndata:\n  root: {tmp_path}\n"
        f"  classes: [soil, leaf, stem]\n  merge: {merge}\n"
    )
    with refused(ExitCode.CONFIG, "a.yaml, line 5: ", found):
        load_config(path)


def merged_config(config: Config) -> Config:
    """`tiny_config` with box and disc as one class."""
    return config.model_copy(update={"data": config.data.model_copy(update={"merge": {"thing": ("box", "disc")}})})


def test_a_data_set_counts_merged_classes(tiny_config: Config, tiny_data: Path) -> None:
    data = merged_config(tiny_config).data
    dataset = open_split(data, "train")
    masks = [tiny_mask(seed=seed) for seed in range(6)]
    counts = [sum(int((mask == 0).sum()) for mask in masks), sum(int(((mask == 1) | (mask == 2)).sum()) for mask in masks)]
    assert class_statistics(dataset).pixels == counts
    of_three = class_statistics(open_split(tiny_config.data, "train")).pixels  # not the kept ones of the merged table
    assert (len(of_three), sum(of_three)) == (3, sum(counts))
    to_ground, to_box = ({name: (name, "disc")} for name in ("ground", "box"))  # one table, two meanings of the masks
    for merge, added in ((to_ground, 0), (to_box, 1)):
        counted = class_statistics(open_split(data.model_copy(update={"merge": merge}), "train")).pixels
        assert counted[added] == of_three[added] + of_three[2]
    dataset.keep_decoded()
    assert np.array_equal(dataset.read(0).truth, np.where(masks[0] == 2, 1, masks[0]))
    report = check_dataset(tiny_data, ["train"], data.class_set)
    assert (report.faults, report.splits[0].class_pixels) == ([], tuple(counts))


def test_training_scoring_predicting_and_checking_know_the_merged_table(
    run_script: RunScript, tiny_config: Config, tiny_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text(config_to_yaml(merged_config(tiny_config)))
    (tiny_data / "classes.yaml").write_text(f"names: [{', '.join(CLASSES)}]\n")
    before = folder_bytes(tiny_data)
    shown = run_script("show", "config", path)
    assert shown.stdout.endswith("# classes of the network: ground, thing (thing = box + disc)\n")
    assert yaml.safe_load(shown.stdout)["data"]["merge"] == {"thing": ["box", "disc"]}
    checked = run_script("prepare_data", "check", path)
    assert "merged by data.merge: thing = box + disc" in checked.stdout
    trained = run_script("train", path, "--run", tmp_path / "run", "train.epochs=1")
    assert trained.returncode == 0, trained.stderr
    scored = run_script("evaluate", tmp_path / "run")
    assert (scored.returncode, scored.stderr) == (0, "")
    metrics = json.loads((tmp_path / "run/evaluation/val/metrics.json").read_text())
    assert [row["name"] for row in metrics["classes"]] == ["ground", "thing"]
    assert "thing = box + disc" in (tmp_path / "run/evaluation/val/report.html").read_text()
    done = run_script("predict", tmp_path / "run", tiny_data / "JPEGImages", "--out", tmp_path / "masks")
    assert done.returncode == 0, done.stderr
    for mask in (tmp_path / "masks").glob("*.png"):
        assert set(np.unique(Image.open(mask))) <= {0, 1}
    assert {name: content for name, content in folder_bytes(tiny_data).items() if not name.startswith(".segnet")} == before
