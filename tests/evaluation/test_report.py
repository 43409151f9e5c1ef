"""The report: what it says, what hostile data cannot do, its size, and the page as a real browser shows it."""

from __future__ import annotations

import base64
import io
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segnet.classes import SAMPLE, ClassSet, class_set
from segnet.evaluation import gallery
from segnet.evaluation.gallery import ReportPicture, worst_and_best
from segnet.evaluation.report import write_report
from segnet.metrics.calibration import Reliability
from segnet.metrics.confusion import ConfusionMatrix
from segnet.preparation import scenes
from segnet.tasks.segmentation_score import BoundaryScores, Evaluation, PictureScore
from segnet.visualization import WRONG, cut_out, error_map, to_array, uncertainty_map

HOSTILE = "</script><img src=x onerror=window.stolen=1>\"'&$title é漢\u202e"
CURVES = """step,epoch,learning_rate,loss,val_miou,val_global_accuracy,val_mean_accuracy
10,0.5,0.1,2.5,,,
20,1.0,0.1,nan,,,
20,1.0,,,0.25,0.5,0.4
30,1.5,0.1,1.5,,,
40,2.0,,,0.5,0.7,0.6
40,2.0,0.1
"""


def _score(name: str, truth: torch.Tensor, mask: torch.Tensor, classes: ClassSet) -> PictureScore:
    matrix = ConfusionMatrix(len(classes)).update(truth, mask)
    counts = [tuple(values.tolist()) for values in (matrix.counts.diagonal(), matrix.counts.sum(1), matrix.counts.sum(0))]
    return PictureScore(name, *counts, matrix.ignored, 0.5 if sum(counts[0]) else math.nan)


def _pictures(names: Sequence[str], classes: ClassSet, *, size: tuple[int, int] = (24, 32)) -> list[ReportPicture]:
    """Noise, a truth of two halves with an ignored row, and predictions that are worse from picture to picture."""
    made = []
    for index, name in enumerate(names):
        rng = torch.Generator().manual_seed(index)
        truth = torch.zeros(size, dtype=torch.uint8)
        truth[:, size[1] // 2 :], truth[0] = 1, 255
        mask = torch.where(truth == 255, 0, truth)
        mask[: 2 + index * (size[0] - 2) // len(names)] = 0
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=rng)
        score = _score(name, truth, mask, classes)
        made.append(ReportPicture(score, image, truth, mask, torch.rand(size, generator=rng)))
    return made


def _evaluation(pictures: Sequence[ReportPicture], classes: ClassSet) -> Evaluation:
    matrix = ConfusionMatrix(len(classes))
    for picture in pictures:
        matrix.update(picture.truth, picture.mask)
    scores = matrix.scores()
    right = sum(matrix.counts.diagonal().tolist())
    reliability = Reliability((0, scores.pixels), (0, right), (math.nan, 0.75), 0.125 if scores.pixels else math.nan)
    boundary = BoundaryScores(0.5 if scores.pixels else math.nan, scores.miou, scores.class_iou)
    return Evaluation(scores, boundary, reliability, tuple(picture.score for picture in pictures))


def _write(
    folder: Path, pictures: Sequence[ReportPicture], classes: ClassSet, curves: str | None = CURVES, **changes: Any
) -> Path:
    path, log = folder / "report.html", folder / "metrics.csv"
    if curves is not None:
        log.write_text(curves)
    options = {"title": "SegNet on toys", "facts": {"split": "val"}, "curves": log, **changes}
    write_report(path, _evaluation(pictures, classes), pictures, classes, **options)
    return path


class _Page(HTMLParser):
    """Every tag with its attributes, and the text, of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


# ---- which pictures, and what is said --------------------------------------------------------------------------------


def _with_miou(name: str, right: int) -> PictureScore:
    return PictureScore(name, (right,), (10 * bool(right),), (10 * bool(right),), 0, 0.5)  # 0: no pixel scored


def test_the_worst_and_the_best_are_chosen_worst_first() -> None:
    scores = [_with_miou(str(right), right) for right in (5, 9, 1, 3, 7, 0)]
    assert [picture.id for picture in worst_and_best(scores, 4)] == ["1", "3", "7", "9"]
    assert [picture.id for picture in worst_and_best(scores, 3)] == ["1", "3", "9"]
    assert [picture.id for picture in worst_and_best(scores, 1)] == ["1"]
    assert worst_and_best(scores, 0) == []


def test_pictures_without_a_score_come_last_and_only_when_there_is_room() -> None:
    scores = [_with_miou(str(right), right) for right in (0, 5, 1)]
    assert [picture.id for picture in worst_and_best(scores, 2)] == ["1", "5"]
    assert [picture.id for picture in worst_and_best(scores, 9)] == ["1", "5", "0"]


def test_the_page_says_every_score(tmp_path: Path, tiny_classes: ClassSet) -> None:
    pictures = _pictures(["a", "b", "c"], tiny_classes)
    text, scores = _Page(_write(tmp_path, pictures, tiny_classes)).text, _evaluation(pictures, tiny_classes).scores
    shares = (scores.miou, scores.global_accuracy, scores.mean_accuracy, scores.frequency_weighted_iou, 0.125, 0.5)
    for share in shares:
        assert f"{100 * share:.1f}\u202f%" in text
    assert f"{scores.pixels:,}" in text
    assert "96" in text  # ignored: three rows of 32
    for count in {count for row in scores.confusion for count in row} - {0}:
        assert f"{count:,}" in text
    for picture in pictures:
        assert f"mIoU {100 * picture.score.miou:.1f}\u202f%" in text
    assert "rank 1 of 3 from the worst" in text


def test_an_absent_class_is_a_dash_with_its_rule(tmp_path: Path, tiny_classes: ClassSet) -> None:
    page = _write(tmp_path, _pictures(["a"], tiny_classes), tiny_classes).read_text()
    row = next(line for line in page.splitlines() if "disc</bdi>" in line and "meter" in line)
    assert re.sub("<[^>]*>", " ", row).split() == ["disc", "–", "–", "–", "–", "0.0"]
    assert "is absent and not part of a mean" in page


def test_curves_are_read_past_rows_of_other_kinds(tmp_path: Path, tiny_classes: ClassSet) -> None:
    page = _Page(_write(tmp_path, _pictures(["a"], tiny_classes), tiny_classes))
    assert "From 2.5 at step 10 to 1.5 at step 30." in page.text
    assert "Highest 50.0\u202f% at step 40, last 50.0\u202f%." in page.text
    assert len(page.all("svg")) == 3
    assert all(attributes["role"] == "img" for attributes in page.all("svg"))


@pytest.mark.parametrize("curves", [None, "", "step,epoch\n1,2\n", "step,loss,val_miou\n1,nan,\n", "\0\n\0"])
def test_without_a_log_there_are_no_curves(tmp_path: Path, tiny_classes: ClassSet, curves: str | None) -> None:
    page = _Page(_write(tmp_path, _pictures(["a"], tiny_classes), tiny_classes, curves))
    assert "Learning curves" not in page.text
    assert len(page.all("svg")) == 1


def test_no_truth_at_all_gives_dashes(tmp_path: Path, tiny_classes: ClassSet) -> None:
    [picture] = _pictures(["a"], tiny_classes)
    truth = torch.full_like(picture.truth, 255)
    picture = picture._replace(truth=truth, score=_score("a", truth, picture.mask, tiny_classes))
    picture.uncertainty[0, 0] = math.nan
    text = _Page(_write(tmp_path, [picture], tiny_classes)).text
    assert "nan" not in text.lower()
    assert "mIoU –" in text
    assert "No pixel is scored." in text


def test_a_page_without_pictures_has_no_viewer(tmp_path: Path, tiny_classes: ClassSet) -> None:
    evaluation, path = _evaluation(_pictures(["a"], tiny_classes), tiny_classes), tmp_path / "new" / "report.html"
    write_report(path, evaluation, iter([]), tiny_classes, title="none", facts={}, curves=None)
    assert "viewer" not in [attributes.get("id") for attributes in _Page(path).all("div")]
    assert 'href="#pictures"' not in path.read_text()


# ---- nothing from outside, nothing that data can do ------------------------------------------------------------------


def test_everything_is_in_the_one_file(tmp_path: Path, tiny_classes: ClassSet) -> None:
    path = _write(tmp_path, _pictures(["a", "b"], tiny_classes), tiny_classes)
    page = _Page(path)
    loaded = [attributes.get(key) or "#" for _, attributes in page.tags for key in ("src", "href", "srcset", "data")]
    assert [source[:40] for source in loaded if not source.startswith(("data:", "#"))] == []
    assert not re.search(r"https?://|url\(|@import|@font-face", path.read_text())
    assert [picture["alt"] for picture in page.all("img") if picture["alt"] is None] == []


def test_names_and_ids_are_text_and_nothing_else(tmp_path: Path) -> None:
    plain, hostile = class_set(("ground", "box", "disc")), class_set(("ground", HOSTILE, "disc"))
    tame = _Page(_write(tmp_path, _pictures(["a"], plain), plain, facts={"b": "c"}))
    wild = _Page(_write(tmp_path, _pictures([HOSTILE], hostile), hostile, facts={HOSTILE: HOSTILE}, title=HOSTILE))
    assert [tag for tag, _ in wild.tags] == [tag for tag, _ in tame.tags]
    assert [sorted(attributes) for _, attributes in wild.tags] == [sorted(attributes) for _, attributes in tame.tags]
    assert wild.text.count(HOSTILE) >= 9


def test_a_name_that_is_no_unicode_is_written_with_question_marks(tmp_path: Path, tiny_classes: ClassSet) -> None:
    assert "caf?" in _Page(_write(tmp_path, _pictures(["caf\udce9"], tiny_classes), tiny_classes)).text


# ---- layers and size -------------------------------------------------------------------------------------------------


def _layers_of(page: _Page) -> dict[str, np.ndarray]:
    """The pixels of the layers of the first picture shown."""
    found = {}
    for picture in page.all("img"):
        if picture.get("data-layer") and picture["data-layer"] not in found:
            content = base64.b64decode((picture["src"] or "").removeprefix("data:image/webp;base64,"))
            found[picture["data-layer"] or ""] = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
    return found


def test_every_layer_shows_what_it_says(tmp_path: Path, tiny_classes: ClassSet) -> None:
    [picture] = _pictures(["a"], tiny_classes)
    picture.mask[5, 20:30] = 2
    shown = _layers_of(_Page(_write(tmp_path, [picture], tiny_classes)))
    assert list(shown) == ["picture", "truth", "prediction", "error", "uncertainty"]
    assert np.array_equal(shown["truth"], cut_out(picture.truth, tiny_classes))
    assert np.array_equal(shown["prediction"], cut_out(picture.mask, tiny_classes))
    assert np.array_equal(shown["error"], error_map(picture.truth, picture.mask, tiny_classes))
    noise = np.abs(shown["picture"][..., :3].astype(int) - to_array(picture.image)).mean()
    assert noise < 60  # of 85 for another noise
    assert np.abs(shown["uncertainty"][..., :3].astype(int) - uncertainty_map(picture.uncertainty)).mean() < 60


def test_a_large_picture_is_reduced_without_new_class_colours(tmp_path: Path, tiny_classes: ClassSet) -> None:
    [picture] = _pictures(["a"], tiny_classes, size=(660, 1100))
    picture.mask[100:300] = 2
    page = _Page(_write(tmp_path, [picture], tiny_classes))
    shown = _layers_of(page)
    sizes = {layer.shape[:2] for layer in shown.values()}
    assert len(sizes) == 1
    height, width = sizes.pop()
    assert width < 1024
    assert abs(height / width - 0.6) < 0.01
    for layer, ids in (("truth", picture.truth), ("prediction", picture.mask)):
        whole = cut_out(ids, tiny_classes)
        assert {tuple(color) for color in shown[layer].reshape(-1, 4)} <= {tuple(color) for color in whole.reshape(-1, 4)}
        assert np.abs(shown[layer].mean(axis=(0, 1)) - whole.mean(axis=(0, 1))).max() < 1
    wrong = (shown["error"][..., 0] == WRONG[0]).mean()
    assert abs(wrong - (picture.truth != picture.mask).float().mean().item()) < 0.01
    assert {picture.get("width") for picture in page.all("img") if picture.get("data-layer")} == {"1100"}


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_any_size_can_be_shown(tmp_path: Path, tiny_classes: ClassSet, size: tuple[int, int]) -> None:
    ones = torch.ones(size, dtype=torch.uint8)
    picture = ReportPicture(_score("a", ones, ones, tiny_classes), torch.stack([ones] * 3), ones, ones, ones.float())
    assert {layer.shape[:2] for layer in _layers_of(_Page(_write(tmp_path, [picture], tiny_classes))).values()} == {size}


def _realistic(count: int, monkeypatch: pytest.MonkeyPatch) -> list[ReportPicture]:
    """Scenes of 360×480 with sensor noise, predictions with ragged outlines, and an uncertainty that surrounds these."""
    monkeypatch.setattr(scenes, "SIZE", (360, 480))
    monkeypatch.setattr(scenes, "OTHER_SIZES", ((360, 480),))
    (first, first_mask), made = scenes.render_scene(0, 0), []
    for index in range(count):
        rng = np.random.default_rng(index)
        image, mask = (np.roll(whole, 37 * index, axis=1) for whole in (first, first_mask))
        image = (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)
        rows, columns = np.indices(mask.shape)
        wave = [(6 * np.sin(rng.random() + (rows + columns) / size)).astype(int) for size in (5, 9)]
        prediction = mask[(rows + wave[0]) % 360, (columns + wave[1]) % 480]
        prediction = torch.from_numpy(np.where(prediction == 255, 0, prediction))
        truth = torch.from_numpy(mask)
        uncertainty = torch.from_numpy(rng.random(mask.shape, dtype=np.float32)) * 0.1 + 0.5 * (truth != prediction)
        score = _score(f"scene {index:05}", truth, prediction, SAMPLE)
        made.append(ReportPicture(score, torch.from_numpy(image).permute(2, 0, 1), truth, prediction, uncertainty))
    return made


def test_two_hundred_pictures_are_less_than_ten_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, encode = _realistic(4, monkeypatch), gallery._layers
    once = cache(lambda index, room: encode(few[index], SAMPLE, room))  # two hundred are shown, four are encoded
    monkeypatch.setattr(gallery, "_layers", lambda picture, _, room: once(int(picture.score.id.split()[1]) % 4, room))
    pictures = [few[index % 4]._replace(score=few[index % 4].score._replace(id=f"scene {index:05}")) for index in range(200)]
    path = _write(tmp_path, pictures, SAMPLE)
    assert 5_000_000 < path.stat().st_size < 10_000_000
    assert path.read_text().count("<img ") == 5 * 200 + 4
    evaluation = _evaluation(few, SAMPLE)
    many = tuple(few[0].score._replace(id=f"one of very many {index}") for index in range(20_000))
    write_report(path, evaluation._replace(pictures=many), pictures, SAMPLE, title="long", facts={}, curves=None)
    assert 5_000_000 < path.stat().st_size < 10_000_000  # a long table leaves less room to the pictures
    one_by_one = tmp_path / "iterator.html"  # the number is not known before: each has a two-hundredth of the room
    write_report(one_by_one, _evaluation(few, SAMPLE), iter(few), SAMPLE, title="few", facts={}, curves=None)
    assert one_by_one.stat().st_size < 10_000_000 * 4 / 200 + 50_000


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, headless."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium here: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install -r requirements-dev.txt")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium)
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, the first and last three of them shown."""
    classes, folder = class_set(("ground", "box", "disc")), tmp_path_factory.mktemp("report")
    pictures = _pictures([f"picture_{index}" for index in range(12)], classes)
    shown = [
        picture for wanted in worst_and_best([p.score for p in pictures], 6) for picture in pictures if picture.score == wanted
    ]
    (folder / "metrics.csv").write_text(CURVES)
    path, evaluation = folder / "report.html", _evaluation(pictures, classes)
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
        for layer in ("picture", "truth", "prediction", "error", "uncertainty"):
            for side in ("left", "right"):
                page.select_option(f"#{side}", layer)
                wanted = page.locator(f"#gallery figure >> nth=0 >> img[data-layer={layer}]").get_attribute("src")
                assert page.get_attribute(f"#{side}-layer .front", "src") == wanted
                assert page.locator(f"#{side}-layer .ground").is_visible() == (layer == "error")


def test_the_table_sorts_by_any_column_and_keeps_dashes_last(browser: Any, tmp_path: Path, tiny_classes: ClassSet) -> None:
    pictures = _pictures(["b10", "b9", "a"], tiny_classes)
    blank = torch.full_like(pictures[0].truth, 255)
    pictures.append(ReportPicture(_score("c", blank, pictures[0].mask, tiny_classes), *pictures[0][1:])._replace(truth=blank))
    with _Opened(browser, _write(tmp_path, pictures, tiny_classes)) as page:
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


_ALL_SHADES = """document.querySelectorAll(".confusion td").forEach((cell, index) => {
  cell.style.setProperty("--strength", 12 * index + "%");
})"""
_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colors) => {
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    const shares = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255);
    const linear = shares.map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const said = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!said || !element.checkVisibility() || element.closest("script, :disabled, title, desc")) continue;
    const behind = [];
    for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const style = getComputedStyle(element);
    const [a, b] = [light(behind), light([...behind, element.namespaceURI.includes("svg") ? style.fill : style.color])];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${element.tagName} ${element.textContent.slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


def test_light_and_dark_are_both_readable(browser: Any, report: Path) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        with _Opened(browser, report, color_scheme=scheme) as page:
            backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            page.evaluate(_ALL_SHADES)
            page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
            assert page.evaluate(_CONTRAST) == []
    light, dark = ([int(value) for value in re.findall(r"\d+", color)] for color in backgrounds)
    assert min(light) > 200
    assert max(dark) < 60


@pytest.mark.parametrize("width", [320, 375, 1440])
def test_no_width_makes_the_page_scroll_sideways(browser: Any, tmp_path: Path, width: int) -> None:
    classes = class_set(tuple(f"a class with a long name {index}" for index in range(21)))
    pictures = _pictures(["a_very_long_picture_name_" * 4, "b"], classes)
    path = _write(tmp_path, pictures, classes, facts={"checkpoint": "runs/" * 40})
    with _Opened(browser, path, viewport={"width": width, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_hostile_names_run_nothing(browser: Any, tmp_path: Path) -> None:
    classes = class_set(("ground", HOSTILE, "disc"))
    path = _write(tmp_path, _pictures([HOSTILE, HOSTILE + "2"], classes), classes, facts={HOSTILE: HOSTILE}, title=HOSTILE)
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
    [picture] = _pictures(["only"], tiny_classes)
    truth = torch.full_like(picture.truth, 255)
    picture = picture._replace(truth=truth, score=_score("only", truth, picture.mask, tiny_classes))
    with _Opened(browser, _write(tmp_path, [picture], tiny_classes, None)) as page:
        page.click("#next")
        assert page.inner_text("#current bdi") == "only"
        assert "not scored" in page.inner_text("#current")


def test_without_a_script_all_layers_are_there(browser: Any, report: Path) -> None:
    with _Opened(browser, report, java_script_enabled=False) as page:
        assert page.locator("#gallery img").count() == 6 * 5
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
