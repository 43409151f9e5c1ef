"""The page as a folder: a network that runs in the browser, without a server and without a network connection.

Browsers do not let a page that was opened from a folder read the files beside it, but they run scripts from there. So the
.onnx file and onnxruntime-web become scripts, which hand their bytes to browser.js in base64; that is a third longer.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

from segnet.classes import ClassSet
from segnet.config.sections import Config
from segnet.export import ExportResult, export_model
from segnet.inference.answers import WINDOW
from segnet.inference.exported import Metadata
from segnet.models.encoder_decoder import EncoderDecoder
from segnet.system.errors import UserError, config_error, environment_error
from segnet.system.files import make_folder, short_name
from segnet.web.onnxruntime_web import BrowserRuntime
from segnet.web.page import build_page, page_part

INDEX = "index.html"
FILES = "files"  # the folder of all other files
PART = 12_000_000  # bytes of the network in a file: browsers hold each as a text while they read it
_SCRIPTS = "'self' file: blob: 'wasm-unsafe-eval'"  # the folder's; a worker of their texts, which compiles onnxruntime-web
_ACCEPT = ".jpg,.jpeg,.png,.webp,.bmp,.gif"


class Exported(NamedTuple):
    """An exported network, and what is known of it."""

    onnx: bytes  # the content of an .onnx file
    config: Config
    classes: ClassSet
    title: str


def export_page(
    model: EncoderDecoder, metadata: Metadata, classes: ClassSet, out: Path, runtime: BrowserRuntime, *, title: str
) -> ExportResult:
    """Write the page for `model` to the folder `out`, see `write_page`. Raises UserError as `export_model` and `write_page`."""
    require_pictures(metadata.config)
    require_replaceable(out)
    make_folder(out.parent)
    with tempfile.TemporaryDirectory(prefix=f".{short_name(out.name)}.", suffix=".tmp", dir=out.parent) as folder:
        onnx = Path(folder) / "network.onnx"
        try:
            result = export_model(model, metadata, onnx)
        except UserError as error:  # whoever reads it knows the page alone
            raise UserError(error.code, out if error.path == str(onnx) else error.path, error.found, error.remedy) from None
        index = write_page(Exported(onnx.read_bytes(), metadata.config, classes, title), out, runtime)
    return result._replace(files=(index,))


def write_page(exported: Exported, out: Path, runtime: BrowserRuntime) -> Path:
    """The path of index.html in the written folder `out`, which is new, empty, or such a page, that is replaced.

    Raises UserError: (config) where `out` holds something else, or the network does not see R, G, B or grey of 8 bits;
    (environment) for a full disk. What was there before then stays.
    """
    config = exported.config
    require_pictures(config)
    require_replaceable(out)
    make_folder(out.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{short_name(out.name)}.", suffix=".tmp", dir=out.parent) as folder:
            new = Path(folder) / "page"
            (new / FILES).mkdir(parents=True)
            names = _write_parts(new / FILES, exported.onnx, runtime)
            about = _describe(config, exported.classes, exported.title)
            content = {"about": about, "settings": settings_of(config), "files": [f"{FILES}/{name}" for name in names]}
            line = f"const folder = {json.dumps(content)};".replace("<", "\\u003c")  # no text ends the script
            page = build_page("\n".join([line, page_part("browser.js")]), scripts=_SCRIPTS, connections="'none'")
            (new / INDEX).write_text(page.html, "utf-8")
            _replace(out, new, Path(folder) / "old")
    except OSError as error:
        found = f"cannot be written: {error.strerror or error}"
        raise environment_error(out, found, "free some space, or choose another --out") from None
    return out / INDEX


def _replace(out: Path, new: Path, old: Path) -> None:
    """Move the folder `new` to `out`; what is there goes to `old`, and comes back where that fails."""
    is_there = out.is_dir()
    if is_there:
        out.rename(old)
    try:
        new.rename(out)
    except OSError:
        if is_there:
            old.rename(out)
        raise


def require_pictures(config: Config) -> None:
    """Raise UserError (config) for a network that sees something that browsers do not read from a picture."""
    bands = config.data.bands
    if bands.channels not in (1, 3) or bands.scale != "picture" or bands.rgb:
        found = f"the network sees {bands.channels} bands, data.scale {config.data.scale}; browsers read R, G, B of 8 bits"
        raise config_error("data.channels", found, "export an .onnx file, or use segnet serve")


def require_replaceable(out: Path) -> None:
    """Raise UserError (config) where `out` is there and is neither an empty folder nor a page."""
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else {""}
    if names and not (names == {INDEX, FILES} and _first_part(out).is_file()):
        raise config_error(out, "is there already, and is not a page of this program", "name another folder")


def _first_part(out: Path) -> Path:
    return out / FILES / _part_name(1)


def _part_name(number: int) -> str:
    return f"network-{number:02}.js"


def _write_parts(folder: Path, onnx: bytes, runtime: BrowserRuntime) -> list[str]:
    """The names of the written files, in the order in which they are run."""
    code = b"\n".join([runtime.script, page_part("clean_up.js").encode(), page_part("worker.js").encode()])
    files = {"runtime.js": [("code", code), ("glue", runtime.glue), ("wasm", runtime.wasm)]}
    for number, start in enumerate(range(0, len(onnx), PART), start=1):
        files[_part_name(number)] = [("network", onnx[start : start + PART])]
    for name, parts in files.items():
        lines = [f'addPart("{part}", "{base64.b64encode(content).decode()}");\n' for part, content in parts]
        (folder / name).write_text("".join(lines), "ascii")
    return list(files)


def _describe(config: Config, classes: ClassSet, title: str) -> dict[str, object]:
    """What `backend.describe` of page.js answers."""
    about = "computed in this browser, no picture leaves it"
    return {
        "title": title,
        "about": f"{len(classes)} classes · {about}" if len(classes) else about,
        "task": config.task,
        "classes": [{"name": name, "color": color} for name, color in zip(classes.names, classes.colors, strict=True)],
        "accept": _ACCEPT,
    }


def settings_of(config: Config) -> dict[str, object]:
    """What worker.js computes by. `largest` are the pictures that Python predicts whole, without windows."""
    inference = config.inference
    return {
        "task": config.task,
        "channels": config.data.channels,
        "scales": inference.scales,
        "flip": inference.flip,
        "temperature": inference.temperature,
        "clean_up": {"min_region": inference.min_region, "fill_holes": inference.fill_holes},
        "largest": {"side": inference.window or WINDOW**2, "pixels": (inference.window or WINDOW) ** 2},
    }
