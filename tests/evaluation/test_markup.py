"""Whatever data holds is text on the page, and nothing else."""

from __future__ import annotations

from pathlib import Path

from evaluations import HOSTILE, Page, report_pictures, write_page

from segnet.classes import ClassSet, class_set


def test_names_and_ids_are_text_and_nothing_else(tmp_path: Path) -> None:
    plain, hostile = class_set(("ground", "box", "disc")), class_set(("ground", HOSTILE, "disc"))
    tame = Page(write_page(tmp_path, report_pictures(["a"], plain), plain, facts={"b": "c"}))
    wild = Page(write_page(tmp_path, report_pictures([HOSTILE], hostile), hostile, facts={HOSTILE: HOSTILE}, title=HOSTILE))
    assert [tag for tag, _ in wild.tags] == [tag for tag, _ in tame.tags]
    assert [sorted(attributes) for _, attributes in wild.tags] == [sorted(attributes) for _, attributes in tame.tags]
    assert wild.text.count(HOSTILE) >= 9


def test_a_name_that_is_no_unicode_is_written_with_question_marks(tmp_path: Path, tiny_classes: ClassSet) -> None:
    assert "caf?" in Page(write_page(tmp_path, report_pictures(["caf\udce9"], tiny_classes), tiny_classes)).text
