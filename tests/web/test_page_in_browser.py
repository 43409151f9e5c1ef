"""The page in a real browser, with its server: what it shows, what it offers, and how it is used without a mouse."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contrast import CONTRAST
from noisy_sets import denoise_config_for
from PIL import Image
from web_servers import RunningServer, picture_file, save_network

from segnet.inference.predictor import Predictor


class Opened:
    """The page of a server in the browser. At the end nothing was complained about, and nothing asked for elsewhere."""

    def __init__(self, browser: Any, server: RunningServer, *, complaints: int = 0, **options: Any) -> None:
        self.page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page.set_default_timeout(60_000)
        self.expected = complaints
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2] if "//" in request.url else ""))
        self.page.goto(server.url)
        self.page.wait_for_selector("#choose:enabled")
        self.address = server.url.split("/")[2]

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, kind: object, *_: object) -> None:
        self.page.close()
        if kind is None:
            assert len(self.complaints) == self.expected, self.complaints
            assert self.hosts <= {self.address, ""}


def choose(page: Any, content: bytes, name: str = "street.png", *, wait: bool = True) -> None:
    """Give the page a file, and wait for its result."""
    page.set_input_files("#file", [{"name": name, "mimeType": "application/octet-stream", "buffer": content}])
    if wait:
        wait_for(page, "#status", f"Done: {name}")


def wait_for(page: Any, selector: str, text: str) -> None:
    """Wait until an element that can be seen says this."""
    page.locator(selector).filter(has_text=text, visible=True).wait_for()


def download(page: Any, name: str) -> tuple[str, bytes]:
    """The name and the content of what a button downloads."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name=name).click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def canvas_pixels(page: Any, name: str) -> np.ndarray:
    """(H, W, 4) of a canvas."""
    read = """id => {
      const own = document.getElementById(id);
      const copy = new OffscreenCanvas(own.width, own.height).getContext("2d");
      copy.drawImage(own, 0, 0);
      return [own.height, own.width, ...copy.getImageData(0, 0, own.width, own.height).data];
    }"""
    flat = page.evaluate(read, name)
    return np.array(flat[2:], np.uint8).reshape(flat[0], flat[1], 4)


def test_every_download_is_the_prediction(browser, running, predictor):
    content = picture_file((25, 40), seed=3)
    prediction = predictor.predict(Image.open(io.BytesIO(content)))
    with Opened(browser, running) as page:
        assert page.title() == predictor.path.resolve().parent.name
        choose(page, content)
        assert "40 × 25 pixels" in page.inner_text("#facts")
        name, mask = download(page, "Mask (PNG)")
        picture = Image.open(io.BytesIO(mask))
        assert (name, picture.mode) == ("street.mask.png", "P")
        assert np.array_equal(np.asarray(picture), prediction.mask)
        assert picture.getpalette()[:9] == predictor.classes.palette[:9]
        for kind in ("uncertainty", "confidence"):
            name, grey = download(page, f"{kind.capitalize()} (PNG)")
            assert name == f"street.{kind}.png"
            found = np.asarray(Image.open(io.BytesIO(grey)))
            assert np.array_equal(found, np.rint(getattr(prediction, kind) * np.float32(255)))
        name, table = download(page, "Areas (CSV)")
        rows = list(csv.DictReader(io.StringIO(table.decode())))
        wanted = running.ask("/predict?format=areas&name=street.png", content).text
        for row, expected in zip(rows, csv.DictReader(io.StringIO(wanted)), strict=True):
            own, other = (float(table.pop("mean_probability") or 0) for table in (row, expected))
            assert (name, row) == ("street.areas.csv", expected)
            assert abs(own - other) < 0.5 / 255 + 1e-4
        name, polygons = download(page, "Polygons (GeoJSON)")
        assert name == "street.geojson"
        assert polygons == running.ask("/predict?format=polygons&name=street.png", content).content


def test_views_slider_and_switches(browser, running, predictor):
    content = picture_file((25, 40), seed=3)
    prediction = predictor.predict(Image.open(io.BytesIO(content)))
    colors = np.array(predictor.classes.palette).reshape(256, 3)
    with Opened(browser, running) as page:
        choose(page, content)
        assert np.array_equal(canvas_pixels(page, "ground")[..., :3], prediction.image)
        front = canvas_pixels(page, "front")
        assert np.array_equal(front[..., 3] > 0, prediction.mask > 0)  # black is transparent
        assert np.array_equal(front[prediction.mask > 0][:, :3], colors[prediction.mask[prediction.mask > 0]])
        page.get_by_label("Opacity").fill("30")
        assert page.eval_on_selector("#front", "e => e.style.opacity") == "0.3"
        _, overlay = download(page, "Overlay as shown (PNG)")
        mixed = 0.7 * prediction.image + 0.3 * colors[prediction.mask]
        mixed[prediction.mask == 0] = prediction.image[prediction.mask == 0]
        assert np.abs(np.asarray(Image.open(io.BytesIO(overlay)).convert("RGB")) - mixed).max() <= 3
        page.get_by_text("Mask", exact=True).click()
        assert np.array_equal(canvas_pixels(page, "front")[..., :3], colors[prediction.mask])
        assert page.locator("#ground").is_hidden()
        page.get_by_role("checkbox", name="disc").uncheck()
        assert np.array_equal(canvas_pixels(page, "front")[..., 3] > 0, prediction.mask != 2)
        assert page.eval_on_selector("#every", "e => [e.checked, e.indeterminate]") == [False, True]
        page.get_by_role("checkbox", name="Class").check()
        assert (canvas_pixels(page, "front")[..., 3] > 0).all()
        page.get_by_text("Uncertainty", exact=True).click()
        shades = canvas_pixels(page, "front")[..., :3].astype(int).sum(axis=2)
        order = np.argsort(prediction.uncertainty.ravel())
        assert shades.ravel()[order[-1]] > shades.ravel()[order[0]]
        shares = [row.split("\t") for row in page.locator("#areas tbody tr").all_inner_texts()]
        pixels = np.bincount(prediction.mask.ravel(), minlength=3)
        assert [int(row[-2].replace(",", "")) for row in shares] == sorted(pixels[pixels > 0].tolist(), reverse=True)


def test_it_is_used_by_keyboard_alone(browser, running):
    with Opened(browser, running) as page:
        choose(page, picture_file())
        reached = []
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate(
                    "(document.activeElement.id || document.activeElement.type + ' '"
                    " + document.activeElement.closest('label, li')?.textContent).trim()"
                )
            )
            outline = page.evaluate("""() => {
              const own = document.activeElement, shown = own.closest('#views label') ?? own;
              return getComputedStyle(shown).outlineStyle !== 'none' || own === document.body;
            }""")
            assert outline, reached
        for wanted in ("choose", "radio Overlay", "amount", "every", "checkbox ground", "button Mask (PNG)"):
            assert wanted in reached, reached
        page.focus("#views input")
        page.keyboard.press("ArrowRight")
        assert page.get_attribute("#stage", "aria-label") == "mask of street.png"
        page.keyboard.press("ArrowLeft")
        page.focus("#amount")
        page.keyboard.press("End")
        assert page.inner_text("#amount-text") == "100 %"
        page.get_by_role("checkbox", name="ground").focus()
        page.keyboard.press("Space")
        assert not page.get_by_role("checkbox", name="ground").is_checked()
        with page.expect_file_chooser():
            page.focus("#choose")
            page.keyboard.press("Enter")


def test_waiting_has_a_number_and_can_be_cancelled(browser, running):
    running.gate.clear()
    other = running.upload(picture_file(), "/predict?ticket=other")
    running.wait_for_place("other", "computing")
    with Opened(browser, running) as page:
        choose(page, picture_file(), wait=False)
        wait_for(page, "#status", "Waiting for 1 picture before this one")
        page.get_by_role("button", name="Cancel").click()
        wait_for(page, "#status", "Cancelled")
        assert page.locator("#cancel").is_hidden()
        assert page.locator("#fault").is_hidden()
        choose(page, picture_file(), "second.png", wait=False)
        wait_for(page, "#status", "Waiting for")
        running.gate.set()
        page.wait_for_selector("#result:visible")
        assert page.inner_text("#name") == "second.png"
    other.close()
    assert running.server.queue.length == 0


def test_what_goes_wrong_is_one_line(browser, running):
    with Opened(browser, running, complaints=2) as page:  # the browser's own notes of responses 422
        for content, words in ((b"no picture", "not a readable picture"), (picture_file()[:200], "not a readable picture")):
            choose(page, content, "<b>bad.png", wait=False)
            page.wait_for_selector("#fault:visible")
            assert page.inner_text("#fault").startswith("<b>bad.png: ")
            assert words in page.inner_text("#fault")
            assert page.inner_text("#status") == ""
        choose(page, picture_file())
        assert page.locator("#fault").is_hidden()


def test_a_file_that_is_too_large_is_not_sent(browser, predictor):
    with RunningServer(predictor, bytes=1000) as running, Opened(browser, running) as page:
        choose(page, bytes(1500), "large.tif", wait=False)
        wait_for(page, "#fault", "large.tif: 1,500 bytes, more than 1,000 – make it smaller")


def test_pictures_that_a_browser_does_not_know_are_shown_too(browser, running, predictor):
    """A TIFF, and a JPEG that is to be turned upright."""
    with Opened(browser, running) as page:
        content = picture_file((25, 40), kind="TIFF")
        choose(page, content, "scan.tif")
        assert np.array_equal(canvas_pixels(page, "ground")[..., :3], predictor.predict(Image.open(io.BytesIO(content))).image)
        turned = Image.open(io.BytesIO(picture_file((25, 40))))
        turned.getexif()[274] = 6
        file = io.BytesIO()
        turned.save(file, "JPEG", exif=turned.getexif(), quality=95)
        choose(page, file.getvalue(), "turned.jpg")
        shown = canvas_pixels(page, "ground")[..., :3].astype(int)
        assert np.abs(shown - predictor.predict(Image.open(file)).image).max() <= 12  # decoders of JPEG differ


def test_a_picture_is_dropped_or_pasted(browser, running):
    give = """([kind, bytes, name, ...others]) => {
      const transfer = new DataTransfer();
      for (const file of [name, ...others]) transfer.items.add(new File([new Uint8Array(bytes)], file));
      const more = kind === 'drop' ? { dataTransfer: transfer } : { clipboardData: transfer };
      const made = kind === 'drop' ? new DragEvent(kind, { ...more, cancelable: true }) : new ClipboardEvent(kind, more);
      document.dispatchEvent(made);
    }"""
    with Opened(browser, running) as page:
        for kind in ("drop", "paste"):
            page.evaluate(give, [kind, list(picture_file()), f"{kind}.png"])
            wait_for(page, "#status", f"Done: {kind}.png")
            assert page.locator("#fault").is_hidden()
        page.evaluate(give, ["drop", list(picture_file()), "first.png", "second.png"])
        wait_for(page, "#status", "Done: first.png")
        assert page.inner_text("#fault") == "2 files: only first.png is computed, one picture at a time"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_is_readable_in_every_width_and_scheme(browser, running, width, scheme):
    options = {"viewport": {"width": width, "height": 740}, "color_scheme": scheme, "reduced_motion": "reduce"}
    with Opened(browser, running, **options) as page:
        choose(page, picture_file((25, 40)), "a_very_long_name_of_a_picture_" * 4 + ".png")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(CONTRAST) == []
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) > 600) == (scheme == "light")
        assert page.evaluate("document.getAnimations().length") == 0


def test_it_has_names_for_screen_readers(browser, running):
    with Opened(browser, running) as page:
        choose(page, picture_file())
        for role in ("button", "slider", "checkbox", "radio"):
            named = page.get_by_role(role, name=re.compile(r"\w")).count()
            assert (named, named > 0) == (page.get_by_role(role).count(), True), role
        for role in ("main", "banner", "status", "table"):
            assert page.get_by_role(role).count() == 1, role
        assert page.get_by_role("img", name="overlay of street.png").count() == 1
        ids = "[...document.querySelectorAll('[id]')].map((e) => e.id)"
        assert page.evaluate(f"new Set({ids}).size === {ids}.length")


def test_a_restored_picture_is_wiped_over_its_input(browser, tmp_path):
    config = denoise_config_for(tmp_path / "nowhere", "data.channels=3")
    predictor = Predictor(save_network(tmp_path, config, 3))
    content = picture_file((25, 40), seed=5)
    wanted = predictor.restore(Image.open(io.BytesIO(content))).restored
    with RunningServer(predictor) as running, Opened(browser, running) as page:
        choose(page, content, "noisy.png")
        assert np.array_equal(canvas_pixels(page, "front")[..., :3], wanted)
        assert page.locator("#areas").is_hidden()
        assert page.locator("#views").is_hidden()
        page.get_by_label("Wipe").fill("25")
        clip = page.eval_on_selector("#front", "layer => getComputedStyle(layer).clipPath")
        assert clip == "inset(0px 0px 0px 25%)"
        name, restored = download(page, "Restored picture (PNG)")
        assert name == "noisy.restored.png"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(restored)).convert("RGB")), wanted)


def test_the_answer_of_a_server_that_is_gone_is_one_line(browser, predictor):
    with RunningServer(predictor) as running:
        opened = Opened(browser, running)
    choose(opened.page, picture_file(), wait=False)
    wait_for(opened.page, "#fault", "The server does not answer")
    opened.page.close()
