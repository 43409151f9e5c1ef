"""CVAT for images: outlines by COCO's rule, brush masks along rows, z_order, files of several tasks, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import refused
from label_exports import lists_in, masks_in, names_in, photo, run_import, zipped

from segnet.importing.polygons import coco_polygon, turned
from segnet.system.errors import ExitCode

LEAF, STEM = "leaf", "Stängel"
SIZE = 24, 32


def xml(*images: str, labels: tuple[str, ...] = (LEAF, STEM), around: str = "task") -> str:
    """An annotations.xml of these images."""
    declared = "".join(f"<label><name>{name}</name><color>#0a14{i:02x}</color></label>" for i, name in enumerate(labels))
    meta = f"<meta><{around}><labels>{declared}</labels></{around}></meta>"
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}{"".join(images)}</annotations>\n'


def image(name: str, *shapes: str, attributes: str = 'width="32" height="24"') -> str:
    return f'<image id="0" name="{name}" {attributes}>{"".join(shapes)}</image>'


def polygon(points: str, label: str = LEAF, order: int = 0) -> str:
    return f'<polygon label="{label}" source="manual" occluded="0" points="{points}" z_order="{order}"></polygon>'


def export(folder: Path, text: str, *names: str) -> Path:
    """A folder as CVAT exports it: the XML, and the pictures below images/."""
    for name in names:
        photo(folder / "images" / name, SIZE, seed=len(name))
    folder.mkdir(exist_ok=True)
    (folder / "annotations.xml").write_text(text, encoding="utf-8")
    return folder


def painted(*outlines: list[tuple[float, float]]) -> np.ndarray:
    """A mask with the ids 1, 2, … of outlines by COCO's rule."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    for number, points in enumerate(outlines, 1):
        patch = coco_polygon([np.array(points)], SIZE)
        window = slice(patch.top, patch.top + patch.mask.shape[0]), slice(patch.left, patch.left + patch.mask.shape[1])
        mask[window][patch.mask] = number
    return mask


def imported(tmp_path: Path, *shapes: str) -> np.ndarray:
    """The mask of a picture with these shapes."""
    run_import(export(tmp_path / "in", xml(image("a.jpg", *shapes)), "a.jpg"), tmp_path / "out")
    return masks_in(tmp_path / "out")["a"]


def test_the_higher_z_order_is_on_top_and_the_labels_keep_their_order(tmp_path: Path) -> None:
    text = xml(image("Blatt 1/ä b.jpg", polygon("4,4;20,4;20,18", STEM, 1), polygon("2.25,3.5;18.5,3.5;9.75,20", LEAF, 0)))
    result = run_import(zipped(export(tmp_path / "in", text, "Blatt 1/ä b.jpg")), tmp_path / "out")
    assert (result.title, result.marker) == ("CVAT for images 1.1", "annotations.xml")
    assert names_in(tmp_path / "out") == ["background", LEAF, STEM]
    assert [row.color for row in result.classes] == [(0, 0, 0), (10, 20, 0), (10, 20, 1)]
    expected = painted([(2.25, 3.5), (18.5, 3.5), (9.75, 20)], [(4, 4), (20, 4), (20, 18)])
    assert np.array_equal(masks_in(tmp_path / "out")["Blatt 1/ä b"], expected)
    assert result.notes == []


def test_boxes_are_turned_around_their_middle(tmp_path: Path) -> None:
    box = f'<box label="{LEAF}" xtl="4" ytl="6" xbr="20" ybr="14" rotation="30" z_order="0"></box>'
    corners = turned(np.array([[-8, -4], [8, -4], [8, 4], [-8, 4]], dtype=float), 30) + np.array([12, 10])
    assert corners[1, 1] > corners[0, 1], "clockwise: the right end goes down"
    assert np.array_equal(imported(tmp_path, box), painted([(x, y) for x, y in corners.tolist()]))


def test_ellipses_are_turned_too(tmp_path: Path) -> None:
    upright = f'<ellipse label="{LEAF}" cx="12" cy="12" rx="3" ry="9" z_order="0"></ellipse>'
    lying = f'<ellipse label="{LEAF}" cx="12" cy="12" rx="9" ry="3" rotation="90" z_order="0"></ellipse>'
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    mask = imported(tmp_path / "1", upright)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 20, 9, 14)
    assert (mask != imported(tmp_path / "2", lying)).sum() <= 2, "but for a rounding of 90°"


def test_masks_run_along_rows_from_the_corner_of_their_part(tmp_path: Path) -> None:
    brush = f'<mask label="{STEM}" rle="1, 2, 1, 2" left="5" top="7" width="3" height="2" z_order="0"></mask>'
    expected = np.zeros(SIZE, dtype=np.uint8)
    expected[7, 6:8] = expected[8, 6:8] = 2
    assert np.array_equal(imported(tmp_path, brush), expected)


def test_a_picture_without_a_shape_is_asked_about_and_tags_are_counted(tmp_path: Path) -> None:
    text = xml(image("a.jpg", polygon("1,1;9,1;9,9")), image("b.jpg", '<tag label="leaf"></tag>'))
    folder = export(tmp_path / "in", text, "a.jpg", "b.jpg")
    with refused(ExitCode.DATA, "1 of 2 pictures have no label: b", "--unlabelled"):
        run_import(folder, tmp_path / "out")
    result = run_import(folder, tmp_path / "out", unlabelled="skip")
    assert result.notes == ["1 tags of whole pictures are left out"]
    assert list(masks_in(tmp_path / "out")) == ["a"]


def test_projects_keep_their_subsets_and_find_their_pictures(tmp_path: Path) -> None:
    size = 'width="32" height="24" subset="{}"'
    pictures = [
        image("a.jpg", polygon("1,1;9,1;9,9"), attributes=size.format("Train")),
        image("a.jpg", polygon("1,1;9,1;9,9", STEM), attributes=size.format("Validation")),
    ]
    text = xml(*pictures, around="project")
    run_import(export(tmp_path / "in", text, "Train/a.jpg", "Validation/a.jpg"), tmp_path / "out")
    assert lists_in(tmp_path / "out") == {"train": ["Train/a"], "val": ["Validation/a"]}
    assert masks_in(tmp_path / "out")["Validation/a"].max() == 2


def test_several_tasks_in_a_folder_are_one_set_if_their_labels_are_equal(tmp_path: Path) -> None:
    both = tmp_path / "in"
    both.mkdir()
    for task in ("task 1", "task 2"):
        export(both / task, xml(image("a.jpg", polygon("1,1;9,1;9,9"))), "a.jpg")
    run_import(both, tmp_path / "out")
    assert sorted(masks_in(tmp_path / "out")) == ["task 1/a", "task 2/a"]
    (both / "task 2" / "annotations.xml").write_text(xml(image("a.jpg"), labels=(STEM, LEAF)), encoding="utf-8")
    with refused(ExitCode.DATA, "has other labels than", "task 1"):
        run_import(both, tmp_path / "other")


def test_the_xml_alone_takes_its_pictures_from_a_folder(tmp_path: Path) -> None:
    folder = export(tmp_path / "in", xml(image("x/a.jpg", polygon("1,1;9,1;9,9"))))
    photo(tmp_path / "photos" / "x" / "a.jpg", SIZE)
    renamed = folder / "task_12.xml"
    (folder / "annotations.xml").rename(renamed)
    with refused(ExitCode.DATA, "picture 'x/a.jpg' is missing", "--pictures"):
        run_import(renamed, tmp_path / "out")
    run_import(renamed, tmp_path / "out", pictures=tmp_path / "photos")
    assert list(masks_in(tmp_path / "out")) == ["x/a"]


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ('<polyline label="leaf" points="1,1;5,5"/>', "polyline 'leaf' has no exact pixels"),
        ('<skeleton label="leaf"/>', "skeleton 'leaf' has no exact pixels"),
        (polygon("1,1;5,5;9,1", "unknown"), "has a label that <meta> does not declare"),
        (polygon("1,1;5;9,1"), "is not a list of pairs"),
        (polygon("1,1;5,x;9,1"), "has one of another form"),
        (polygon("1,1;5,nan;9,1"), "has one of another form"),
        ('<box label="leaf" xtl="1" ytl="1" xbr="3"/>', "lacks a number"),
        ('<mask label="leaf" rle="0, 5" left="0" top="0" width="3" height="2"/>', "damaged run lengths"),
        ('<mask label="leaf" rle="0, 6" left="30" top="0" width="3" height="2"/>', "reaches outside of the picture"),
        (
            '<mask label="leaf" rle="0, 9000000000000" left="0" top="0" width="3000000" height="3000000"/>',
            "outside of the picture",
        ),
    ],
)
def test_shapes_in_error_are_refused_by_picture(tmp_path: Path, shape: str, found: str) -> None:
    folder = export(tmp_path / "in", xml(image("a.jpg", shape)), "a.jpg")
    with refused(ExitCode.DATA, "annotations.xml", "picture 'a.jpg'", found):
        run_import(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<annotations><image", "is no XML"),
        ("<annotation></annotation>", "begins with <annotation>"),
        ("<annotations><image id='0' name='a.jpg'/></annotations>", "declares no labels"),
        (xml("<track id='0' label='leaf'/>"), 'the tracks of "CVAT for video 1.1"'),
    ],
)
def test_files_in_error_are_refused(tmp_path: Path, text: str, found: str) -> None:
    with refused(ExitCode.DATA, "annotations.xml", found, "export again from CVAT"):
        run_import(export(tmp_path / "in", text, "a.jpg"), tmp_path / "out")


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    text = xml(image("a.jpg", polygon("1,1;9,1;9,9"), attributes='width="24" height="32"'))
    with refused(ExitCode.DATA, "picture 'a.jpg'", "is for a picture of 24×32", "EXIF"):
        run_import(export(tmp_path / "in", text, "a.jpg"), tmp_path / "out")
