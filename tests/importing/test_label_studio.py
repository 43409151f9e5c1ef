"""Label Studio's JSON: brushes by its documented bit stream, outlines in per cent, one annotation for each task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import refused
from hypothesis import given
from hypothesis import strategies as st
from label_exports import masks_in, names_in, photo, run_import, write_json

from segnet.importing.label_studio import decode_brush
from segnet.system.errors import ExitCode

MASK = np.zeros((24, 32), dtype=bool)
MASK[3:9, 4:20], MASK[5, 6:8] = True, False


def encode(values: np.ndarray, sizes: tuple[int, ...] = (3, 4, 8, 16), *, repeat: int = 2) -> list[int]:
    """Values 0..255 as bytes of the stream: lengths in one of four sizes, runs of `repeat` or more equal values repeated."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)

    def length(count: int) -> str:
        choice = next(i for i, size in enumerate(sizes) if count <= 1 << size)
        return f"{choice:02b}{count - 1:0{sizes[choice]}b}"

    ends = np.flatnonzero(np.diff(values)) + 1
    runs = [(int(run[0]), len(run)) for run in np.split(values, ends)]
    literal = list[int]()

    def flush() -> str:
        text = "".join(
            f"0{length(len(part))}" + "".join(f"{value:08b}" for value in part)
            for part in (literal[i : i + 256] for i in range(0, len(literal), 256))
        )
        literal.clear()
        return text

    for value, count in runs:
        if count < repeat:
            literal += [value] * count
            continue
        bits += flush()
        while count:
            part = min(count, 1 << max(sizes))
            bits += f"1{length(part)}{value:08b}"
            count -= part
    bits += flush()
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def brush(mask: np.ndarray, alpha: int = 255) -> list[int]:
    """The brush of a mask: the same value in red, green, blue and alpha."""
    return encode(np.repeat(mask.reshape(-1).astype(np.uint8) * np.uint8(alpha), 4))


def region(kind: str, value: dict[str, object], label: object = "leaf", **more: object) -> dict[str, object]:
    labels = [label] if isinstance(label, str) else label
    size = {"original_width": 32, "original_height": 24, "image_rotation": 0}
    return {"id": "r1", "type": kind, "value": {**value, kind: labels}, "from_name": "tag", "to_name": "image", **size, **more}


def task(*regions: dict[str, object], image: str = "/data/upload/1/0a1b2c3d-a.jpg", number: int = 7) -> dict[str, Any]:
    return {"id": number, "data": {"image": image}, "annotations": [{"id": 3, "result": list(regions), "was_cancelled": False}]}


def write_set(folder: Path, *tasks: object) -> Path:
    photo(folder / "a.jpg")
    write_json(folder / "export.json", list(tasks))
    return folder


BRUSH = region("brushlabels", {"format": "rle", "rle": brush(MASK)})
RECTANGLE = region("rectanglelabels", {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0})


@given(st.lists(st.integers(0, 255), min_size=1, max_size=60), st.integers(1, 4), st.sampled_from([(3, 4, 8, 16), (1, 2, 5, 9)]))
def test_the_bit_stream_is_read_as_it_is_documented(values: list[int], repeat: int, sizes: tuple[int, ...]) -> None:
    array = np.repeat(np.array(values, dtype=np.uint8), np.arange(len(values)) % 5 + 1)
    content = bytes(encode(array, sizes, repeat=repeat))
    assert np.array_equal(decode_brush(content, len(array)), array)


def test_long_runs() -> None:
    array = np.repeat(np.array([0, 255, 7], dtype=np.uint8), [200_000, 70_001, 3])
    assert np.array_equal(decode_brush(bytes(encode(array)), len(array)), array)


@pytest.mark.parametrize("cut", [0, 1, 4, 7, 8, -1])
def test_a_stream_that_ends_early_is_refused(cut: int) -> None:
    content = bytes(encode(np.arange(40, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"early|values"):
        decode_brush(content[:cut], 40)


@pytest.mark.parametrize("alpha", [1, 128, 255])
def test_a_brush_is_its_alpha(tmp_path: Path, alpha: int) -> None:
    entry = region("brushlabels", {"format": "rle", "rle": brush(MASK, alpha)})
    result = run_import(write_set(tmp_path / "in", task(entry)), tmp_path / "out")
    assert result.title == "Label Studio JSON"
    assert np.array_equal(masks_in(tmp_path / "out")["a"], MASK)
    assert names_in(tmp_path / "out") == ["background", "leaf"]


def test_polygons_and_rectangles_are_in_per_cent(tmp_path: Path) -> None:
    expected = np.zeros((24, 32), dtype=bool)
    expected[6:18, 8:24] = True
    polygon = region("polygonlabels", {"points": [[25, 25], [75, 25], [75, 75], [25, 75]], "closed": True})
    for number, entry in enumerate((RECTANGLE, polygon)):
        run_import(write_set(tmp_path / f"in{number}", task(entry)), tmp_path / f"out{number}")
        assert np.array_equal(masks_in(tmp_path / f"out{number}")["a"], expected)


def test_a_rectangle_turns_clockwise_around_its_first_corner(tmp_path: Path) -> None:
    entry = region("rectanglelabels", {"x": 50, "y": 25, "width": 25, "height": 12.5, "rotation": 90})  # 8×3 at (16, 6)
    run_import(write_set(tmp_path / "in", task(entry)), tmp_path / "out")
    expected = np.zeros((24, 32), dtype=bool)
    expected[6:14, 13:16] = True
    assert np.array_equal(masks_in(tmp_path / "out")["a"], expected)


def test_an_ellipse_has_its_area(tmp_path: Path) -> None:
    entry = region("ellipselabels", {"x": 50, "y": 50, "radiusX": 25, "radiusY": 25, "rotation": 0})
    run_import(write_set(tmp_path / "in", task(entry)), tmp_path / "out")
    assert abs(masks_in(tmp_path / "out")["a"].sum() - np.pi * 8 * 6) < 4


def test_later_regions_lie_over_earlier_ones(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "in", task(BRUSH, {**RECTANGLE, **region("rectanglelabels", RECTANGLE["value"], "stem")}))
    result = run_import(folder, tmp_path / "out")
    assert masks_in(tmp_path / "out")["a"][7, 10] == 2
    assert result.counts.overlapped == int(MASK[6:18, 8:24].sum())


@pytest.mark.parametrize(
    "image", ["a.jpg", "/data/upload/1/0a1b2c3d-a.jpg", "/data/local-files/?d=x/a.jpg", "https://h/x/a.jpg?sig=1"]
)
def test_pictures_are_found_by_what_the_task_says(tmp_path: Path, image: str) -> None:
    run_import(write_set(tmp_path / "in", task(BRUSH, image=image)), tmp_path / "out")
    assert list(masks_in(tmp_path / "out")) == ["a"]


def test_of_several_annotations_the_ground_truth_counts(tmp_path: Path) -> None:
    both = task(BRUSH)
    both["annotations"].append({"id": 4, "result": [RECTANGLE]})
    folder = write_set(tmp_path / "in", both)
    with refused(ExitCode.DATA, "task 7 has 2 annotations", "ground truth"):
        run_import(folder, tmp_path / "out")
    both["annotations"][0]["ground_truth"] = True
    result = run_import(write_set(tmp_path / "in", both), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], MASK)
    assert any("ground truth" in note for note in result.notes)


def test_cancelled_annotations_and_other_results_are_left_out_and_said(tmp_path: Path) -> None:
    mixed = task(BRUSH, {"id": "c", "type": "choices", "value": {"choices": ["good"]}})
    mixed["annotations"].append({"id": 4, "result": [RECTANGLE], "was_cancelled": True})
    result = run_import(write_set(tmp_path / "in", mixed), tmp_path / "out")
    assert np.array_equal(masks_in(tmp_path / "out")["a"], MASK)
    assert len(result.notes) == 3  # cancelled, choices, a picture found by its name


def test_a_task_without_regions_is_asked_about(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "b.jpg", seed=1)
    folder = write_set(tmp_path / "in", task(BRUSH), task(image="b.jpg", number=8))
    with refused(ExitCode.DATA, "1 of 2 pictures have no label: b"):
        run_import(folder, tmp_path / "out")


FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "type": (region("keypointlabels", {"x": 1, "y": 1}), "type 'keypointlabels'"),
    "no label": (region("brushlabels", {"format": "rle", "rle": []}, []), "not exactly one label"),
    "two labels": (region("brushlabels", {"format": "rle", "rle": []}, ["a", "b"]), "not exactly one label"),
    "format": (region("brushlabels", {"format": "png", "rle": []}), "no run-length encoding"),
    "bytes": (region("brushlabels", {"format": "rle", "rle": [1, 300]}), "no run-length encoding"),
    "empty": (region("brushlabels", {"format": "rle", "rle": []}), "damaged run lengths"),
    "bomb": (region("brushlabels", {"format": "rle", "rle": [255] * 40}), "damaged run lengths"),
    "size": (region("brushlabels", {"format": "rle", "rle": brush(MASK[:20])}), "damaged run lengths"),
    "points": (region("polygonlabels", {"points": [[1, 2], [3]]}), "pairs of numbers"),
    "number": (region("rectanglelabels", {"x": 1, "y": None, "width": 5, "height": 5}), "pairs of numbers"),
    "turned": (region("polygonlabels", {"points": [[1, 2], [3, 4], [5, 1]]}, image_rotation=90), "rotated picture"),
    "far": (region("polygonlabels", {"points": [[1, 2], [900_000, 4], [5, 1]]}), "a point at 900,000 % of the picture"),
    "huge": (region("polygonlabels", {"points": [[1, 2], [10**400, 4], [5, 1]]}), "pairs of numbers"),
    "turned without end": ({**RECTANGLE, "value": {**RECTANGLE["value"], "rotation": float("inf")}}, "the rotation inf"),
    "odd type": ({**RECTANGLE, "type": []}, "type '[]'"),
    "other size": ({**RECTANGLE, "original_width": 20}, "20×24, the upright picture has 32×24"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_with_the_task(tmp_path: Path, fault: str) -> None:
    wrong, found = FAULTS[fault]
    other = region("rectanglelabels", {"x": 0, "y": 0, "width": 5, "height": 5}, "stem")
    tasks = [task(wrong, other)]
    with refused(ExitCode.DATA, "export.json", "task 7", found):
        run_import(write_set(tmp_path / "in", *tasks), tmp_path / "out")


@pytest.mark.parametrize("annotations", [5, "x", {"a": 1}, [{"result": 5}], [{"result": {"a": 1}}]])
def test_annotations_of_another_form_are_no_picture_without_labels(tmp_path: Path, annotations: object) -> None:
    folder = write_set(tmp_path / "in", task(RECTANGLE), {**task(), "id": 8, "annotations": annotations})
    with refused(ExitCode.DATA, "task 8 has", "no list"):
        run_import(folder, tmp_path / "out", unlabelled="background")


def test_a_task_without_one_picture_is_refused(tmp_path: Path) -> None:
    for data, found in (({"text": "hello"}, "names no picture"), ({"a": "a.jpg", "b": "b.jpg"}, "names several pictures")):
        with refused(ExitCode.DATA, "task 7", found):
            run_import(write_set(tmp_path / "in", {**task(BRUSH), "data": data}), tmp_path / "out")
