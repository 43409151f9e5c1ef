"""The manifest of a folder of predictions: what it says survives kills, and nothing in it can do harm."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from helpers import refused
from hypothesis import given
from hypothesis import strategies as st
from predictions import Fork

from segnet.prediction.manifest import NAME, Manifest, Record, picture_name
from segnet.system.errors import ExitCode

RECORD = Record("../in/a.jpg", ("a.png", "a.json"), "12ab", "34cd")


def test_the_last_record_of_each_output_counts(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "new" / "folder")
    assert (manifest.records, manifest.unreadable) == ({}, 0)
    manifest.prepare()
    later = RECORD._replace(outputs=("a.json",), picture="größe \n \udcff.jpg", done=True)
    manifest.add(RECORD)
    manifest.add(later)
    assert Manifest(tmp_path / "new" / "folder").records == {"a.png": RECORD, "a.json": later}
    assert all(line.isascii() for line in manifest.path.read_text().splitlines())


@pytest.mark.parametrize("cut", [1, 2, 30, 100])
def test_a_line_that_was_cut_off_is_closed_and_nothing_lost(cut: int, tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.prepare()
    for name in ("a.png", "b.png"):
        manifest.add(RECORD._replace(outputs=(name,)))
    manifest.path.write_bytes(manifest.path.read_bytes()[:-cut])
    again = Manifest(tmp_path)
    assert again.unreadable == 0
    again.prepare()
    again.add(RECORD._replace(outputs=("c.png",)))
    assert Manifest(tmp_path).records.keys() - {"b.png"} == {"a.png", "c.png"}


GARBAGE = [
    b"{}",
    b"[]",
    b"null",
    b"7",
    b'"text"',
    b"{" * 100_000,
    b"[" * 100_000,
    b"\xff\xfe\x00",
    b"9" * 10_000,
    b'{"picture": "a", "outputs": "a.png", "input": "1", "settings": "2", "done": true}',
    b'{"picture": "a", "outputs": ["a.png", 3], "input": "1", "settings": "2", "done": true}',
    b'{"picture": "a", "outputs": [["a.png"]], "input": "1", "settings": "2", "done": true}',
    b'{"picture": "a", "outputs": ["a.png"], "input": "1", "settings": "2", "done": 1}',
    b'{"picture": "a", "outputs": ["a.png"], "input": null, "settings": "2", "done": true}',
    b'{"picture": "a", "outputs": ["a.png"], "input": "1", "settings": "2", "done": true, "more": 1}',
    b"x" * (1 << 21),
]


@pytest.mark.parametrize("line", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_no_record_is_ignored_and_counted(line: bytes, tmp_path: Path) -> None:
    good = json.dumps(RECORD._asdict()).encode()
    (tmp_path / NAME).write_bytes(b"\n".join([good, line, good.replace(b"a.", b"b."), b""]))
    manifest = Manifest(tmp_path)
    assert manifest.records.keys() == {"a.png", "a.json", "b.png", "b.json"}
    assert manifest.unreadable == 1 + len(line) // (1 << 20)  # read in pieces of a mebibyte


@given(st.binary(max_size=200))
def test_any_bytes_are_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / NAME).write_bytes(content)
    assert Manifest(folder).records == {}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_a_plain_file_is_read_or_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "out" / NAME
    path.parent.mkdir()
    (tmp_path / "other").write_text("")
    {"link": lambda: path.symlink_to(tmp_path / "other"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    with refused(ExitCode.ENVIRONMENT, str(path), "not a plain file", "move it away"):
        Manifest(path.parent)


def test_a_line_that_did_not_fit_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest(tmp_path)
    manifest.prepare()
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
    with pytest.raises(OSError, match="No space left") as caught:
        manifest.add(RECORD)
    assert caught.value.errno == errno.ENOSPC


def test_lines_of_several_processes_do_not_tear_each_other(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.prepare()

    def add(writer: int) -> None:
        for number in range(100):
            manifest.add(Record("x" * 3000, (f"{writer}-{number}",), "", "", done=True))

    forks = [Fork(lambda writer=writer: add(writer), tmp_path / f"{writer}.txt") for writer in range(4)]
    assert [fork.wait() for fork in forks] == [0] * 4
    found = Manifest(tmp_path)
    assert (len(found.records), found.unreadable) == (400, 0)


@pytest.mark.parametrize(
    ("output", "picture", "name"),
    [
        ("deep/a.geojson", "../in/deep/a.jpg", "deep/a.jpg"),
        ("deep/a.jpg.geojson", "../in/deep/a.jpg", "deep/a.jpg"),  # --keep-suffix
        ("a.jpg.geojson", "in/a.jpg.jpg", "a.jpg.jpg"),
        ("a.jpg.jpg.geojson", "in/a.jpg.jpg", "a.jpg.jpg"),  # --keep-suffix
        ("a.geojson", "in/a", "a"),
    ],
)
def test_a_picture_is_called_by_its_path_in_its_input_folder(output: str, picture: str, name: str) -> None:
    assert picture_name(Path("out"), Path("out", output), ".geojson", picture) == name
