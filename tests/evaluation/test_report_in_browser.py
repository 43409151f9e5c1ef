"""The report as a real browser shows it: viewer, table, both colour schemes, and what hostile data cannot do."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contrast import CONTRAST
from evaluations import CURVES, HOSTILE, evaluation_of_pictures, picture_score, report_pictures, write_page
from PIL import Image

from segnet.classes import ClassSet, class_set
from segnet.evaluation.gallery import ReportPicture, worst_and_best
from segnet.evaluation.report import write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, the first and last three of them shown."""
    classes, folder = class_set(("ground", "box", "disc")), tmp_path_factory.mktemp("report")
    pictures = report_pictures([f"picture_{index}" for index in range(12)], classes)
    shown = [
        picture for wanted in worst_and_best([p.score for p in pictures], 6) for picture in pictures if picture.score == wanted
    ]
    (folder / "metrics.csv").write_text(CURVES)
    path, evaluation = folder / "report.html", evaluation_of_pictures(pictures, classes)
    write_report(path, evaluation, shown, classes, title="SegNet on toys", facts={"split": "val"}, curves=folder / "metrics.csv")
    return path


class _Opened:
    """A page in the browser, and what it complained about or asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(**{"viewport": {"width": 1440, "height": 900}, **options})
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.page.close()
        assert self.complaints == []
        assert [url[:60] for url in self.requests[1:] if not url.startswith("data:")] == []


def _left_edge(page: Any) -> float:
    """Where the left layer is cut off, as a share of its width."""
    clip = page.eval_on_selector("#left-layer", "layer => getComputedStyle(layer).clipPath")
    return 1 - float(re.fullmatch(r"inset\(0px ([\d.]+)% 0px 0px\)", clip)[1]) / 100


def _pixel_row(page: Any) -> np.ndarray:
    """The middle row of the stage as it is on the screen."""
    pixels = np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB"))
    return pixels[len(pixels) // 2].astype(int)


def test_the_slider_wipes_between_the_layers(browser: Any, report: Path) -> None:
    with _Opened(browser, report) as page:
        page.select_option("#left", "truth")
        page.select_option("#right", "uncertainty")
        slider = page.get_by_label("wipe between left and right")
        rows = {}
        for percent in (0, 50, 100):
            slider.fill(str(percent))
            rows[percent] = _pixel_row(page)
            assert abs(_left_edge(page) - percent / 100) < 1e-6
        middle = len(rows[0]) // 2
        assert np.array_equal(rows[50][: middle - 5], rows[100][: middle - 5])
        assert np.array_equal(rows[50][middle + 5 : -5], rows[0][middle + 5 : -5])
        assert not np.array_equal(rows[0][5:-5], rows[100][5:-5])


def test_the_slider_moves_by_keyboard_and_by_dragging(browser: Any, report: Path) -> None:
    with _Opened(browser, report) as page:
        page.focus("#wipe")
        name = page.inner_text("#current bdi")
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        assert abs(_left_edge(page) - 0.53) < 1e-6
        assert page.inner_text("#current bdi") == name  # the arrows of the slider are its own
        page.keyboard.press("Home")
        assert _left_edge(page) == 0
        page.locator("#stage").scroll_into_view_if_needed()
        box = page.locator("#stage").bounding_box()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + 10, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 4, middle + 10)
        page.mouse.up()
        page.mouse.move(box["x"] + 50, middle)
        assert abs(_left_edge(page) - 0.25) < 0.011


def test_pictures_change_by_button_arrow_key_and_thumbnail(browser: Any, report: Path) -> None:
    with _Opened(browser, report) as page:
        names = page.locator("#gallery figcaption > bdi").all_inner_texts()
        assert names == [f"picture_{index}" for index in (11, 10, 9, 2, 1, 0)]
        assert page.locator("#gallery h3").all_inner_texts() == ["Worst", "Best"]
        seen = [page.inner_text("#current bdi")]
        sources = [page.get_attribute("#left-layer .front", "src")]
        for act in (
            lambda: page.click("#next"),
            lambda: page.keyboard.press("ArrowRight"),
            lambda: page.click("#previous"),
            lambda: page.keyboard.press("ArrowLeft"),
            lambda: page.keyboard.press("ArrowLeft"),
            lambda: page.locator("#gallery button").nth(3).click(),
        ):
            act()
            seen.append(page.inner_text("#current bdi"))
            sources.append(page.get_attribute("#left-layer .front", "src"))
        assert seen == [names[index] for index in (0, 1, 2, 1, 0, 5, 3)]
        assert len(set(sources)) == len(set(seen))
        assert page.get_attribute("#current", "aria-live") == "polite"
        assert page.locator("#gallery [aria-current=true]").count() == 1


def test_every_layer_can_stand_on_either_side(browser: Any, report: Path) -> None:
    with _Opened(browser, report) as page:
        for layer in ("picture", "truth", "prediction", "overlay", "error", "uncertainty"):
            for side in ("left", "right"):
                page.select_option(f"#{side}", layer)
                wanted = page.locator(f"#gallery figure >> nth=0 >> img[data-layer={layer}]").get_attribute("src")
                assert page.get_attribute(f"#{side}-layer .front", "src") == wanted
                assert page.locator(f"#{side}-layer .ground").is_visible() == (layer == "error")


def test_the_table_sorts_by_any_column_and_keeps_dashes_last(browser: Any, tmp_path: Path, tiny_classes: ClassSet) -> None:
    pictures = report_pictures(["b10", "b9", "a"], tiny_classes)
    blank = torch.full_like(pictures[0].truth, 255)
    pictures.append(
        ReportPicture(picture_score("c", blank, pictures[0].mask, tiny_classes), *pictures[0][1:])._replace(truth=blank)
    )
    with _Opened(browser, write_page(tmp_path, pictures, tiny_classes)) as page:
        names = page.locator("#every-picture tbody th")
        assert names.all_inner_texts() == ["b10", "b9", "a", "c"]
        rising = ["a", "b9", "b10", "c"]
        for column, first, second in ((0, rising, rising[::-1]), (1, rising, ["b10", "b9", "a", "c"])):
            button = page.locator("#every-picture th button").nth(column)
            button.focus()
            page.keyboard.press("Enter")
            assert names.all_inner_texts() == first
            assert page.get_attribute(f"#every-picture thead th:nth-child({column + 1})", "aria-sort") == "ascending"
            button.click()
            assert names.all_inner_texts() == second
            assert page.locator("[aria-sort]").count() == 1


@pytest.mark.parametrize("by_key", [False, True])
def test_a_link_of_a_class_shows_its_worst_picture(browser: Any, report: Path, by_key: bool) -> None:
    with _Opened(browser, report) as page:
        link = page.locator(".classes tr", has_text="box").locator("a").nth(1)
        assert re.fullmatch(r"picture_10: \d+ wrong pixels of box", link.get_attribute("aria-label"))
        link.press("Enter") if by_key else link.click()
        assert page.inner_text("#current bdi") == "picture_10"
        assert page.evaluate("document.activeElement.closest('li').id") == "picture-1"
        seen = "() => Math.abs(document.getElementById('viewer').getBoundingClientRect().top) < 200"
        page.wait_for_function(seen)  # the page scrolls smoothly
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#current bdi") == "picture_9"


_ALL_SHADES = """document.querySelectorAll(".confusion td").forEach((cell, index) => {
  cell.style.setProperty("--strength", 12 * index + "%");
})"""


def test_light_and_dark_are_both_readable(browser: Any, report: Path) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        with _Opened(browser, report, color_scheme=scheme) as page:
            backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            page.evaluate(_ALL_SHADES)
            page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
            assert page.evaluate(CONTRAST) == []
    light, dark = ([int(value) for value in re.findall(r"\d+", color)] for color in backgrounds)
    assert min(light) > 200
    assert max(dark) < 60


@pytest.mark.parametrize("width", [320, 375, 1440])
def test_no_width_makes_the_page_scroll_sideways(browser: Any, tmp_path: Path, width: int) -> None:
    classes = class_set(tuple(f"a class with a long name {index}" for index in range(21)))
    pictures = report_pictures(["a_very_long_picture_name_" * 4, "b"], classes)
    path = write_page(tmp_path, pictures, classes, facts={"checkpoint": "runs/" * 40})
    with _Opened(browser, path, viewport={"width": width, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_hostile_names_run_nothing(browser: Any, tmp_path: Path) -> None:
    classes = class_set(("ground", HOSTILE, "disc"))
    path = write_page(
        tmp_path, report_pictures([HOSTILE, HOSTILE + "2"], classes), classes, facts={HOSTILE: HOSTILE}, title=HOSTILE
    )
    with _Opened(browser, path) as page:
        page.click("#next")
        assert page.inner_text("#current bdi") == HOSTILE + "2"
        assert page.evaluate("window.stolen") is None


def test_a_script_that_is_not_the_pages_own_is_refused(browser: Any, tmp_path: Path, report: Path) -> None:
    """What escaping would miss, the policy stops."""
    path = tmp_path / "report.html"
    attack = "<script>window.stolen = 1</script><img src=data:, onerror='window.stolen = 1'>"
    path.write_text(report.read_text().replace("</main>", "</main>" + attack))
    opened = _Opened(browser, path)
    assert opened.page.evaluate("window.stolen") is None
    assert any("Content Security Policy" in text for text in opened.complaints)
    opened.page.close()


def test_one_picture_and_nothing_scored(browser: Any, tmp_path: Path, tiny_classes: ClassSet) -> None:
    [picture] = report_pictures(["only"], tiny_classes)
    truth = torch.full_like(picture.truth, 255)
    picture = picture._replace(truth=truth, score=picture_score("only", truth, picture.mask, tiny_classes))
    with _Opened(browser, write_page(tmp_path, [picture], tiny_classes, None)) as page:
        page.click("#next")
        assert page.inner_text("#current bdi") == "only"
        assert "not scored" in page.inner_text("#current")


def test_without_a_script_all_layers_are_there(browser: Any, report: Path) -> None:
    with _Opened(browser, report, java_script_enabled=False) as page:
        assert page.locator("#gallery img").count() == 6 * 6
        assert all(image.is_visible() for image in page.locator("#gallery img").all())
        assert not page.locator("#viewer").is_visible()
        assert page.locator("#every-picture tbody tr").count() == 12


def test_the_page_has_names_and_landmarks_for_screen_readers(browser: Any, report: Path) -> None:
    with _Opened(browser, report) as page:
        for role in ("banner", "main", "navigation", "slider"):
            assert page.get_by_role(role).count() == 1, role
        assert page.get_by_role("heading", level=1).all_inner_texts() == ["SegNet on toys"]
        assert page.get_by_role("img", name="Prediction for picture_11").count() == 1
        assert page.get_by_role("img", name="Training loss by step").count() == 1
        for role in ("button", "combobox", "slider", "checkbox"):
            named = page.get_by_role(role, name=re.compile(r"\w")).count()
            assert (named, named > 0) == (page.get_by_role(role).count(), True), role
        ids = "[...document.querySelectorAll('[id]')].map((e) => e.id)"
        assert page.evaluate(f"new Set({ids}).size === {ids}.length")


def test_counts_of_the_confusion_can_be_shown(browser: Any, report: Path) -> None:
    with _Opened(browser, report) as page:
        cell = page.locator(".confusion td.right").first
        shown = [cell.locator("span").is_visible()]
        page.get_by_label("numbers of pixels").check()
        shown.append(cell.locator("span").is_visible())
        assert shown == [True, False]
        assert cell.locator("b").bounding_box()["width"] > 5
