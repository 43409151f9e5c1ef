"""The page of a folder in a real browser: what it computes equals what Python computes, opened as a file and offline."""

from __future__ import annotations

import base64
import io
import os
import shutil
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from exported_networks import Exporter, config_of, noise
from PIL import Image

from segnet.config.loading import override_config
from segnet.config.sections import Bands, Config, InferenceConfig
from segnet.data.images import open_image
from segnet.export import TOLERANCE
from segnet.inference.answers import predict, predict_maps
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.regions.cleanup import clean_up
from segnet.tasks.denoising import RestoredImages
from segnet.web.folder import Exported, write_page
from segnet.web.onnxruntime_web import BrowserRuntime, read_browser_runtime

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

SETTINGS = "inference={scales: [0.7, 1.0, 1.3], flip: dihedral, temperature: 1.7}"
DECODER = """
const parts = {}
const addPart = (name, text) => (parts[name] ??= []).push(Uint8Array.fromBase64(text).buffer)
const text64 = (values) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength).toBase64()
const file64 = (text, name) => new File([Uint8Array.fromBase64(text)], name)
"""


@pytest.fixture(scope="module")
def runtime() -> BrowserRuntime:
    """onnxruntime-web as .ci/run fetches it."""
    path = os.environ.get("ONNXRUNTIME_WEB")
    if not path:
        pytest.skip("no onnxruntime-web here: npm pack onnxruntime-web, and its file as ONNXRUNTIME_WEB")
    return read_browser_runtime(Path(path))


@pytest.fixture(scope="module")
def config() -> Config:
    """Of the network "deconvolution", with all settings of an answer."""
    return override_config(config_of("deconvolution"), [SETTINGS, "inference.precision=float32"])


@pytest.fixture(scope="module")
def model(exported: Exporter) -> EncoderDecoder:
    return exported("onnxruntime")[0]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, exported: Exporter, runtime: BrowserRuntime, config: Config) -> Path:
    """A page folder with the file of that network."""
    out = tmp_path_factory.mktemp("pages") / "page"
    _, onnx = exported("onnxruntime")
    write_page(Exported(onnx.read_bytes(), config, config.data.class_set, "<toys>"), out, runtime)
    return out


class Worker:
    """The code of the worker in a page of its own, so that each of its functions can be asked."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self.page = browser.new_page()
        self.page.add_script_tag(content=DECODER)
        for path in [folder / "files" / "runtime.js", *sorted((folder / "files").glob("network-*.js"))]:
            self.page.add_script_tag(content=path.read_text())
        code = (folder / "index.html").read_text().split("const folder = ")[1].split(";\n")[0]
        self.page.add_script_tag(content=f"const settings_of_page = {code}.settings")
        script = "document.head.append(Object.assign(document.createElement('script'), {textContent: code}))"
        self.page.evaluate(f"new Blob(parts.code).text().then(code => {script})")
        start = "start({settings: settings_of_page, glue: parts.glue[0], wasm: parts.wasm[0], network: parts.network})"
        assert self.page.evaluate(start) == {"kind": "started"}

    def under(self, **others: object) -> Self:
        """The same with other settings than those of the page; without any, with these."""
        self.page.evaluate("others => void (settings = {...settings_of_page, ...others})", others)
        return self

    def outputs(self, image: np.ndarray) -> np.ndarray:
        """(K, H, W) float32: the network's outputs for an image (C, H, W)."""
        channels, height, width = image.shape
        script = """async ([values, channels, height, width]) => {
            const image = {channels, height, width, values: new Float32Array(Uint8Array.fromBase64(values).buffer)}
            const found = await outputsOf(image)
            return [text64(found.values), found.channels, found.height, found.width]}"""
        text, *shape = self.page.evaluate(script, [as_text(image.astype("<f4").tobytes()), channels, height, width])
        return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)

    def answer(self, content: bytes, name: str = "picture.png") -> dict[str, Any]:
        """The answer to a picture file; its maps as (H, W) arrays, a restored image as (H, W, 4)."""
        script = """async ([text, name]) => {
            const found = await answer({file: file64(text, name)})
            const maps = Object.entries({mask: found.mask, confidence: found.confidence, uncertainty: found.uncertainty,
                                         restored: found.restored?.data}).filter(([, values]) => values)
            return [found.height, found.width, Object.fromEntries(maps.map(([key, values]) => [key, text64(values)]))]}"""
        height, width, maps = self.page.evaluate(script, [as_text(content), name])
        arrays = {key: np.frombuffer(base64.b64decode(text), np.uint8) for key, text in maps.items()}
        return {key: values.reshape(height, width, *([4] if key == "restored" else [])) for key, values in arrays.items()}

    def fault(self, content: bytes, name: str = "picture.png") -> str:
        """The line with which a picture file is refused."""
        script = "([text, name]) => answer({file: file64(text, name)}).then(() => '', inOneLine)"
        return self.page.evaluate(script, [as_text(content), name])

    def pixels(self, content: bytes) -> np.ndarray:
        """(H, W, 3) uint8: a picture file, decoded."""
        script = """async text => { const found = pixelsOf(await decode(file64(text, "a")))
            return [text64(found.data), found.height, found.width] }"""
        text, height, width = self.page.evaluate(script, as_text(content))
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[..., :3]


def as_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def encoded(image: torch.Tensor | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """(C, H, W) or a picture's array as a file."""
    array = image.permute(1, 2, 0).numpy() if isinstance(image, torch.Tensor) else image
    file = io.BytesIO()
    Image.fromarray(array.squeeze()).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def _worker(browser: Any, page: Path) -> Worker:
    return Worker(browser, page)


@pytest.fixture
def worker(_worker: Worker) -> Worker:
    return _worker.under()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 50), (33, 47)])
def test_the_network_computes_the_same_logits(worker: Worker, model: EncoderDecoder, size: tuple[int, int]) -> None:
    image = noise(1, size)
    with torch.no_grad():
        expected = model(image)[0].numpy()
    found = worker.outputs(image[0].numpy())
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("size", [(2, 3), (33, 47), (64, 51)])
def test_scales_flips_and_temperature_give_pythons_answer(
    worker: Worker, model: EncoderDecoder, config: Config, size: tuple[int, int]
) -> None:
    image = noise(1, size)[0]
    expected = predict_maps(model, image[None], config.inference)
    found = worker.answer(encoded(image))
    assert (found["mask"] != expected.mask[0].numpy()).mean() < 1e-3
    for name, values in (("confidence", expected.confidence), ("uncertainty", expected.uncertainty)):
        difference = np.abs(found[name] - 255 * values[0].numpy())
        assert difference.max() <= 0.5 + 255 * TOLERANCE, name


def test_a_mask_is_cleaned_up(worker: Worker, model: EncoderDecoder) -> None:
    image = noise(1, (40, 51))[0]
    plain = {"scales": [1.0], "flip": "none"}
    config = InferenceConfig(precision="float32", min_region=5, fill_holes=30)
    expected = predict_maps(model, image[None], config).mask[0].numpy()
    before = predict_maps(model, image[None], InferenceConfig(precision="float32")).mask[0].numpy()
    assert (before != expected).mean() > 0.02
    found = worker.under(**plain, clean_up={"min_region": 5, "fill_holes": 30}).answer(encoded(image))["mask"]
    assert (found != expected).mean() < 1e-3


def test_a_restored_picture_is_pythons(worker: Worker, model: EncoderDecoder, config: Config) -> None:
    """The three outputs of the network, taken for R, G and B."""
    image = noise(1, (33, 47))[0]
    restored = predict(model, image[None], config.inference, RestoredImages()).image[0]
    found = worker.under(task="denoise").answer(encoded(image))
    assert found.keys() == {"restored"}
    assert np.array_equal(found["restored"][..., 3], np.full((33, 47), 255))
    assert np.abs(found["restored"][..., :3] - restored.clamp(0, 255).permute(1, 2, 0).numpy()).max() <= 0.5 + 255 * TOLERANCE


def test_masks_are_cleaned_up_to_the_same_pixels(worker: Worker) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 3, rng.integers(1, 14, 2), dtype=np.uint8) for _ in range(400)]
    rules = rng.integers(0, 10, (len(masks), 2)).tolist()
    cases = [[as_text(mask.tobytes()), *mask.shape, *rule] for mask, rule in zip(masks, rules, strict=True)]
    script = """cases => cases.map(([text, height, width, ...rule]) =>
        text64(cleanUp({mask: Uint8Array.fromBase64(text), height, width}, ...rule)))"""
    for mask, rule, text in zip(masks, rules, worker.page.evaluate(script, cases), strict=True):
        found = np.frombuffer(base64.b64decode(text), np.uint8).reshape(mask.shape)
        assert np.array_equal(found, clean_up(mask, min_region=rule[0], fill_holes=rule[1]))


def pictures() -> dict[str, bytes]:
    """Picture files of each kind."""
    rng = np.random.default_rng(3)
    smooth = np.asarray(
        Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((45, 36), Image.Resampling.BICUBIC)
    )
    found = {kind: encoded(smooth, kind) for kind in ("PNG", "BMP", "GIF")}
    found |= {"grey": encoded(smooth[..., 0]), "WebP": encoded(smooth, "WEBP", lossless=True), "JPEG": encoded(smooth, "JPEG")}
    found["full JPEG"] = encoded(smooth, "JPEG", subsampling="4:4:4", quality=97)
    found["palette"] = encoded_palette(smooth)
    for orientation in (3, 6, 7):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found[f"turned {orientation}"] = encoded(smooth, "JPEG", exif=exif)
    return found


def encoded_palette(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).quantize(16).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("kind", "content"), pictures().items())
def test_pictures_are_decoded_as_python_decodes_them(worker: Worker, tmp_path: Path, kind: str, content: bytes) -> None:
    (tmp_path / "picture").write_bytes(content)
    expected = open_image(tmp_path / "picture").permute(1, 2, 0).numpy()
    found = worker.pixels(content)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (2 if "JPEG" in kind else 0)  # decoders of JPEG may differ by that


def test_grey_is_pythons(worker: Worker, tmp_path: Path) -> None:
    content = encoded(noise(1, (9, 12))[0])
    (tmp_path / "picture").write_bytes(content)
    script = """async text => Array.from(imageOf(pixelsOf(await decode(file64(text, "a")))).values)"""
    found = worker.under(channels=1).page.evaluate(script, as_text(content))
    assert found == open_image(tmp_path / "picture", bands=Bands(channels=1)).flatten().tolist()


def test_pictures_that_would_be_changed_are_refused(worker: Worker) -> None:
    deep = np.arange(12, dtype=np.uint16).reshape(3, 4)
    clear = np.full((3, 4, 4), 100, np.uint8)
    for content, expected in [
        (encoded(deep), "a.png: more than 8 bits a band – use segnet predict, or convert it to 8 bits"),
        (encoded(clear), "a.png: has transparent pixels, whose colours browsers change – save it without transparency"),
        (b"GIF89a", "a.png: not a picture that this browser can read – use JPEG, PNG, WebP, BMP or GIF, or segnet predict"),
        (encoded(np.zeros((10, 20, 3), np.uint8)), ""),
    ]:
        assert worker.fault(content, "a.png") == expected
    small = {"side": 1000, "pixels": 100}
    line = worker.under(largest=small).fault(encoded(np.zeros((10, 20, 3), np.uint8)), "a.png")
    assert line == "a.png: 20 × 10 pixels, more than the 100 that this page takes – use segnet predict, or a smaller picture"


class Opened:
    """The page as a person opens it, without a network, and what it complained about or asked for."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self.context = browser.new_context(offline=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto((folder / "index.html").as_uri(), wait_until="commit")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def choose(self, path: Path) -> None:
        self.page.wait_for_selector("#choose:enabled")
        self.page.set_input_files("#file", path)

    def status(self, text: str) -> None:
        """Wait until the page says this."""
        self.page.wait_for_function("text => document.getElementById('status').textContent === text", arg=text)


def test_the_page_opens_as_a_file_and_asks_nobody(
    browser: Any, page: Path, model: EncoderDecoder, config: Config, tmp_path: Path
) -> None:
    image = noise(1, (33, 47))[0]
    (tmp_path / "small.png").write_bytes(encoded(image))
    Image.new("RGB", (1536, 1536)).save(tmp_path / "large.png")
    with Opened(browser, page) as opened:
        opened.choose(tmp_path / "large.png")
        opened.status("Computing large.png")
        opened.page.click("#cancel")
        opened.status("Cancelled")
        opened.choose(tmp_path / "small.png")
        opened.status("Done: small.png")
        assert opened.page.inner_text("h1") == "<toys>"
        found = np.array(opened.page.evaluate("Array.from(shown.answer.mask)"), np.uint8).reshape(33, 47)
        assert (found != predict_maps(model, image[None], config.inference).mask[0].numpy()).mean() < 1e-3
        assert opened.complaints == []
        beside = page.parent.as_uri()
        assert [url for url in opened.requests if not url.startswith((beside, "blob:null/"))] == []


def test_a_folder_that_is_not_whole_says_what_is_missing(browser: Any, page: Path, tmp_path: Path) -> None:
    shutil.copytree(page, tmp_path / "copy")
    (tmp_path / "copy" / "files" / "network-01.js").unlink()
    (tmp_path / "small.png").write_bytes(encoded(noise(1, (3, 4))[0]))
    with Opened(browser, tmp_path / "copy") as opened:
        opened.choose(tmp_path / "small.png")
        opened.page.wait_for_selector("#fault:visible")
        assert opened.page.inner_text("#fault") == "files/network-01.js is missing – copy the whole folder of this page"
