"""The class tables agree with their sources."""

from __future__ import annotations

import pytest

from segnet.classes import CAMVID, CLASS_SETS, IGNORE_INDEX, SAMPLE, VOC, ClassSet, class_set, voc_color

# VOC development kit, VOClabelcolormap(256): the colours of labels 0..20 and 255 as published
PUBLISHED = """
0 0 0; 128 0 0; 0 128 0; 128 128 0; 0 0 128; 128 0 128; 0 128 128; 128 128 128; 64 0 0; 192 0 0; 64 128 0; 192 128 0;
64 0 128; 192 0 128; 64 128 128; 192 128 128; 0 64 0; 128 64 0; 0 192 0; 128 192 0; 0 64 128
"""


def test_voc_has_its_published_colours_and_order() -> None:
    colors = tuple(tuple(map(int, color.split())) for color in PUBLISHED.split(";"))
    assert VOC.colors == colors
    assert voc_color(255) == (224, 224, 192)
    assert len({voc_color(index) for index in range(256)}) == 256
    assert (VOC.names[0], VOC.names[15], VOC.names[20], len(VOC)) == ("background", "person", "tvmonitor", 21)


def test_camvid_has_the_eleven_classes_of_the_paper() -> None:
    assert len(CAMVID) == 11
    assert (CAMVID.names[0], CAMVID.colors[3], CAMVID.names[3]) == ("Sky", (128, 64, 128), "Road")


@pytest.mark.parametrize("classes", CLASS_SETS.values(), ids=CLASS_SETS.keys())
def test_tables_are_aligned_and_unambiguous(classes: ClassSet) -> None:
    assert len(set(classes.names)) == len(set(classes.colors)) == len(classes.names) == len(classes.colors)
    assert IGNORE_INDEX == 255


def test_the_palette_is_the_colours_then_those_of_voc() -> None:
    palette = [tuple(SAMPLE.palette[3 * index : 3 * index + 3]) for index in range(256)]
    assert palette[: len(SAMPLE)] == list(SAMPLE.colors)
    assert palette[len(SAMPLE) :] == [voc_color(index) for index in range(len(SAMPLE), 256)]


def test_a_set_without_colours_takes_those_of_voc() -> None:
    assert class_set(("a", "b")).colors == VOC.colors[:2]
    assert class_set(("a", "b"), ((1, 2, 3), (4, 5, 6))).colors == ((1, 2, 3), (4, 5, 6))
