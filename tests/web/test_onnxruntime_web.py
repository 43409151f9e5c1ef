"""onnxruntime-web's files are found in its package, and what is missing is named."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from helpers import refused

from segnet.system.errors import ExitCode
from segnet.web.onnxruntime_web import BrowserRuntime, read_browser_runtime

FILES = {"ort.wasm.min.js": b"script", "ort-wasm-simd-threaded.mjs": b"glue", "ort-wasm-simd-threaded.wasm": b"wasm"}


def write_package(path: Path, files: dict[str, bytes]) -> Path:
    """A package as npm pack writes it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_the_package_and_its_folders_are_read(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime-web" / "dist").mkdir(parents=True)
    for name, content in FILES.items():
        (tmp_path / "onnxruntime-web" / "dist" / name).write_bytes(content)
    expected = BrowserRuntime(b"script", b"glue", b"wasm")
    package = write_package(tmp_path / "a.tgz", FILES)
    for path in (package, tmp_path / "onnxruntime-web", tmp_path / "onnxruntime-web" / "dist"):
        assert read_browser_runtime(path) == expected


def test_a_page_without_it_says_how_to_get_it() -> None:
    with refused(ExitCode.ENVIRONMENT, "--runtime: a page needs onnxruntime-web", "– npm pack onnxruntime-web, and name"):
        read_browser_runtime(None)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("none.tgz", "none.tgz: not the package onnxruntime-web (no such file)"),
        ("text.tgz", "text.tgz: not the package onnxruntime-web ("),
        ("cut.tgz", "cut.tgz: not the package onnxruntime-web ("),
        ("other.tgz", "ort-wasm-simd-threaded.mjs"),
        (".", "ort.wasm.min.js"),
    ],
)
def test_what_is_not_the_package_is_refused(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "text.tgz").write_text("text")
    write_package(tmp_path / "other.tgz", {"ort.wasm.min.js": b"script"})
    whole = write_package(tmp_path / "whole.tgz", {key: bytes(range(256)) * 99 for key in FILES}).read_bytes()
    (tmp_path / "cut.tgz").write_bytes(whole[: len(whole) // 2])
    with refused(ExitCode.CONFIG, found, "– npm pack onnxruntime-web"):
        read_browser_runtime(tmp_path / name)
