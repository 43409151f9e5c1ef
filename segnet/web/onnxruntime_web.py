"""onnxruntime-web, which runs an .onnx file in a browser: its files, from its npm package."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import NamedTuple

from segnet.system.errors import config_error, environment_error, first_line

_FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")  # below dist/
_GET_IT = "npm pack onnxruntime-web, and name the file that it writes with --runtime"


class BrowserRuntime(NamedTuple):
    """The parts of onnxruntime-web that compute on the processor."""

    script: bytes  # defines `ort`
    glue: bytes  # a module that the script imports
    wasm: bytes


def read_browser_runtime(path: Path | None) -> BrowserRuntime:
    """The files in onnxruntime-web's npm package: its .tgz, or the folder node_modules/onnxruntime-web or its dist/.

    Raises UserError: (environment) without a path, (config) where the files are not there.
    """
    if path is None:
        found = "a page needs onnxruntime-web, which is not a part of this program"
        raise environment_error("--runtime", found, _GET_IT)
    try:
        contents = _of_folder(path) if path.is_dir() else _of_package(path)
    except (OSError, KeyError, tarfile.TarError, EOFError) as error:
        found = "no such file" if isinstance(error, FileNotFoundError) and not path.exists() else first_line(error, 120)
        raise config_error(path, f"not the package onnxruntime-web ({found})", _GET_IT) from None
    return BrowserRuntime(*contents)


def _of_folder(path: Path) -> list[bytes]:
    folder = path / "dist" if (path / "dist").is_dir() else path
    return [(folder / name).read_bytes() for name in _FILES]


def _of_package(path: Path) -> list[bytes]:
    with tarfile.open(path) as archive:
        files = [archive.extractfile(f"package/dist/{name}") for name in _FILES]
        return [file.read() for file in files if file is not None]
